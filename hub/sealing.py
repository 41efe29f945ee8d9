"""Keys, and what is sealed with them.

One secret of the installation (`HUB_SECRET_KEY`, or `secret.key` in the data directory) is never used
directly: each purpose derives its own key from it (HKDF-SHA-256). Every stream (a customer, or a
tenant's settings) has a random data key, stored wrapped. Content is AES-256-GCM under the data key,
bound to its stream and offset, so that no record can be passed off as another. Erasing one wrapped key
makes that customer's words unreadable in journal, snapshots and backups at once.

Layout of everything sealed: 12 bytes of nonce, then ciphertext and tag.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12
KEY_BYTES = 32
FINGERPRINT_BYTES = 8
READY = "hex:"
"""A configured secret that begins with this is what a `secret.key` holds: how a second machine is given the same."""
_urandom = os.urandom


class Unsealable(Exception):
    """The bytes were not sealed with this key, or not for this place."""


class Cipher:
    """Seals and opens with one key."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, plain: bytes, place: bytes) -> bytes:
        nonce = _urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place)
        except (InvalidTag, ValueError) as error:
            raise Unsealable(place.decode(errors="replace")) from error


class Keyring:
    """All keys of one installation, derived from its secret."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("the secret key needs at least 16 bytes")
        self._secret = secret
        self._wrap = Cipher(self.derive("wrap"))
        self.settings = Cipher(self.derive("settings"))
        self.identity_secret = self.derive("identity")
        self.token_secret = self.derive("token")
        self._visitor_secret = self.derive("visitor")

    def derive(self, purpose: str) -> bytes:
        kdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=b"cocolu-hub", info=purpose.encode())
        return kdf.derive(self._secret)

    @property
    def fingerprint(self) -> str:
        """Tells two installations' secrets apart, and gives neither away."""
        return self.derive("fingerprint")[:FINGERPRINT_BYTES].hex()

    def new_data_key(self, stream: str) -> tuple[Cipher, bytes]:
        """A fresh data key for `stream`: the cipher to use, the wrapped form to store."""
        key = secrets.token_bytes(KEY_BYTES)
        return Cipher(key), self._wrap.seal(key, stream.encode())

    def unwrap(self, stream: str, wrapped: bytes) -> Cipher:
        """Raises Unsealable where the installation's secret is not the one that wrapped it."""
        return Cipher(self._wrap.open(wrapped, stream.encode()))

    def visitor_token(self, channel: str, visitor: str) -> str:
        """What a web visitor's browser keeps to prove it is the same visitor."""
        mac = hmac.digest(self._visitor_secret, f"{channel}\0{visitor}".encode(), "sha256")
        return base64.urlsafe_b64encode(mac[:24]).decode()

    def visitor_token_ok(self, channel: str, visitor: str, token: str) -> bool:
        return hmac.compare_digest(self.visitor_token(channel, visitor).encode(), token.encode("utf-8", "replace"))


def load_secret(configured: str | None, data_dir: Path) -> bytes:
    """The installation's secret: the configured one, else `secret.key` in the data directory, made if absent."""
    if configured and configured.startswith(READY):
        return bytes.fromhex(configured.removeprefix(READY))
    if configured:
        return hashlib.sha256(configured.encode()).digest()
    path = data_dir / "secret.key"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # never replaces a key that another process made meanwhile
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return bytes.fromhex(path.read_text().strip())
