"""Fan-out: from a shard's feeds to the sessions that subscribed, each frame built once.

For every partition the gateway knows the offset up to which it has passed everything on (its head). A feed
that begins later reveals a gap (a full queue, a shard that died between commit and publish): what is missing
is replayed from the journal before anything newer goes out. So a session sees every event once, in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from actors.publication import Feed, Publication, decode_feeds
from actors.router import Router
from api.sessions import TOO_SLOW, Session
from hub import positions
from hub.errors import HubError, NotFound
from hub.ids import tenant_partition

log = logging.getLogger("hub.fanout")

ATTEND_EVERY_S = 5.0
ATTEND_RETRY_S = 0.2
RECENT_MAX_PUBLICATIONS = 2_000
HELD_MAX_FEEDS = 10_000
CATCHING_MAX_PUBLICATIONS = 50_000
RESYNC_RETRY_S = 0.1
AHEAD_TIMEOUT_S = 2.0
INBOX = "inbox"


class Subscription:
    """A session's interest in a topic. While it catches up, what is published meanwhile waits in `catching`."""

    __slots__ = ("catching", "on_publication", "session", "topic")

    def __init__(self, session: Session, topic: str, on_publication: Callable[[Publication, str], None]) -> None:
        self.session = session
        self.topic = topic
        self.on_publication = on_publication
        self.catching: list[tuple[Publication, str]] | None = []


class TenantTopics:
    """Everybody in this gateway who follows something of one tenant."""

    def __init__(self) -> None:
        self.inbox: set[Subscription] = set()
        self.conversations: dict[str, set[Subscription]] = {}
        self.streams: dict[str, set[Subscription]] = {}
        self.recent: deque[Publication] = deque(maxlen=RECENT_MAX_PUBLICATIONS)
        self.attended = asyncio.Event()

    def of(self, topic: str) -> set[Subscription]:
        if topic == INBOX:
            return self.inbox
        kind, _, id = topic.partition(":")
        group = self.conversations if kind == "conversation" else self.streams
        return group.setdefault(id, set())

    def forget(self, topic: str) -> None:
        kind, _, id = topic.partition(":")
        group = self.conversations if kind == "conversation" else self.streams
        if topic != INBOX and not group.get(id):
            group.pop(id, None)


class PartitionFeed:
    """What this gateway has passed on of one partition."""

    def __init__(self) -> None:
        self.head: int | None = None
        self.held: list[Feed] = []
        self.resyncing = False
        self.awaited: list[tuple[int, asyncio.Future[None]]] = []

    def advance(self, head: int) -> None:
        self.head = head
        if self.awaited:
            for offset, reached in self.awaited:
                if offset <= head and not reached.done():
                    reached.set_result(None)
            self.awaited = [waiting for waiting in self.awaited if not waiting[1].done()]


