"""The publisher: sends each committed entry once to every gateway that cares about its tenant.

One send in flight per gateway; what is committed meanwhile goes into the next. A gateway that cannot keep
up has its queue dropped: it sees the gap in the offsets and replays from the journal. Where something was
committed that is not published (a partition that came back, a gateway that did), an empty feed shows the gap at
once, so that nobody waits for the next event to learn of the last one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from actors.entry import Entry
from actors.partition import Partition
from actors.publication import Feed, Publication, SettingNotice, encode_feeds, publication, setting_notice

log = logging.getLogger("hub.publisher")

OUTBOX_MAX_PUBLICATIONS = 50_000
CALL_TIMEOUT_S = 10.0


class Outbox:
    """One gateway: its interest, and what waits for it."""

    def __init__(self, gateway: str, send: Callable[[bytes], Awaitable[None]], shard: str, incarnation: int) -> None:
        self.gateway = gateway
        self.tenants: set[str] = set()
        self._send = send
        self._shard = shard
        self._incarnation = incarnation
        self._feeds: dict[int, Feed] = {}
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self.failed = False

    def add(
        self, partition: int, after: int, upto: int, items: list[Publication], settings: list[SettingNotice]
    ) -> None:
        if self._waiting > OUTBOX_MAX_PUBLICATIONS:
            for crowded in self._feeds.values():
                crowded.after, crowded.items = crowded.upto, []
            self._waiting = 0
        feed = self._feeds.get(partition)
        if feed is None or feed.upto != after:
            kept = [] if feed is None else feed.settings
            feed = self._feeds[partition] = Feed(self._shard, self._incarnation, partition, after, upto, [], kept)
        feed.upto = upto
        feed.items += items
        feed.settings += settings
        self._waiting += len(items)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._feeds:
                feeds, self._feeds, self._waiting = list(self._feeds.values()), {}, 0
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await self._send(encode_feeds(feeds))
        except Exception as error:
            # The gateway died or hangs. It comes back by asking for our interest list, and replays.
            log.warning("gateway %s does not take publications: %s", self.gateway, type(error).__name__)
            self.failed = True
        finally:
            self._task = None


class Publisher:
    def __init__(self, shard: str, incarnation: int, heads: Callable[[], dict[int, int]]) -> None:
        self._shard = shard
        self.incarnation = incarnation
        self._heads = heads
        """The newest durable offset of every partition here."""
        self._outboxes: dict[str, Outbox] = {}

    def attend(
        self, gateway: str, tenants: list[str], connect: Callable[[str], Callable[[bytes], Awaitable[None]]]
    ) -> None:
        """A gateway says which tenants it cares about; repeating it is free."""
        outbox = self._outboxes.get(gateway)
        if outbox is None or outbox.failed:
            outbox = self._outboxes[gateway] = Outbox(gateway, connect(gateway), self._shard, self.incarnation)
            for number, head in self._heads().items():
                outbox.add(number, head, head, [], [])
        outbox.tenants = set(tenants)

    def leave(self, gateway: str) -> None:
        self._outboxes.pop(gateway, None)

    def opened(self, partition: Partition) -> None:
        """What was committed before the partition came here may not have reached everybody."""
        for outbox in self._outboxes.values():
            if not outbox.failed:
                outbox.add(partition.number, partition.durable, partition.durable, [], [])

    def note(self, partition: Partition, entries: list[Entry]) -> None:
        if not self._outboxes:
            return
        after, upto = entries[0].offset - 1, entries[-1].offset
        made: dict[str, list[Publication]] = {}
        notices = [notice for entry in entries if (notice := setting_notice(entry)) is not None]
        wanted = set().union(*(outbox.tenants for outbox in self._outboxes.values()))
        for entry in entries:
            if entry.tenant in wanted and (item := publication(entry)) is not None:
                made.setdefault(entry.tenant, []).append(item)
        for outbox in list(self._outboxes.values()):
            if outbox.failed:
                del self._outboxes[outbox.gateway]
                continue
            if len(made) == 1 and next(iter(made)) in outbox.tenants:
                items = next(iter(made.values()))
            else:
                items = sorted((i for t, group in made.items() if t in outbox.tenants for i in group), key=_offset)
            outbox.add(partition.number, after, upto, items, notices)


def _offset(item: Publication) -> int:
    return item.offset
