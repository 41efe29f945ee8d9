"""The shard: a Ray actor around a `Host`. Everything of substance is in the host, which tests drive without Ray.

Commands, answers and feeds cross on the wire (`wire.py`); what is rare crosses in Ray calls. Ray restarts a dead shard by calling `__init__` again; the first call
that arrives (the supervisor's ping, at the latest) makes it take its partitions anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from actors import directory, processes

if TYPE_CHECKING:
    from hub.config import Config

log = logging.getLogger("hub.shard")

REOPEN_AFTER_S = 0.2


class Shard:
    def __init__(self, name: str, config: Config) -> None:
        # Imported here: Ray ships this class by value, and codecs cannot be pickled.
        from hub import logs

        logs.configure(config.log_level, name)
        self._name = name
        self._config = config
        self._incarnation = time.time_ns()
        self._host: Any = None
        self._listener: Any = None
        self._address = ("", 0)
        self._starting: asyncio.Task[None] | None = None

    async def _started(self) -> Any:
        if self._host is None or self._starting is not None:
            if self._starting is None:
                self._starting = asyncio.get_running_loop().create_task(self._start())
            await asyncio.shield(self._starting)
        return self._host

    async def _start(self) -> None:
        from actors.host import Host
        from actors.readers.sender import ProviderSender
        from actors.wire import Listener
        from channels.client import ProviderClient
        from hub import process
        from hub.clock import SystemClock
        from hub.sealing import Keyring, load_secret
        from hub.settings import Vault
        from hub.storage import open_store

        config = self._config
        store = await open_store(config.storage, partitions=config.partitions)
        keyring = Keyring(load_secret(config.secret_key, config.data_dir))
        sender = ProviderSender(store.documents, Vault(keyring), ProviderClient(), config)
        self._host = Host(
            name=self._name,
            incarnation=self._incarnation,
            store=store,
            keyring=keyring,
            clock=SystemClock(),
            sender=sender,
            on_lost=self._on_lost,
        )
        self._host.start()
        mine = (await directory.lookup()).of(self._name)
        await self._host.open(mine)
        node_ip = processes.own_address()
        self._listener = Listener(keyring.derive("wire"), self._host.submit)
        self._address = (node_ip, await self._listener.open(node_ip))
        process.tune()
        log.info("%s owns %d partitions", self._name, len(mine))
        self._starting = None

    def _on_lost(self, partition: int) -> None:
        asyncio.get_running_loop().create_task(self._reopen_if_mine(partition))

    async def _reopen_if_mine(self, partition: int) -> None:
        """The directory, not the epoch, says who should own it: two shards must not fence each other for ever."""
        await asyncio.sleep(REOPEN_AFTER_S)
        if partition in (await directory.lookup()).of(self._name) and partition not in self._host.partitions:
            await self._host.open([partition])

    async def ping(self) -> int:
        await self._started()
        return self._incarnation

    async def address(self) -> tuple[str, int]:
        """Where gateways connect (`wire.py`)."""
        await self._started()
        return self._address

    async def attend(self, gateway: str, tenants: list[str]) -> tuple[int, dict[int, int]]:
        """A gateway's interest. Returns our incarnation and the newest durable offset of each partition here."""
        host = await self._started()
        host.publisher.attend(gateway, tenants, self._sender_to)
        return self._incarnation, host.heads()

    def _sender_to(self, gateway: str) -> Callable[[bytes], Awaitable[None]]:
        async def send(feeds: bytes) -> None:
            await self._listener.send_feeds(gateway, feeds)

        return send

    async def replay(self, partition: int, tenant: str, after: int, upto: int) -> bytes | tuple[str, str]:
        """Encoded publications, or (code, detail) of a refusal."""
        from hub.codec import encode
        from hub.errors import HubError

        host = await self._started()
        try:
            return encode(await host.replay(partition, tenant, after, upto))
        except HubError as error:
            return error.code, error.detail

    async def reach(self, partition: int, offset: int) -> tuple[str, str] | None:
        from hub.errors import HubError

        host = await self._started()
        try:
            await host.reach(partition, offset)
        except HubError as error:
            return error.code, error.detail
        return None

    async def metrics(self) -> dict[str, float]:
        host = await self._started()
        return {**host.metrics(), "process_cpu_seconds": time.process_time()}

    async def drain(self) -> None:
        if self._host is not None:
            await self._host.close()
            self._listener.close()
            await self._host.store.close()


def start(name: str, config: Config) -> Any:
    return processes.spawn(Shard, name, name, config)
