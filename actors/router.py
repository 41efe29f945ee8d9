"""The router: a gateway's links to all shards, and the lanes that commands take over them. Ray-free.

It follows the directory: a new shard, a standby too, is connected to at once, so that nothing has to be set up when
it takes over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from actors import wire
from actors.assignment import Assignment, Member
from actors.follower import Follower
from actors.lanes import Lanes
from actors.publication import Publication, decode_publications
from actors.wire import Disconnected, Link
from hub.codec import decode_answers, encode
from hub.commands import Answer, Invocation
from hub.errors import Unavailable

log = logging.getLogger("hub.router")

ASIDE_TIMEOUT_S = 10.0
RECONNECT_EVERY_S = 0.1
CONNECTED_EVERY_S = 0.01
_attended = msgspec.msgpack.Decoder(tuple[int, dict[int, int]])
_figures = msgspec.msgpack.Decoder(dict[str, float])


class Router:
    def __init__(
        self,
        member: Member,
        partitions: int,
        *,
        secret: bytes,
        find_directory: Callable[[], Awaitable[tuple[str, int]]],
        on_link: Callable[[str], None],
        on_feeds: Callable[[bytes], None],
    ) -> None:
        """`secret` is what the shards know too; `on_link` hears of a shard that is connected (again); `on_feeds` takes
        encoded feeds.
        """
        self.partitions = partitions
        self._name = member.name
        self._secret = secret
        self._on_link = on_link
        self._on_feeds = on_feeds
        self._links: dict[str, Link] = {}
        self._linked: dict[str, Member] = {}
        """Whom each link was made to: a name may come back as another process."""
        self._connecting: dict[str, asyncio.Task[None]] = {}
        self.lanes = Lanes(partitions, self._submit, lambda shard: None)
        self.directory = Follower(member, secret=secret, find=find_directory, on_assignment=self._assigned)
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return once it is known who owns what, and the owners are connected."""
        self._following = asyncio.get_running_loop().create_task(self.directory.run())
        await self.directory.joined()
        while not set(self.shards) <= self._links.keys():
            await asyncio.sleep(CONNECTED_EVERY_S)

    async def stop(self) -> None:
        for task in [self._following, *self._connecting.values()]:
            if task is not None:
                task.cancel()
        for link in self._links.values():
            link.close()
        self.lanes.close()

    # --- following the directory ----------------------------------------------------------------------------------

    def _assigned(self, assignment: Assignment) -> None:
        shards = {member.name: member for member in assignment.shards()}
        # Where somebody died and nobody can take over yet, what is under way there waits where it is.
        if all(assignment.owners):
            self.lanes.assign(assignment.owners, set(shards))
        for name, link in list(self._links.items()):
            if name not in shards or _elsewhere(self._linked[name], shards[name]):
                del self._links[name], self._linked[name]
                link.drop("its process is gone, or has been replaced")
        for member in shards.values():
            self._connect_soon(member)

    def _connect_soon(self, member: Member) -> None:
        link, task = self._links.get(member.name), self._connecting.get(member.name)
        if (link is None or not link.open) and (task is None or task.done()):
            task = asyncio.get_running_loop().create_task(self._connect(member.name))
            self._connecting[member.name] = task
            task.add_done_callback(lambda done, name=member.name: self._connected(name, done))  # type: ignore[misc]

    def _connected(self, name: str, task: asyncio.Task[None]) -> None:
        if self._connecting.get(name) is task:
            del self._connecting[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("connecting to %s failed", name, exc_info=error)

    async def _connect(self, name: str) -> None:
        """Until it is connected, or gone from the assignment."""
        while (member := self._member(name)) is not None:
            try:
                link = await wire.connect(
                    member.host, member.port, secret=self._secret, name=self._name, serve=self._serve
                )
            except (OSError, TimeoutError, Disconnected):
                await asyncio.sleep(RECONNECT_EVERY_S)
                continue
            now = self._member(name)
            if link.peer == name and link.open and now is not None and not _elsewhere(member, now):
                link.on_lost = self._lost
                self._links[name], self._linked[name] = link, member
                self._on_link(name)
                return
            link.close()  # its port belongs to somebody else by now, or it is gone already
            await asyncio.sleep(RECONNECT_EVERY_S)

    def _member(self, name: str) -> Member | None:
        return next((member for member in self.directory.assignment.shards() if member.name == name), None)

    def _lost(self, link: Link) -> None:
        if self._links.get(link.peer) is link:
            del self._links[link.peer], self._linked[link.peer]
            member = self._member(link.peer)
            if member is not None:
                self._connect_soon(member)

    def _serve(self, link: Link, kind: int, payload: bytes) -> Awaitable[bytes] | None:
        if kind == wire.FEEDS:
            self._on_feeds(payload)
        return None

    @property
    def shards(self) -> list[str]:
        """Those that own something."""
        return sorted(set(self.directory.assignment.owners) - {""})

    @property
    def complete(self) -> bool:
        """Every partition has an owner."""
        owners = self.directory.assignment.owners
        return bool(owners) and all(owners)

    @property
    def members(self) -> list[str]:
        """All shards, standbys included."""
        return [member.name for member in self.directory.assignment.shards()]

    def owner(self, partition: int) -> str:
        return self.directory.assignment.owners[partition]

    # --- commands -------------------------------------------------------------------------------------------------

    def send(self, invocation: Invocation) -> asyncio.Future[Answer]:
        """The answer comes once it is durable or refused; the future itself never fails."""
        return self.lanes.send(invocation)

    async def _submit(self, shard: str, invocations: list[Invocation]) -> list[Answer]:
        return decode_answers(await self._link(shard).call(wire.COMMANDS, encode(invocations)))

    def _link(self, shard: str) -> Link:
        """Raises Disconnected."""
        link = self._links.get(shard)
        if link is None or not link.open:
            raise Disconnected
        return link

    # --- beside the lanes -----------------------------------------------------------------------------------------

    async def attend(self, shard: str, tenants: list[str]) -> tuple[int, dict[int, int]]:
        """Tell a shard what we care about. Its incarnation and durable offsets in return. Raises Unavailable."""
        return _attended.decode(await self._aside(shard, wire.ATTEND, tenants))

    async def replay(self, partition: int, tenant: str, after: int, upto: int) -> list[Publication]:
        """Raises HubError: NotFound where it is too far back."""
        stretch = (partition, tenant, after, upto)
        return decode_publications(await self._aside(self.owner(partition), wire.REPLAY, stretch))

    async def reach(self, partition: int, offset: int) -> None:
        """Return once lists and settings show everything up to `offset`, wherever the partition is moving meanwhile."""
        deadline = asyncio.get_running_loop().time() + ASIDE_TIMEOUT_S
        while True:
            try:
                await self._aside(self.owner(partition), wire.REACH, (partition, offset))
                return
            except Unavailable as error:
                if error.code != Unavailable.code or asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(RECONNECT_EVERY_S)

    async def metrics(self, shard: str) -> dict[str, float]:
        return _figures.decode(await self._aside(shard, wire.METRICS, ()))

    async def _aside(self, shard: str, kind: int, payload: Any) -> bytes:
        """A call beside the lanes. Raises Unavailable where the shard does not answer, or what it refused with."""
        try:
            async with asyncio.timeout(ASIDE_TIMEOUT_S):
                return await self._link(shard).call(kind, encode(payload))
        except (Disconnected, TimeoutError) as error:
            raise Unavailable(f"{shard or 'its shard'} is being replaced", retry_after_s=1) from error


def _elsewhere(linked: Member, member: Member) -> bool:
    """Whether a name is another process by now, or listens at another place."""
    return (linked.incarnation, linked.host, linked.port) != (member.incarnation, member.host, member.port)
