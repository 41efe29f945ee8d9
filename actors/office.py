"""The directory's desk: its listener on the wire, and the loop that lets `Membership` decide. Ray-free."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from actors import wire
from actors.assignment import Assignment, Member, encode_assignment
from actors.membership import Membership
from actors.wire import Disconnected, Link, Listener
from hub.errors import BadRequest, HubError

log = logging.getLogger("hub.directory")

DECIDE_EVERY_S = 0.05
_joins = msgspec.msgpack.Decoder(tuple[Member, Assignment | None])
_numbers = msgspec.msgpack.Decoder(list[int])
_texts = msgspec.msgpack.Decoder(str)
encode = msgspec.msgpack.Encoder().encode

EVERYTHING = ""
"""What to drain where no node is named: the hub is to stop."""


class Office:
    def __init__(
        self,
        secret: bytes,
        partitions: int,
        *,
        seats: int,
        expected: int,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._now = now or asyncio.get_running_loop().time
        self.membership = Membership(partitions, seats=seats, expected=expected, now=self._now())
        self.address = ("", 0)
        self.stopping = False
        self._listener = Listener(secret, "directory", self._serve, on_lost=self._lost)
        self._told = -1
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, host: str) -> None:
        self.address = (host, await self._listener.open(host))
        self._spawn(self._run())

    def close(self) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()

    def status(self) -> dict[str, Any]:
        membership = self.membership
        return {
            "stopping": self.stopping,
            "draining": sorted(membership.draining),
            "emptied": membership.drained(),
            "drained": membership.left(),
            "version": membership.assignment.version,
            "pid": os.getpid(),
        }

    # --- what members say -----------------------------------------------------------------------------------------

    def _serve(self, link: Link, kind: int, payload: bytes) -> Awaitable[bytes] | None:
        if kind == wire.BEAT:
            self.membership.beat(link.peer, self._now())
            return None
        if kind == wire.JOIN:
            return self._join(payload)
        if kind == wire.ROSTER:
            return self._roster()
        if kind == wire.LEAVE:
            return self._leave(_texts.decode(payload))
        raise BadRequest(f"the directory does not take frames of kind {kind}")

    async def _join(self, payload: bytes) -> bytes:
        member, known = _joins.decode(payload)
        log.info("%s on %s has joined", member.name, member.node)
        self.membership.join(member, known, self._now())
        self._decide()
        return encode_assignment(self.membership.assignment)

    async def _roster(self) -> bytes:
        self._decide()
        return encode_assignment(self.membership.assignment)

    async def _leave(self, node: str) -> bytes:
        """Raises BadRequest where nobody knows that node."""
        if node == EVERYTHING:
            self.stopping = True
        else:
            nodes = {member.node for member in self.membership.assignment.members}
            draining = self.membership.draining
            if node not in nodes | draining:
                raise BadRequest(f"there is no node {node!r}; there are {', '.join(sorted(nodes))}")
            if node not in draining and not nodes - draining - {node}:
                raise BadRequest(f"{node} is the last node; to stop the hub, name none")
            self.membership.drain(node)
        self._decide()
        return encode(self.status())

    def _lost(self, link: Link) -> None:
        log.warning("%s is gone", link.peer)
        self.membership.lost(link.peer, self._now())
        self._wake.set()

    # --- what they are told ---------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(DECIDE_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            self._decide()

    def _decide(self) -> None:
        releases = self.membership.decide(self._now())
        assignment = self.membership.assignment
        if assignment.version != self._told:
            self._told = assignment.version
            self._tell_all(encode_assignment(assignment))
        for shard, partitions in releases.items():
            for partition in partitions:
                self._spawn(self._release(shard, partition))

    def _tell_all(self, assignment: bytes) -> None:
        for link in list(self._listener.links.values()):
            try:
                link.push(wire.ASSIGNMENT, assignment)
            except Disconnected:
                pass  # it asks anew when it is back

    async def _release(self, shard: str, partition: int) -> None:
        link = self._listener.links.get(shard)
        try:
            if link is not None:
                await link.call(wire.RELEASE, encode([partition]))
        except (Disconnected, HubError) as error:
            log.warning("%s did not release partition %d: %s", shard, partition, error or type(error).__name__)
        self.membership.released(shard, [partition])
        self._wake.set()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


decode_numbers = _numbers.decode
