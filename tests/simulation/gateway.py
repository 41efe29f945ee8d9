"""A gateway: the real `Router` with its lanes, a fan-out, and one agent's session per tenant.

The fan-out is what `api/fanout.py` and a resuming client do together: it keeps, for each partition, the offset up to
which everything was passed on; a feed that begins later reveals a gap, which is replayed from the journal first. A
gateway that restarts forgets all; its sessions come back with the position they had.
"""

from __future__ import annotations

import asyncio
from random import Random

from actors.assignment import Member
from actors.publication import Feed, Publication, decode_feeds
from actors.router import Router
from hub.commands import Answer, Invocation
from hub.errors import HubError
from hub.ids import partitions_of, stream_partition
from tests.simulation.cluster import SECRET, Cluster, Role
from tests.simulation.history import History
from tests.simulation.loop import ProcessDied, run_now

ATTEND_RETRY_S = 0.2
RESYNC_RETRY_S = 0.1


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


class Gateway(Role):
    def __init__(self, name: str, *, tenants: dict[str, int], cluster: Cluster, rng: Random, history: History) -> None:
        """`tenants`: each with its spread."""
        super().__init__(name)
        partitions = cluster.store.partitions
        self._homes = {tenant: partitions_of(tenant, spread, partitions) for tenant, spread in tenants.items()}
        self.sessions = [Session(tenant, homes) for tenant, homes in self._homes.items()]
        self.node = ""
        self.router: Router | None = None
        self._tenants = list(tenants)
        self._cluster = cluster
        self._rng = rng
        self._history = history
        self._feeds: dict[int, PartitionFeed] = {}

    def start(self) -> None:
        """On a node that stays, as far as one can tell."""
        cluster = self._cluster
        homes = [node for node in cluster.nodes if node not in cluster.leaving] or list(cluster.nodes)
        if not homes:
            return
        self.node = self._rng.choice(homes)
        process, life = cluster.begin(self)
        self._feeds = {}
        member = Member(self.name, "gateway", self.node, self.name, 0, life)
        self.router = process.context.run(lambda: self._router(member))
        for session in self.sessions:
            session.catching = []
        process.spawn(self._open(self.router))

    def _router(self, member: Member) -> Router:
        cluster = self._cluster
        return Router(
            member,
            cluster.store.partitions,
            secret=SECRET,
            find_directory=cluster.find,
            on_link=self._linked,
            on_feeds=self._receive,
        )

    async def _open(self, router: Router) -> None:
        await router.start()
        for session in self.sessions:
            asyncio.get_running_loop().create_task(self._resume(session))

    # --- commands -------------------------------------------------------------------------------------------------

    async def submit(self, invocation: Invocation) -> Answer | None:
        """The answer, or None where none came. Those who call one after the other are served in that order."""
        router = self.router
        if router is None or not router.lanes._owners:
            return None

        async def send() -> Answer:
            return await router.send(invocation)

        try:
            answer = await self._cluster.call(self, send)
        except (ProcessDied, TimeoutError):
            return None
        number = stream_partition(invocation.stream, router.partitions)
        self._history.tell(invocation, answer, run_now(self._cluster.store.inner.journal.head(number)))
        return answer

    # --- following the shards -------------------------------------------------------------------------------------

    def _linked(self, shard: str) -> None:
        assert self.router is not None
        asyncio.get_running_loop().create_task(self._attend(self.router, shard))

    async def _attend(self, router: Router, shard: str) -> None:
        link = router._links.get(shard)
        while router._links.get(shard) is link:
            try:
                _, heads = await router.attend(shard, self._tenants)
                break
            except HubError:
                await asyncio.sleep(ATTEND_RETRY_S)
        else:
            return
        for number, head in heads.items():
            feed = self._feed(number)
            if feed.head is None:
                feed.head = head

    def _feed(self, number: int) -> PartitionFeed:
        return self._feeds.setdefault(number, PartitionFeed(number))

    def _receive(self, feeds: bytes) -> None:
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
            asyncio.get_running_loop().create_task(self._replay_gap(number, state, upto))

    async def _replay_gap(self, number: int, state: PartitionFeed, upto: int) -> None:
        head = state.head or 0
        missed: list[Publication] = []
        for tenant in self._tenants:
            if number in self._homes[tenant]:
                missed += await self._replay(number, tenant, head, upto)
        self._pass_on(state, sorted(missed, key=lambda item: item.offset), upto)
        state.resyncing = False
        held, state.held = sorted(state.held, key=lambda feed: feed.after), []
        for feed in held:
            self._accept(feed)

    async def _replay(self, number: int, tenant: str, after: int, upto: int) -> list[Publication]:
        """What the journal says, however long it takes to find somebody who can tell."""
        assert self.router is not None
        while True:
            try:
                return await self.router.replay(number, tenant, after, upto)
            except HubError:
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
