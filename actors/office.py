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
from actors.membership import RELEASE_TIMEOUT_S, Membership
from actors.wire import Disconnected, Link, Listener
from hub.clock import Clock, SystemClock
from hub.errors import BadRequest, HubError, Unavailable

log = logging.getLogger("hub.directory")

DECIDE_EVERY_S = 0.05
_joins = msgspec.msgpack.Decoder(tuple[Member, Assignment | None])
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
        clock: Clock | None = None,
    ) -> None:
        self._now = now or asyncio.get_running_loop().time
        era = (clock or SystemClock()).now()
        self.membership = Membership(partitions, seats=seats, expected=expected, now=self._now(), era=era)
        self.address = ("", 0)
        self.stopping = False
        self._listener = Listener(secret, "directory", self._serve, on_lost=self._lost)
        self._joined: dict[str, Link] = {}
        """Where each member is to be told. One that has only introduced itself is nobody yet."""
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
            if self._joined.get(link.peer) is link:
                self.membership.beat(link.peer, self._now())
            return None
        if kind == wire.JOIN:
            return self._join(link, *_joins.decode(payload))
        if kind == wire.ROSTER:
            return self._roster()
        if kind == wire.LEAVE:
            return self._leave(_texts.decode(payload))
        raise BadRequest(f"the directory does not take frames of kind {kind}")

    async def _join(self, link: Link, member: Member, known: Assignment | None) -> bytes:
        """Raises Conflict where a later process has that name, BadRequest where the name is not its own."""
        if member.name != link.peer:
            raise BadRequest(f"{link.peer} cannot join as {member.name}")
        if not link.open:
            raise Unavailable(f"{member.name} has left already")
        self.membership.join(member, known, self._now())
        self._joined[member.name] = link
        log.info("%s on %s has joined", member.name, member.node)
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
        if self._joined.get(link.peer) is not link:
            return
        del self._joined[link.peer]
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
            try:
                self._decide()
            except Exception:
                log.exception("deciding failed; what was decided before still holds")

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
        for link in list(self._joined.values()):
            try:
                link.push(wire.ASSIGNMENT, assignment)
            except Disconnected:
                pass  # it asks anew when it is back

    async def _release(self, shard: str, partition: int) -> None:
        link = self._joined.get(shard)
        try:
            if link is not None:
                async with asyncio.timeout(RELEASE_TIMEOUT_S):
                    await link.call(wire.RELEASE, encode([partition]))
        except TimeoutError:
            return  # it is dispossessed by now
        except (Disconnected, HubError) as error:
            log.warning("%s did not release partition %d: %s", shard, partition, error or type(error).__name__)
        self.membership.released(shard, [partition])
        self._wake.set()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
