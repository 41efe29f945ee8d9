"""The reader behind lists, search and settings look-ups.

Rows pile up coalesced (a conversation that changed forty times is written once) and are flushed every
`FLUSH_EVERY_S`, or at once when somebody waits for an offset. After a crash it replays from its checkpoint.
"""

from __future__ import annotations

import asyncio
import logging

from actors.entry import Entry
from actors.partition import Partition
from actors.readers.catch_up import CatchUp
from hub import render
from hub.errors import HubError, StoreUnavailable
from hub.events import MessageStatusChanged, SettingChanged, SettingRemoved
from hub.model import STATUS_RANK
from hub.ports import ConversationRow, CustomerRow, Document, MessageRow, Store, ViewBatch

log = logging.getLogger("hub.views")

FLUSH_EVERY_S = 0.25
PENDING_MAX_ROWS = 50_000
CATCH_UP_CHUNK_EVENTS = 2_000
CATCH_UP_MAX_ACTIVATIONS = 100_000


class Pending:
    """What the views do not hold yet of one partition."""

    def __init__(self, upto: int) -> None:
        self.upto = upto
        self.conversations: dict[str, ConversationRow] = {}
        self.messages: dict[tuple[str, int], MessageRow] = {}
        self.customers: dict[str, CustomerRow] = {}
        self.settings: list[SettingChanged | SettingRemoved] = []
        self.setting_tenants: list[str] = []
        self.patches: list[MessageStatusChanged] = []

    def add(self, entry: Entry) -> None:
        self.upto = entry.offset
        event = entry.event
        if entry.conversation is not None:
            self.conversations[entry.conversation.id] = entry.conversation
        for row in entry.renamed:
            self.conversations[row.id] = row
        if entry.message is not None:
            self.messages[entry.message.conversation, entry.message.seq] = entry.message
        elif isinstance(event, MessageStatusChanged):
            self.patches.append(event)
        if entry.customer is not None:
            self.customers[entry.customer.id] = entry.customer
        if isinstance(event, SettingChanged | SettingRemoved):
            self.settings.append(event)
            self.setting_tenants.append(entry.tenant)

    def __len__(self) -> int:
        return len(self.conversations) + len(self.messages) + len(self.customers) + len(self.settings)


class ViewsReader:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: dict[int, Pending] = {}
        self._flushed: dict[int, int] = {}
        self._partitions: dict[int, Partition] = {}
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._behind: set[int] = set()
        self.flushes = 0

    async def open(self, partition: Partition) -> None:
        """Catch up with the journal before the partition takes commands."""
        self._partitions[partition.number] = partition
        self._pending.pop(partition.number, None)
        await self._catch_up(partition)

    def close(self, partition: Partition) -> None:
        self._partitions.pop(partition.number, None)
        self._pending.pop(partition.number, None)
        self._behind.discard(partition.number)

    def note(self, partition: Partition, entries: list[Entry]) -> None:
        number = partition.number
        if number in self._behind:
            return
        pending = self._pending.get(number)
        if pending is None:
            pending = self._pending[number] = Pending(entries[0].offset - 1)
        for entry in entries:
            pending.add(entry)
        if len(pending) > PENDING_MAX_ROWS:
            # The store does not take what we have: forget it, and read it from the journal later.
            del self._pending[number]
            self._behind.add(number)

    async def run(self) -> None:
        while True:
            # Not `wait_for`: on Python 3.11 it swallows a cancellation that comes together with the event.
            try:
                async with asyncio.timeout(FLUSH_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self.flush()

    async def reach(self, partition: int, offset: int) -> None:
        """Return once the views hold everything up to `offset`. Raises StoreUnavailable where they cannot."""
        if self._flushed.get(partition, 0) < offset:
            await self.flush()
        if self._flushed.get(partition, 0) < offset:
            raise StoreUnavailable("the lists are behind the journal; try again in a moment", retry_after_s=0.25)

    async def flush(self) -> None:
        async with self._lock:
            for number in list(self._behind):
                await self._come_back(number)
            for number in list(self._pending):
                pending = self._pending.pop(number, None)
                if pending is None:
                    continue  # the partition went away while another one was written
                try:
                    await self._write(number, pending)
                except HubError as error:
                    log.warning("the views of partition %d could not be written: %s", number, error)
                    self._behind.add(number)
                    self._pending.pop(number, None)

    async def _come_back(self, number: int) -> None:
        partition = self._partitions.get(number)
        self._behind.discard(number)
        if partition is None:
            return
        try:
            await self._catch_up(partition)
        except HubError as error:
            log.warning("the views of partition %d are still behind: %s", number, error)
            self._behind.add(number)
            self._pending.pop(number, None)

    async def _catch_up(self, partition: Partition) -> None:
        # What is committed from here on is noted: whoever chased the end would hold up everybody else under traffic.
        end = partition.durable
        after = await self._store.views.checkpoint(partition.number)
        progress = CatchUp(log, "lists are rebuilt", partition.number, after, end)
        while after < end:
            upto = min(after + CATCH_UP_CHUNK_EVENTS, end)
            pending = Pending(after)
            for entry in await partition.replay(after, upto):
                pending.add(entry)
            pending.upto = upto
            await self._write(partition.number, pending)
            partition.passivate(idle_since=0, keep_max=CATCH_UP_MAX_ACTIVATIONS)
            after = upto
            progress.reached(after)
        self._flushed[partition.number] = after
        held = self._pending.get(partition.number)
        if held is not None and held.upto <= after:
            del self._pending[partition.number]

    async def _write(self, number: int, pending: Pending) -> None:
        await self._write_settings(pending)
        for event in pending.patches:
            await self._patch(event, pending)
        await self._store.views.apply(
            ViewBatch(
                number,
                pending.upto,
                list(pending.conversations.values()),
                list(pending.messages.values()),
                list(pending.customers.values()),
            )
        )
        self._flushed[number] = max(pending.upto, self._flushed.get(number, 0))
        self.flushes += 1

    async def _write_settings(self, pending: Pending) -> None:
        for event, tenant in zip(pending.settings, pending.setting_tenants, strict=True):
            if isinstance(event, SettingRemoved):
                await self._store.documents.remove(event.kind, event.id, event.revision)
            elif event.content is not None:
                body = event.content.document
                await self._store.documents.put([Document(event.kind, event.id, tenant, event.revision, body)])

    async def _patch(self, event: MessageStatusChanged, pending: Pending) -> None:
        """A status of a message so old that its conversation forgot it: only the view still knows its text."""
        key = (event.conversation, event.seq)
        row = pending.messages.get(key)
        body = row.body if row is not None else await self._store.views.message(*key)
        if body is None:
            return
        message = render.message_from_json(body)
        if event.content is not None and event.content.external_id is not None:
            message.external_id = event.content.external_id
        if STATUS_RANK[event.status] > STATUS_RANK.get(message.status or "queued", 0):
            message.status, message.error = event.status, event.error
        pending.messages[key] = MessageRow(*key, render.message_json(message))
