"""Fan-out: from a shard's feeds to the sessions that subscribed, each frame built once.

For every partition the gateway knows the offset up to which it has passed everything on (its head). A feed
that begins later reveals a gap (a full queue, a shard that died between commit and publish): what is missing
is replayed from the journal before anything newer goes out. So a session sees every event once, in order.

A tenant may live in several partitions, each at its own pace. An event's position says how far all of them had been
passed on with it, so whoever resumes after it gets the rest, each once. Order is that of each partition, which is
that of each conversation.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from actors.publication import Feed, Publication, decode_feeds
from api.sessions import TOO_SLOW, Session
from hub import positions
from hub.errors import HubError, NotFound, Unavailable
from hub.ids import stream_partition

if TYPE_CHECKING:
    from actors.router import Router

log = logging.getLogger("hub.fanout")

ATTEND_EVERY_S = 5.0
ATTEND_RETRY_S = 0.2
RECENT_MAX_PUBLICATIONS = 2_000
HELD_MAX_FEEDS = 10_000
CATCHING_MAX_PUBLICATIONS = 50_000
RESYNC_RETRY_S = 0.1
AHEAD_TIMEOUT_S = 2.0
ATTENDED_TIMEOUT_S = 10.0
PAST_MAX_PUBLICATIONS = 10_000
INBOX = "inbox"
ALONE = ("", "")


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

    def __init__(self, partitions: tuple[int, ...]) -> None:
        self.partitions = partitions
        self.inbox: set[Subscription] = set()
        self.conversations: dict[str, set[Subscription]] = {}
        self.streams: dict[str, set[Subscription]] = {}
        share = RECENT_MAX_PUBLICATIONS // len(partitions)
        self.recent: dict[int, deque[Publication]] = {number: deque(maxlen=share) for number in partitions}
        self.attended = asyncio.Event()
        self.owed: dict[int, int] = {}
        """Where each partition stood when its owner learned of our interest: feeds of what came before leave us out."""

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

    def __init__(self, number: int) -> None:
        self.number = number
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

    async def reached(self, offset: int) -> None:
        """Return once everything up to `offset` has been passed on."""
        if (self.head or 0) < offset:
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.awaited.append((offset, reached))
            await reached


class Past(NamedTuple):
    """What a topic published in (since, until] of each of its tenant's partitions."""

    topic: str
    since: dict[int, int]
    until: dict[int, int]
    items: dict[int, list[Publication]]

    def frames(self) -> Iterator[str]:
        """One partition after the other. Whoever stops anywhere in between resumes from there."""
        offsets = dict(self.since)
        for number, items in self.items.items():
            before, after = positions.around(offsets, number)
            for item in items:
                yield frame(self.topic, item, f"{before}{number}-{item.offset}{after}")
            offsets[number] = self.until[number]