class Fanout:
    def __init__(self, router: Router, on_setting: Callable[[str, str], None]) -> None:
        self._router = router
        self._on_setting = on_setting
        self._tenants: dict[str, TenantTopics] = {}
        self._partitions: dict[int, PartitionFeed] = {}
        self._wake = asyncio.Event()
        self._attending: dict[str, int] = {}
        """Shards that know of our interest, and in how many tenants: they are only ever added."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.published = 0

    # --- following the shards -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell every shard which tenants we care about: whenever that changes, or a shard is connected anew."""
        while True:
            self._wake.clear()
            done = await self._attend_all()
            try:
                async with asyncio.timeout(ATTEND_EVERY_S if done else ATTEND_RETRY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def shard_connected(self, shard: str) -> None:
        self._attending.pop(shard, None)
        self._wake.set()

    async def _attend_all(self) -> bool:
        """False where somebody could not be told yet."""
        tenants = list(self._tenants)
        missing = [shard for shard in self._router.members if self._attending.get(shard) != len(tenants)]
        told = await asyncio.gather(*(self._attend(shard, tenants) for shard in missing))
        for tenant in tenants:
            topics = self._tenants.get(tenant)
            if topics is not None and self._partition(self._home(tenant)).head is not None:
                topics.attended.set()
        return all(told)

    async def _attend(self, shard: str, tenants: list[str]) -> bool:
        self._attending[shard] = len(tenants)
        try:
            _, heads = await self._router.attend(shard, tenants)
        except HubError:
            self._attending.pop(shard, None)
            return False
        for number, head in heads.items():
            feed = self._partition(number)
            if feed.head is None:
                feed.head = head
        return True

    def _partition(self, number: int) -> PartitionFeed:
        feed = self._partitions.get(number)
        if feed is None:
            feed = self._partitions[number] = PartitionFeed()
        return feed

    def receive(self, batch: bytes) -> None:
        for feed in decode_feeds(batch):
            for notice in feed.settings:
                self._on_setting(notice.kind, notice.id)
            self._accept(feed)

    def _accept(self, feed: Feed) -> None:
        state = self._partition(feed.partition)
        if state.head is None:
            state.head = feed.after
        if state.resyncing:
            if len(state.held) < HELD_MAX_FEEDS:
                state.held.append(feed)
            return
        if feed.upto <= state.head:
            return
        if feed.after > state.head:
            state.held.append(feed)
            self._resync(feed.partition, state, feed.after)
            return
        self._pass_on(state, feed.items, feed.upto)

    def _take_up_held(self, state: PartitionFeed) -> None:
        held, state.held = sorted(state.held, key=lambda feed: feed.after), []
        for feed in held:
            self._accept(feed)

    def _pass_on(self, state: PartitionFeed, items: list[Publication], upto: int) -> None:
        head = state.head or 0
        for item in items:
            if item.offset > head:
                self._deliver(item, state)
        state.advance(max(head, upto))

    def _resync(self, number: int, state: PartitionFeed, upto: int) -> None:
        if state.resyncing:
            return
        state.resyncing = True
        task = asyncio.get_running_loop().create_task(self._replay_gap(number, state, upto))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replay_gap(self, number: int, state: PartitionFeed, upto: int) -> None:
        """Pass on (head, upto] from the journal, then what was held back meanwhile."""
        while True:
            head = state.head or 0
            tenants = [tenant for tenant in self._tenants if self._home(tenant) == number]
            try:
                missed: list[Publication] = []
                for tenant in tenants:
                    missed += await self._router.replay(number, tenant, head, upto)
            except NotFound:
                self._drop_sessions(tenants)
                missed = []
            except HubError:
                await asyncio.sleep(RESYNC_RETRY_S)
                continue
            self._pass_on(state, sorted(missed, key=lambda item: item.offset), upto)
            break
        state.resyncing = False
        self._take_up_held(state)

    def _drop_sessions(self, tenants: list[str]) -> None:
        """Too much was missed to replay: every session of these tenants starts over from its own position."""
        for tenant in tenants:
            topics = self._tenants[tenant]
            topics.recent.clear()
            groups = [topics.inbox, *topics.conversations.values(), *topics.streams.values()]
            for subscription in [s for group in groups for s in group]:
                subscription.session.close(TOO_SLOW, "fell behind; resume from your last position")

    def _deliver(self, item: Publication, state: PartitionFeed) -> None:
        topics = self._tenants.get(item.tenant)
        if topics is None:
            return
        topics.recent.append(item)
        self.published += 1
        position = positions.one(self._home(item.tenant), item.offset)
        if topics.inbox:
            _to_all(topics.inbox, item, frame(INBOX, item, position))
        followers = topics.conversations.get(item.conversation)
        if followers:
            _to_all(followers, item, frame(f"conversation:{item.conversation}", item, position))
        if item.message or item.type == "conversation.read":
            customers = topics.streams.get(item.stream)
            if customers:
                _to_all(customers, item, "")

    # --- subscribing ----------------------------------------------------------------------------------------------

    async def subscribe(self, tenant: str, subscription: Subscription) -> str:
        """Begin to collect; returns the position from which on everything will be seen."""
        topics = self._tenants.get(tenant)
        if topics is None:
            topics = self._tenants[tenant] = TenantTopics()
        topics.of(subscription.topic).add(subscription)
        if not topics.attended.is_set():
            self._wake.set()
            await topics.attended.wait()
        return positions.encode({self._home(tenant): self._partition(self._home(tenant)).head or 0})

    def unsubscribe(self, tenant: str, subscription: Subscription) -> None:
        topics = self._tenants.get(tenant)
        if topics is not None:
            topics.of(subscription.topic).discard(subscription)
            topics.forget(subscription.topic)

    async def missed(self, tenant: str, topic: str, since: str, until: str) -> list[Publication] | None:
        """What the topic published in (since, until]; None where it cannot be told any more.

        From memory where it is recent, else from the journal. Raises Unavailable while the shard restarts.
        """
        number = self._home(tenant)
        wanted, head = (positions.decode(token) for token in (since, until))
        if wanted is None or head is None or set(wanted) != {number}:
            return None
        after, upto = wanted[number], head[number]
        if after >= upto:
            return [] if await self._reached(number, after) else None
        items = self._recent(tenant, after, upto)
        if items is None:
            try:
                items = await self._router.replay(number, tenant, after, upto)
            except NotFound:
                return None
        return [item for item in items if _concerns(topic, item)]

    async def _reached(self, partition: int, offset: int) -> bool:
        """A position given by another gateway, or by a list, may be a moment ahead of what we have passed on."""
        state = self._partition(partition)
        if (state.head or 0) >= offset:
            return True
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        state.awaited.append((offset, reached))
        try:
            async with asyncio.timeout(AHEAD_TIMEOUT_S):
                await reached
        except TimeoutError:
            return False
        return True

    def _recent(self, tenant: str, after: int, upto: int) -> list[Publication] | None:
        recent = self._tenants[tenant].recent
        if not recent or recent[0].offset > after + 1:
            return None
        return [item for item in recent if after < item.offset <= upto]

    def caught_up(self, subscription: Subscription, until: str) -> None:
        """The past is sent: send what waited, and from now on everything at once."""
        waiting, subscription.catching = subscription.catching or [], None
        offsets = positions.decode(until) or {}
        after = max(offsets.values(), default=0)
        for item, text in waiting:
            if item.offset > after:
                subscription.on_publication(item, text)

    def sessions(self) -> int:
        groups = (g for t in self._tenants.values() for g in (t.inbox, *t.conversations.values(), *t.streams.values()))
        return len({id(s.session) for group in groups for s in group})

    def followers(self, tenant: str, topic: str) -> list[Subscription]:
        topics = self._tenants.get(tenant)
        if topics is None:
            return []
        found = list(topics.of(topic))
        topics.forget(topic)
        return found

    def _home(self, tenant: str) -> int:
        return tenant_partition(tenant, self._router.partitions)


def frame(topic: str, item: Publication, position: str) -> str:
    """The text frame of an event, the same for every session that follows the topic."""
    return f'{{"type":"event","topic":"{topic}","position":"{position}","event":{item.event.decode()}}}'


def _to_all(subscriptions: set[Subscription], item: Publication, text: str) -> None:
    for subscription in list(subscriptions):
        if subscription.catching is None:
            subscription.on_publication(item, text)
        elif len(subscription.catching) < CATCHING_MAX_PUBLICATIONS:
            subscription.catching.append((item, text))
        else:
            subscription.session.close(TOO_SLOW, "resume took too long; resume from your last position")


def _concerns(topic: str, item: Publication) -> bool:
    return topic == INBOX or topic in (f"conversation:{item.conversation}", f"stream:{item.stream}")
