"""A gateway's fan-out and one agent's session per tenant: what `api/fanout.py` and a resuming client do together.

It keeps, for each partition, the offset up to which everything was passed on; a feed that begins later reveals
a gap, which is replayed from the journal first. A gateway that restarts forgets all; its sessions come
back with the position they had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random

from actors.publication import Feed, Publication, decode_feeds
from hub.errors import HubError
from hub.ids import partitions_of
from tests.simulation.cluster import Cluster, Shard
from tests.simulation.history import History
from tests.simulation.loop import ProcessDied, run_now

ATTEND_EVERY_S = 0.5
RESYNC_RETRY_S = 0.1
HELD_MAX_FEEDS = 10_000


class Session:
    """An agent that follows a tenant's inbox and resumes from the last position it saw."""

    def __init__(self, tenant: str, partitions: tuple[int, ...]) -> None:
        self.tenant = tenant
        self.position = dict.fromkeys(partitions, 0)
        self.seen: list[tuple[int, Publication]] = []
        """(partition, item)"""
        self.catching: list[tuple[int, Publication]] | None = []

    def offer(self, number: int, item: Publication) -> None:
        if self.catching is not None:
            self.catching.append((number, item))
        else:
            self.take(number, item)

    def take(self, number: int, item: Publication) -> None:
        self.seen.append((number, item))
        self.position[number] = item.offset

    def caught_up(self, missed: list[tuple[int, Publication]], until: dict[int, int]) -> None:
        for number, item in missed:
            self.take(number, item)
        waiting, self.catching = self.catching or [], None
        for number, item in waiting:
            if item.offset > until[number]:
                self.take(number, item)


class PartitionFeed:
    def __init__(self, number: int) -> None:
        self.number = number
        self.head: int | None = None
        self.held: list[Feed] = []
        self.resyncing = False


