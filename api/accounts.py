"""Accounts: the gateway's look-ups of channels, agents and API keys, remembered until they change.

A shard tells every gateway when a setting changes; the short life of what is remembered covers the
moments when nobody could be told. While the store does not answer, nothing can change, and what was known holds.
"""

from __future__ import annotations

import asyncio
import time

from hub.errors import StoreUnavailable
from hub.ports import Documents
from hub.settings import KINDS, Agent, ApiKey, Channel, T, Tenant, Vault

REMEMBER_FOR_S = 5.0
READ_PATIENCE_S = 0.25
REMEMBER_MAX_COUNT = 50_000
EMAIL_CLAIM = "email"


class Accounts:
    def __init__(self, documents: Documents, vault: Vault) -> None:
        self._documents = documents
        self._vault = vault
        self._known: dict[tuple[str, str], tuple[float, object]] = {}
        self._reading: dict[tuple[str, str], asyncio.Task[object]] = {}
        self._forgotten = 0

    async def channel(self, id: str) -> Channel | None:
        return await self._look_up(id, Channel)

    async def agent(self, id: str) -> Agent | None:
        return await self._look_up(id, Agent)

    async def api_key(self, id: str) -> ApiKey | None:
        return await self._look_up(id, ApiKey)

    async def tenant(self, id: str) -> Tenant | None:
        return await self._look_up(id, Tenant)

    async def agents(self, tenant: str) -> list[Agent]:
        return await self._list(tenant, Agent)

    async def channels(self, tenant: str) -> list[Channel]:
        return await self._list(tenant, Channel)

    async def api_keys(self, tenant: str) -> list[ApiKey]:
        return await self._list(tenant, ApiKey)

    async def revision(self, kind: type[T], id: str) -> int:
        document = await self._documents.get(KINDS[kind], id)
        return document.revision if document is not None else 0

    def forget(self, kind: str, id: str) -> None:
        self._forgotten += 1
        self._known.pop((kind, id), None)
        self._reading.pop((kind, id), None)

    async def claim(self, kind: str, id: str, owner: str) -> str:
        """Names that are unique across tenants (an e-mail address, a channel id) belong to who claims them first."""
        return await self._documents.claim(kind, id, owner)

    async def agent_id_of_email(self, email: str) -> str | None:
        """E-mail addresses are claimed as `tenant/agent`."""
        owner = await self._documents.owner(EMAIL_CLAIM, email.strip().lower())
        return owner.partition("/")[2] if owner else None

    async def _look_up(self, id: str, kind: type[T]) -> T | None:
        key = (KINDS[kind], id)
        known = self._known.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]  # type: ignore[return-value]
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.get_running_loop().create_task(self._read(key, kind))
            reading.add_done_callback(lambda task: self._has_read(key, task))
        try:
            async with asyncio.timeout(None if known is None else READ_PATIENCE_S):
                found = await asyncio.shield(reading)
        except (TimeoutError, StoreUnavailable):
            if known is None or self._known.get(key) is not known:
                raise StoreUnavailable("the settings cannot be read", retry_after_s=1) from None
            found = known[1]
        return found  # type: ignore[return-value]

    async def _read(self, key: tuple[str, str], kind: type[T]) -> object:
        forgotten = self._forgotten
        document = await self._documents.get(*key)
        found = self._vault.decode(document.body, kind) if document is not None else None
        if forgotten != self._forgotten:
            return found  # perhaps older than what we were told meanwhile: good for this answer, not to be remembered
        if len(self._known) >= REMEMBER_MAX_COUNT:
            self._known.clear()
        self._known[key] = (time.monotonic() + REMEMBER_FOR_S, found)
        return found

    def _has_read(self, key: tuple[str, str], task: asyncio.Task[object]) -> None:
        if self._reading.get(key) is task:
            del self._reading[key]
        if not task.cancelled():
            task.exception()  # whoever waited was told; if nobody did, there is nothing to report

    async def _list(self, tenant: str, kind: type[T]) -> list[T]:
        return [self._vault.decode(d.body, kind) for d in await self._documents.of_tenant(KINDS[kind], tenant)]
