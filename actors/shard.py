"""The shard: a Ray actor around a `Host`. Everything of substance is in the host, which tests drive without Ray.

Whatever it is asked comes on the wire (`wire.py`); Ray starts it, names it, and starts it again. The first call that arrives
(the supervisor's ping, at the latest) makes it join the directory, which tells it what to own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from actors import directory, processes

if TYPE_CHECKING:
    from hub.config import Config

log = logging.getLogger("hub.shard")


class Shard:
    def __init__(self, name: str, node: str, config: Config) -> None:
        # Imported here: Ray ships this class by value, and codecs cannot be pickled.
        from hub import logs

        logs.configure(config.log_level, name)
        self._name = name
        self._node = node
        self._config = config
        self._incarnation = time.time_ns()
        self._desk: Any = None
        self._starting: asyncio.Task[None] | None = None

    async def ping(self) -> int:
        """Our process id, once we have joined the directory and own what it says. Raises what keeps us from that."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())
        await asyncio.shield(self._starting)
        return os.getpid()

    async def _start(self) -> None:
        from actors.desk import Desk
        from actors.readers.sender import ProviderSender
        from channels.client import ProviderClient
        from hub import process
        from hub.sealing import Keyring, load_secret
        from hub.settings import Vault
        from hub.storage import open_store

        config = self._config
        store = await open_store(config.storage, partitions=config.partitions)
        keyring = Keyring(load_secret(config.secret_key, config.data_dir))
        sender = ProviderSender(store.documents, Vault(keyring), ProviderClient(), config)
        self._desk = Desk(self._name, self._node, self._incarnation, store=store, keyring=keyring, sender=sender)
        await self._desk.open(processes.own_address(), directory.find)
        process.tune()

    async def drain(self) -> None:
        if self._desk is not None:
            await self._desk.close()


def start(name: str, node: str, config: Config, **placed: Any) -> Any:
    return processes.spawn(Shard, name, name, node, config, **placed)
