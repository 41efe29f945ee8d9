"""The courier's hands: finds the channel and its adapter, and calls the provider."""

from __future__ import annotations

import time

from actors.readers.courier import Traits
from channels.adapter import Outcome, Outgoing
from channels.client import ProviderClient
from channels.registry import adapter_for
from hub.config import Config
from hub.errors import HubError
from hub.ports import Documents
from hub.settings import Channel, Vault

CHANNEL_CACHE_S = 5.0
DEFAULT_BASE_URLS = {"whatsapp": "https://graph.facebook.com"}


class ProviderSender:
    def __init__(self, documents: Documents, vault: Vault, client: ProviderClient, config: Config) -> None:
        self._documents = documents
        self._vault = vault
        self._client = client
        self._cache: dict[str, tuple[float, Channel]] = {}
        self._base_urls = dict(DEFAULT_BASE_URLS)
        if config.whatsapp_api:
            self._base_urls["whatsapp"] = config.whatsapp_api
        elif config.demo:
            self._base_urls["whatsapp"] = f"http://{config.host}:{config.port}/demo/provider/whatsapp"

    def traits(self, kind: str) -> Traits:
        try:
            adapter = adapter_for(kind)
        except HubError:
            return Traits(local=False, idempotent=False)
        return Traits(local=adapter.local, idempotent=adapter.idempotent)

    async def send(self, channel: str, kind: str, outgoing: Outgoing) -> Outcome:
        try:
            adapter = adapter_for(kind)
            found = await self._channel(channel)
        except HubError as error:
            return Outcome("retry" if error.retryable else "failed", code=error.code, detail=error.detail)
        if found is None:
            return Outcome("failed", code="channel_gone", detail=f"channel {channel} is no longer connected")
        return await self._client.send(adapter, found, outgoing, self._base_urls.get(kind, ""))

    async def _channel(self, id: str) -> Channel | None:
        cached = self._cache.get(id)
        if cached is not None and time.monotonic() - cached[0] < CHANNEL_CACHE_S:
            return cached[1]
        document = await self._documents.get("channel", id)
        if document is None:
            self._cache.pop(id, None)
            return None
        channel = self._vault.decode(document.body, Channel)
        self._cache[id] = (time.monotonic(), channel)
        return channel
