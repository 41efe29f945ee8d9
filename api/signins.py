"""Sign-ins: what the tokens of a person descend from, and whether it has ended.

Refresh tokens are random, stored hashed, used once: each use gives a new one, and using an old one again ends the
sign-in, since one of the two users is a thief. An ended sign-in takes the last revision a document can have, so nothing
that another gateway writes at the same moment brings it back to life.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable

import msgspec

from hub.errors import Unauthenticated
from hub.ports import Document, Documents
from hub.settings import Agent

REFRESH = "refresh"
REFRESH_TOKEN_S = 30 * 86_400
ENDED_REVISION = 2**31 - 1
REMEMBER_FOR_S = 5.0
REMEMBER_MAX_COUNT = 50_000


class RefreshFamily(msgspec.Struct):
    """All refresh tokens that descend from one sign-in. `current` is the hash of the one that is valid."""

    tenant: str
    agent: str
    current: str
    expires_at: float
    revoked: bool = False

    @property
    def live(self) -> bool:
        return not self.revoked and self.expires_at > time.time()


class SignIns:
    """`on_end` is told the kind and id of a sign-in that has ended, once that is durable."""

    def __init__(self, documents: Documents, on_end: Callable[[str, str], None]) -> None:
        self._documents = documents
        self._on_end = on_end
        self._known: dict[str, tuple[float, bool]] = {}
        self._forgotten = 0

    async def begin(self, agent: Agent) -> tuple[str, str]:
        """The family of a new sign-in, and its first refresh token."""
        family = secrets.token_urlsafe(16)
        return family, await self._issue(agent.tenant, agent.id, family, revision=1)

    async def read(self, token: str) -> tuple[str, RefreshFamily, int]:
        """(family, what is known of it, revision). Raises Unauthenticated, and ends a family whose token was used before."""
        family, _, secret = token.partition(".")
        found = await self._find(family) if family and secret else None
        if found is None:
            raise Unauthenticated("the refresh token is not valid")
        known, revision = found
        if not known.live:
            raise Unauthenticated("sign in again")
        if not secrets.compare_digest(known.current, _digest(secret)):
            await self.end(family)
            raise Unauthenticated("the refresh token was used before; sign in again")
        return family, known, revision

    async def rotate(self, family: str, known: RefreshFamily, revision: int) -> str:
        """The refresh token that replaces the one just used."""
        return await self._issue(known.tenant, known.agent, family, revision + 1)

    async def family_of(self, token: str) -> str | None:
        """The family that a refresh token is the valid one of."""
        family, _, secret = token.partition(".")
        found = await self._find(family) if family and secret else None
        if found is None or not secrets.compare_digest(found[0].current, _digest(secret)):
            return None
        return family

    async def is_live(self, family: str) -> bool:
        """Whether its tokens still count: at once where it ended here or we were told, else within `REMEMBER_FOR_S`."""
        known = self._known.get(family)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        forgotten = self._forgotten
        found = await self._find(family)
        live = found is not None and found[0].live
        if forgotten == self._forgotten:  # or else what was read may be older than what we were told meanwhile
            if len(self._known) >= REMEMBER_MAX_COUNT:
                self._known.clear()
            self._known[family] = (time.monotonic() + REMEMBER_FOR_S, live)
        return live

    async def end(self, family: str) -> None:
        """Durable when it returns; nothing happens where it has ended already."""
        found = await self._find(family)
        if found is None or found[0].revoked:
            return
        ended = msgspec.structs.replace(found[0], revoked=True)
        await self._save(family, ended, ENDED_REVISION)
        self._on_end(REFRESH, family)

    def forget(self, family: str) -> None:
        self._forgotten += 1
        self._known.pop(family, None)

    async def _find(self, family: str) -> tuple[RefreshFamily, int] | None:
        document = await self._documents.get(REFRESH, family)
        if document is None:
            return None
        return msgspec.msgpack.decode(document.body, type=RefreshFamily), document.revision

    async def _issue(self, tenant: str, agent: str, family: str, revision: int) -> str:
        secret = secrets.token_urlsafe(32)
        known = RefreshFamily(tenant, agent, _digest(secret), time.time() + REFRESH_TOKEN_S)
        await self._save(family, known, revision)
        return f"{family}.{secret}"

    async def _save(self, family: str, known: RefreshFamily, revision: int) -> None:
        document = Document(REFRESH, family, known.tenant, revision, msgspec.msgpack.encode(known))
        await self._documents.put([document])


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
