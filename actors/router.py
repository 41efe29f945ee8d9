"""The router: finds the shard for a stream and sends commands down its lane. The Ray side of `lanes.py`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from actors import directory, processes
from actors.assignment import Assignment
from actors.lanes import Lane
from actors.publication import Publication, decode_publications
from actors.wire import GatewaySide
from hub.commands import Answer, Invocation
from hub.errors import HubError, Unavailable, from_code
from hub.ids import stream_partition

log = logging.getLogger("hub.router")

ASIDE_TIMEOUT_S = 10.0


class Router:
    def __init__(
        self,
        gateway: str,
        partitions: int,
        *,
        secret: bytes,
        on_failure: Callable[[str], None],
        on_feeds: Callable[[bytes], None],
    ) -> None:
        """`secret` is what the shards know too; `on_feeds` takes encoded feeds."""
        self.partitions = partitions
        self._gateway = gateway
        self._secret = secret
        self._on_feeds = on_feeds
        self._wires: dict[str, GatewaySide] = {}
        self._connecting: dict[str, asyncio.Lock] = {}
        self._on_failure = on_failure
        self._assignment = Assignment(0, [])
        self._lanes: dict[str, Lane] = {}
        self._handles: dict[str, Any] = {}

    async def start(self) -> None:
        self._assignment = await directory.lookup()

    @property
    def shards(self) -> list[str]:
        return sorted(set(self._assignment.owners))

    def owner(self, partition: int) -> str:
        return self._assignment.owners[partition]

    def send(self, invocation: Invocation) -> asyncio.Future[Answer]:
        """The answer comes once it is durable or refused; the future itself never fails."""
        shard = self._assignment.owners[stream_partition(invocation.stream, self.partitions)]
        lane = self._lanes.get(shard)
        if lane is None:
            lane = self._lanes[shard] = Lane(shard, self._submitter(shard), self._failed)
        return lane.send(invocation)

    def _submitter(self, shard: str) -> Callable[[list[Invocation]], Awaitable[list[Answer]]]:
        async def submit(invocations: list[Invocation]) -> list[Answer]:
            wire = await self._wire(shard)
            return await wire.submit(invocations)

        return submit

    async def _wire(self, shard: str) -> GatewaySide:
        """The one connection to a shard, made where there is none."""
        async with self._connecting.setdefault(shard, asyncio.Lock()):
            wire = self._wires.get(shard)
            return wire if wire is not None and wire.open else await self._connect(shard)

    async def _connect(self, shard: str) -> GatewaySide:
        """Ask Ray where the shard is, which waits for one that is being restarted."""
        host, port = await self.handle(shard).address.remote()
        wire = await GatewaySide.connect(
            host, port, secret=self._secret, gateway=self._gateway, on_feeds=self._on_feeds
        )
        self._wires[shard] = wire
        return wire

    def handle(self, shard: str) -> Any:
        handle = self._handles.get(shard)
        if handle is None:
            handle = self._handles[shard] = processes.find(shard)
        return handle

    def _failed(self, shard: str) -> None:
        self._handles.pop(shard, None)
        self._on_failure(shard)

    async def attend(self, shard: str, gateway: str, tenants: list[str]) -> tuple[int, dict[int, int]]:
        """Tell a shard what we care about. Raises Unavailable."""
        await self._connected(shard)
        reply: tuple[int, dict[int, int]] = await self._aside(shard, "attend", gateway, tenants)
        return reply

    async def _connected(self, shard: str) -> None:
        try:
            async with asyncio.timeout(ASIDE_TIMEOUT_S):
                await self._wire(shard)
        except Exception as error:
            self._handles.pop(shard, None)
            raise Unavailable(f"{shard} is restarting", retry_after_s=1) from error

    async def replay(self, partition: int, tenant: str, after: int, upto: int) -> list[Publication]:
        """Raises HubError: NotFound where it is too far back."""
        reply = await self._aside(self.owner(partition), "replay", partition, tenant, after, upto)
        if not isinstance(reply, bytes):
            raise from_code(*reply)
        return decode_publications(reply)

    async def reach(self, partition: int, offset: int) -> None:
        reply = await self._aside(self.owner(partition), "reach", partition, offset)
        if reply is not None:
            raise from_code(*reply)

    async def metrics(self, shard: str) -> dict[str, float]:
        reply: dict[str, float] = await self._aside(shard, "metrics")
        return reply

    async def _aside(self, shard: str, method: str, *args: object) -> Any:
        """A call beside the lanes. Raises Unavailable where the shard does not answer."""
        try:
            async with asyncio.timeout(ASIDE_TIMEOUT_S):
                return await getattr(self.handle(shard), method).remote(*args)
        except HubError:
            raise
        except Exception as error:
            self._handles.pop(shard, None)
            raise Unavailable(f"{shard} is restarting", retry_after_s=1) from error
