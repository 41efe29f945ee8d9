"""A shard's desk: its listener on the wire and its place in the directory, around a `Host`. Ray-free."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from actors import wire
from actors.assignment import Assignment, Member
from actors.follower import Follower
from actors.host import Host
from actors.readers.courier import Sender
from actors.wire import Disconnected, Link, Listener
from hub.clock import Clock, SystemClock
from hub.codec import decode_invocations, encode
from hub.errors import HubError, Unavailable
from hub.ports import Store
from hub.sealing import Keyring

log = logging.getLogger("hub.shard")

REOPEN_AFTER_S = 0.2
OPENED_EVERY_S = 0.01
_tenants = msgspec.msgpack.Decoder(list[str])
_stretch = msgspec.msgpack.Decoder(tuple[int, str, int, int])
_mark = msgspec.msgpack.Decoder(tuple[int, int])


class Desk:
    def __init__(
        self,
        name: str,
        node: str,
        incarnation: int,
        *,
        store: Store,
        keyring: Keyring,
        sender: Sender,
        clock: Clock | None = None,
    ) -> None:
        self._name = name
        self._node = node
        self._incarnation = incarnation
        self._store = store
        self._secret = keyring.derive("wire")
        self._listener = Listener(self._secret, name, self._serve, on_lost=self._left)
        self._attended: dict[str, Link] = {}
        self._follower: Follower | None = None
        self._assignment = Assignment(0, [])
        self._since: dict[int, int] = {}
        """Of each partition of ours: the version that gave it to us."""
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._closing = False
        self.host = Host(
            name=name,
            incarnation=incarnation,
            store=store,
            keyring=keyring,
            clock=clock or SystemClock(),
            sender=sender,
            on_lost=lambda partition: self._spawn(self._reopen_if_mine(partition)),
        )

    async def open(self, address: str, find: Callable[[], Awaitable[tuple[str, int]]]) -> None:
        """Listen, join, and own what the directory says, from now on."""
        self.host.start()
        port = await self._listener.open(address)
        self._follower = Follower(
            Member(self._name, "shard", self._node, address, port, self._incarnation),
            secret=self._secret,
            find=find,
            on_assignment=self._assigned,
            on_release=self.host.release,
        )
        self._spawn(self._follower.run())
        await self._follower.joined()
        while not self.host.partitions.keys() >= set(self._assignment.of(self._name)) - set(self._assignment.moving):
            await asyncio.sleep(OPENED_EVERY_S)
        log.info("%s owns %d partitions", self._name, len(self.host.partitions))

    async def close(self) -> None:
        self._closing = True  # what the directory says from now on is for others
        await self.host.close()
        for task in list(self._tasks):
            task.cancel()
        self._listener.close()
        await self._store.close()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    # --- what to own ----------------------------------------------------------------------------------------------

    def _assigned(self, assignment: Assignment) -> None:
        self._assignment = assignment
        if self._closing:
            return
        mine = set(assignment.of(self._name))
        # What we hold without wanting it is being released: if it is somebody else's already, that was too slow.
        self.host.abandon(sorted((self.host.wanted | self.host.partitions.keys()) - mine))
        # What somebody else had while we heard nothing of it is to be opened anew: we may have missed something.
        since = {partition: assignment.since[partition] for partition in mine}
        self.host.abandon([p for p in sorted(mine & self.host.wanted) if self._since.get(p) != since[p]])
        self._since = since
        missing = [p for p in sorted(mine - self.host.wanted) if p not in assignment.moving]
        if missing:
            self.host.wanted.update(missing)
            self._spawn(self.host.open(missing))

    async def _reopen_if_mine(self, partition: int) -> None:
        """Another owner fenced us. The directory, not the epoch, says who it should be; as long as it cannot be asked,
        it is not us: two shards must not take a partition from each other for ever.
        """
        self.host.abandon([partition])
        while self._follower is not None:
            await asyncio.sleep(REOPEN_AFTER_S)
            try:
                self._assigned(await self._follower.ask())
                return
            except HubError:
                continue

    # --- what is asked --------------------------------------------------------------------------------------------

    def _serve(self, link: Link, kind: int, payload: bytes) -> Awaitable[bytes] | None:
        match kind:
            case wire.COMMANDS:
                return self._submit(payload)
            case wire.ATTEND:
                return self._attend(link, _tenants.decode(payload))
            case wire.REPLAY:
                return self._replay(*_stretch.decode(payload))
            case wire.REACH:
                return self._reach(*_mark.decode(payload))
            case wire.METRICS:
                return self._metrics()
        return None

    async def _submit(self, payload: bytes) -> bytes:
        return encode(await self.host.submit(decode_invocations(payload)))

    async def _attend(self, link: Link, tenants: list[str]) -> bytes:
        """A gateway's interest. Returns our incarnation and the newest durable offset of each partition here."""
        if not link.open:
            raise Unavailable(f"{link.peer} has left already")
        if self._attended.get(link.peer) is not link:
            self._attended[link.peer] = link
            self.host.publisher.leave(link.peer)
        self.host.publisher.attend(link.peer, tenants, lambda _: _feeds_to(link))
        return encode((self._incarnation, self.host.heads()))

    def _left(self, link: Link) -> None:
        if self._attended.get(link.peer) is link:
            del self._attended[link.peer]
            self.host.publisher.leave(link.peer)

    async def _replay(self, partition: int, tenant: str, after: int, upto: int) -> bytes:
        """Encoded publications. Raises NotFound where it is too far back."""
        return encode(await self.host.replay(partition, tenant, after, upto))

    async def _reach(self, partition: int, offset: int) -> bytes:
        await self.host.reach(partition, offset)
        return b""

    async def _metrics(self) -> bytes:
        return encode({**self.host.metrics(), "process_cpu_seconds": time.process_time()})


def _feeds_to(link: Link) -> Callable[[bytes], Awaitable[None]]:
    async def send(feeds: bytes) -> None:
        """Raises Disconnected where the gateway is gone, or so far behind that it must connect and resync."""
        try:
            link.push(wire.FEEDS, feeds)
        except Disconnected:
            link.drop("it does not take its feeds")
            raise

    return send