class Gateway:
    def __init__(self, *, tenants: dict[str, int], cluster: Cluster, rng: Random, history: History) -> None:
        """`tenants`: each with its spread."""
        partitions = cluster.store.partitions
        self._homes = {tenant: partitions_of(tenant, spread, partitions) for tenant, spread in tenants.items()}
        self.sessions = [Session(tenant, homes) for tenant, homes in self._homes.items()]
        self.fails = 0.0
        """How likely a call with publications fails or hangs."""
        self._tenants = list(tenants)
        self._cluster = cluster
        self._rng = rng
        self._history = history
        self._life = 0
        self._feeds: dict[int, PartitionFeed] = {}
        self._incarnations: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._life += 1
        self._feeds.clear()
        self._incarnations.clear()
        for task in self._tasks:
            task.cancel()
        self._tasks = [self._cluster.outside(self._attend_for_ever())]
        for session in self.sessions:
            session.catching = []
            self._tasks.append(self._cluster.outside(self._resume(session)))
        self._history.note("gateway starts")

    # --- following the shards -------------------------------------------------------------------------------------

    async def _attend_for_ever(self) -> None:
        while True:
            for shard in self._cluster.shards:
                await self._attend(shard)
            await asyncio.sleep(ATTEND_EVERY_S)

    async def _attend(self, shard: Shard) -> None:
        host, incarnation = shard.host, shard.incarnation
        if host is None:
            return

        async def attend() -> dict[int, int]:
            host.publisher.attend("gateway", self._tenants, lambda name: self._connect(self._life))
            return host.heads()

        try:
            heads = await self._cluster.call(shard, attend)
        except (ProcessDied, TimeoutError):
            return
        met_anew = self._incarnations.get(shard.name) != incarnation
        self._incarnations[shard.name] = incarnation
        for number, head in heads.items():
            feed = self._feed(number)
            if feed.head is None:
                feed.head = head
            elif met_anew and feed.head < head:
                self._resync(number, feed, head)

    def _connect(self, life: int) -> Callable[[bytes], Awaitable[None]]:
        async def send(feeds: bytes) -> None:
            await asyncio.sleep(self._rng.uniform(0.0002, 0.003))
            if self._life != life:
                raise ConnectionError("that gateway is gone")
            fate = self._rng.random()
            if fate < self.fails:
                raise ConnectionError("simulated")
            if fate < self.fails * 2:
                await asyncio.sleep(self._rng.uniform(1, 15))
            self._cluster.outside(self._receive(life, feeds))

        return send

    def _feed(self, number: int) -> PartitionFeed:
        return self._feeds.setdefault(number, PartitionFeed(number))

    async def _receive(self, life: int, feeds: bytes) -> None:
        if self._life == life:
            for feed in decode_feeds(feeds):
                self._accept(feed)

    def _accept(self, feed: Feed) -> None:
        self._check_committed(feed)
        state = self._feed(feed.partition)
        if state.head is None:
            state.head = feed.after
        if state.resyncing:
            state.held.append(feed)
        elif feed.upto <= state.head:
            pass
        elif feed.after > state.head:
            state.held.append(feed)
            self._resync(feed.partition, state, feed.after)
        else:
            self._pass_on(state, feed.items, feed.upto)

    def _check_committed(self, feed: Feed) -> None:
        head = run_now(self._cluster.store.inner.journal.head(feed.partition))
        if feed.upto > head:
            self._history.broken.append(f"published up to {feed.partition}-{feed.upto}, the journal ends at {head}")

    def _pass_on(self, state: PartitionFeed, items: list[Publication], upto: int) -> None:
        head = state.head or 0
        for item in items:
            if item.offset > head:
                for session in self.sessions:
                    if session.tenant == item.tenant:
                        session.offer(state.number, item)
        state.head = max(head, upto)

    def _resync(self, number: int, state: PartitionFeed, upto: int) -> None:
        if not state.resyncing:
            state.resyncing = True
            self._tasks.append(self._cluster.outside(self._replay_gap(number, state, upto)))

    async def _replay_gap(self, number: int, state: PartitionFeed, upto: int) -> None:
        head = state.head or 0
        missed: list[Publication] = []
        for tenant in self._tenants:
            if number in self._homes[tenant]:
                missed += await self._replay(number, tenant, head, upto)
        self._pass_on(state, sorted(missed, key=lambda item: item.offset), upto)
        state.resyncing = False
        held, state.held = state.held, []
        for feed in held:
            self._accept(feed)

    async def _replay(self, number: int, tenant: str, after: int, upto: int) -> list[Publication]:
        """What the journal says, however long it takes to find somebody who can tell."""
        while True:
            shard = self._cluster.owners[number]
            if shard.host is not None:
                replay = partial(shard.host.replay, number, tenant, after, upto)
                try:
                    return await self._cluster.call(shard, replay)
                except (HubError, ProcessDied, TimeoutError):
                    pass
            await asyncio.sleep(RESYNC_RETRY_S)

    # --- sessions -------------------------------------------------------------------------------------------------

    async def _resume(self, session: Session) -> None:
        # A shard that does not know yet that it lost the partition may name an older head than ours: wait it out.
        while any(
            offset > until for offset, until in zip(session.position.values(), self._heads(session), strict=True)
        ):
            await asyncio.sleep(0.05)
        until = dict(zip(session.position, self._heads(session), strict=True))
        missed: list[tuple[int, Publication]] = []
        for number, offset in session.position.items():
            if offset < until[number]:
                items = await self._replay(number, session.tenant, offset, until[number])
                missed += [(number, item) for item in items]
        session.caught_up(missed, until)

    def _heads(self, session: Session) -> list[int]:
        """Of each partition of the session's tenant, -1 where nothing is known of it yet."""
        heads = (self._feed(number).head for number in session.position)
        return [-1 if head is None else head for head in heads]

    def behind(self) -> bool:
        """Somebody has not been told everything yet."""
        return any(session.catching is not None for session in self.sessions) or any(
            feed.resyncing or feed.head != run_now(self._cluster.store.inner.journal.head(number))
            for number, feed in self._feeds.items()
        )