class Fanout:
    def __init__(
        self,
        router: Router,
        on_setting: Callable[[str, str], None],
        partitions_of: Callable[[str], Awaitable[tuple[int, ...]]],
    ) -> None:
        """`partitions_of` a tenant may raise Unavailable while nobody knows (`placement.py`)."""
        self._router = router
        self._on_setting = on_setting
        self._partitions_of = partitions_of
        self._tenants: dict[str, TenantTopics] = {}
        self._partitions: dict[int, PartitionFeed] = {}
        self._wake = asyncio.Event()
        self._attending: dict[str, int] = {}
        """Shards that know of our interest, and in how many tenants: they are only ever added."""
        self._told: dict[str, dict[int, int]] = {}
        """What each shard said in return: where the partitions that were open there stood."""
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
            topics = self._tenants[tenant]
            if not topics.attended.is_set():
                told.append(self._begin(topics, len(tenants)))
        return all(told)

    async def _attend(self, shard: str, tenants: list[str]) -> bool:
        self._attending[shard] = len(tenants)
        try:
            _, heads = await self._router.attend(shard, tenants)
        except HubError:
            self._attending.pop(shard, None)
            return False
        self._told[shard] = heads
        for number, head in heads.items():
            feed = self._partition(number)
            if feed.head is None:
                feed.head = head
        return True

    def _begin(self, topics: TenantTopics, count: int) -> bool:
        """Let a tenant's subscribers go on. False where the owner of one of its partitions has not heard of it yet."""
        owed = {}
        for number in topics.partitions:
            owner = self._router.owner(number)
            if self._attending.get(owner) != count or number not in self._told.get(owner, {}):
                self._attending.pop(owner, None)
                return False
            owed[number] = self._told[owner][number]
        topics.owed = owed
        topics.attended.set()
        return True

    def _partition(self, number: int) -> PartitionFeed:
        feed = self._partitions.get(number)
        if feed is None:
            feed = self._partitions[number] = PartitionFeed(number)
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
        around: dict[str, tuple[str, str]] = {}
        for item in items:
            if item.offset > head:
                self._deliver(item, state, around)
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
            tenants = [tenant for tenant, topics in self._tenants.items() if number in topics.partitions]
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
            for recent in topics.recent.values():
                recent.clear()
            groups = [topics.inbox, *topics.conversations.values(), *topics.streams.values()]
            for subscription in [s for group in groups for s in group]:
                subscription.session.close(TOO_SLOW, "fell behind; resume from your last position")

    def _deliver(self, item: Publication, state: PartitionFeed, around: dict[str, tuple[str, str]]) -> None:
        """`around`: by tenant, the rest of its events' positions while one feed is passed on: only this partition moves."""
        topics = self._tenants.get(item.tenant)
        if topics is None:
            return
        topics.recent[state.number].append(item)
        self.published += 1
        followers = topics.conversations.get(item.conversation)
        if topics.inbox or followers:
            rest = around.get(item.tenant)
            if rest is None:
                rest = ALONE if len(topics.partitions) == 1 else positions.around(self._heads(topics), state.number)
                around[item.tenant] = rest
            position = f"{rest[0]}{state.number}-{item.offset}{rest[1]}"
            if topics.inbox:
                _to_all(topics.inbox, item, frame(INBOX, item, position))
            if followers:
                _to_all(followers, item, frame(f"conversation:{item.conversation}", item, position))
        if item.message or item.type == "conversation.read":
            customers = topics.streams.get(item.stream)
            if customers:
                _to_all(customers, item, "")

    # --- subscribing ----------------------------------------------------------------------------------------------

    async def subscribe(self, tenant: str, subscription: Subscription) -> dict[int, int]:
        """Begin to collect; returns the position from which on everything will be seen. Raises Unavailable."""
        topics = self._tenants.get(tenant)
        if topics is None:
            partitions = await self._partitions_of(tenant)
            topics = self._tenants.setdefault(tenant, TenantTopics(partitions))
        topics.of(subscription.topic).add(subscription)
        if not topics.attended.is_set():
            self._wake.set()
            await self._attended(topics)
        if not await self._reached(topics.owed):
            raise Unavailable("this gateway is catching up", retry_after_s=1)
        return self._heads(topics)

    async def _attended(self, topics: TenantTopics) -> None:
        try:
            async with asyncio.timeout(ATTENDED_TIMEOUT_S):
                await topics.attended.wait()
        except TimeoutError:
            raise Unavailable("a shard is being replaced", retry_after_s=1) from None

    def _heads(self, topics: TenantTopics) -> dict[int, int]:
        """How far each of a tenant's partitions has been passed on."""
        return {number: self._partition(number).head or 0 for number in topics.partitions}

    def unsubscribe(self, tenant: str, subscription: Subscription) -> None:
        topics = self._tenants.get(tenant)
        if topics is not None:
            topics.of(subscription.topic).discard(subscription)
            topics.forget(subscription.topic)

    async def past(self, tenant: str, topic: str, since: str) -> Past | None:
        """What a subscriber of the topic has missed since a position; None where it cannot be told (any more).

        From memory where it is recent, else from the journal. Raises Unavailable while a shard restarts.
        """
        topics, after = self._tenants[tenant], positions.decode(since)
        if after is None or set(after) != set(topics.partitions) or not await self._reached(after):
            return None
        # Not sooner: no frame may be sent whose position falls behind `since` in another partition than its own.
        past = Past(topic, after, self._heads(topics), {})
        left = PAST_MAX_PUBLICATIONS
        for number in topics.partitions:
            items = await self._past_of(tenant, number, after[number], past.until[number])
            if items is None or len(items) > left:
                return None
            left -= len(items)
            past.items[number] = [item for item in items if _concerns(topic, item)]
        return past

    async def _reached(self, offsets: dict[int, int]) -> bool:
        """A position given by another gateway, or by a list, may be a moment ahead of what we have passed on."""
        try:
            async with asyncio.timeout(AHEAD_TIMEOUT_S):
                for number, offset in offsets.items():
                    await self._partition(number).reached(offset)
        except TimeoutError:
            return False
        return True

    async def _past_of(self, tenant: str, number: int, after: int, upto: int) -> list[Publication] | None:
        if after >= upto:
            return []
        recent = self._tenants[tenant].recent[number]
        if recent and recent[0].offset <= after + 1:
            return [item for item in recent if after < item.offset <= upto]
        try:
            return await self._router.replay(number, tenant, after, upto)
        except NotFound:
            return None

    def caught_up(self, subscription: Subscription, until: dict[int, int]) -> None:
        """Everything up to `until` is sent: send what waited, and from now on everything at once."""
        waiting, subscription.catching = subscription.catching or [], None
        for item, text in waiting:
            if item.offset > until[stream_partition(item.stream, self._router.partitions)]:
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
