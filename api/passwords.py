"""Password hashes: scrypt, with its parameters written beside each hash so that they can grow."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os

COST_N = 2**14
BLOCK_R = 8
PARALLEL_P = 1
SALT_BYTES = 16
PASSWORD_MAX_CHARS = 1024
# Verifying costs 16 MB and 50 ms each: more at once would let a stranger exhaust the process.
_VERIFY_MAX_AT_ONCE = asyncio.Semaphore(2)


def hash_password(password: str) -> str:
    salt = os.urandom(SALT_BYTES)
    digest = _scrypt(password, salt, COST_N, BLOCK_R, PARALLEL_P)
    return f"scrypt${COST_N}${BLOCK_R}${PARALLEL_P}${_text(salt)}${_text(digest)}"


async def verify(password: str, stored: str | None) -> bool:
    """Constant time in what matters: an unknown user (`stored` None) costs what a wrong password costs."""
    async with _VERIFY_MAX_AT_ONCE:
        matches = await asyncio.to_thread(_matches, password, stored or _NOBODY)
    return matches and stored is not None


def _matches(password: str, stored: str) -> bool:
    if len(password) > PASSWORD_MAX_CHARS:
        return False
    try:
        _, n, r, p, salt, digest = stored.split("$")
        found = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    except ValueError:
        return False
    return hmac.compare_digest(found, base64.b64decode(digest))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=64 * 1024 * 1024, dklen=32)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# What an unknown user is checked against, so that the answer takes as long as a known one's.
_NOBODY = hash_password(os.urandom(16).hex())
