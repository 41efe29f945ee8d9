"""The in-memory home: for tests and the simulation. It keeps the whole contract but durability."""

from __future__ import annotations

import bisect

import msgspec

from hub.errors import Fenced
from hub.ports import (
    Append,
    Checkpoint,
    Claim,
    ConversationQuery,
    ConversationRow,
    CustomerRow,
    Document,
    MessageRow,
    Ownership,
    StoredKey,
    StoredRecord,
    StoredSnapshot,
    StreamImage,
    ViewBatch,
)


class _Log:
    """One partition's records, and where each stream's are."""

    def __init__(self) -> None:
        self.epoch = 0
        self.records: list[StoredRecord] = []
        self.streams: dict[str, list[int]] = {}


class MemoryJournal:
    def __init__(self, partitions: int) -> None:
        self._logs = [_Log() for _ in range(partitions)]
        self._keys: dict[str, bytes] = {}
        self.snapshots: dict[str, StoredSnapshot] = {}

    def epoch(self, partition: int) -> int:
        return self._logs[partition].epoch

    async def acquire(self, partition: int, expected_epoch: int | None = None) -> Ownership:
        log = self._logs[partition]
        if expected_epoch is not None and log.epoch != expected_epoch:
            raise Fenced
        log.epoch += 1
        return Ownership(log.epoch, len(log.records) + 1)

    async def append(self, appends: list[Append]) -> list[bool]:
        return [self._append(append) for append in appends]

    def _append(self, append: Append) -> bool:
        log = self._logs[append.partition]
        if log.epoch != append.epoch or len(log.records) + 1 != append.first_offset:
            return False
        for key in append.keys:
            self._keys[key.stream] = key.wrapped
        for record in append.records:
            log.records.append(record)
            log.streams.setdefault(record.stream, []).append(record.offset)
        return True

    async def read(self, partition: int, after: int, limit: int) -> list[StoredRecord]:
        return self._logs[partition].records[after : after + limit]

    async def head(self, partition: int) -> int:
        return len(self._logs[partition].records)

    async def load(self, partition: int, streams: list[str]) -> list[StreamImage]:
        return [self._load(partition, stream) for stream in streams]

    def _load(self, partition: int, stream: str) -> StreamImage:
        snapshot = self.snapshots.get(stream)
        records = self._history(partition, stream, snapshot.offset if snapshot else 0)
        return StreamImage(self._keys.get(stream), snapshot, records)

    def _history(self, partition: int, stream: str, after: int) -> list[StoredRecord]:
        log = self._logs[partition]
        offsets = log.streams.get(stream, [])
        return [log.records[offset - 1] for offset in offsets[bisect.bisect_right(offsets, after) :]]

    async def history(self, partition: int, stream: str, after: int, limit: int) -> list[StoredRecord]:
        return self._history(partition, stream, after)[:limit]

    async def keys(self, streams: list[str]) -> dict[str, bytes]:
        return {stream: self._keys[stream] for stream in streams if stream in self._keys}

    async def stream_keys(self, after: str, limit: int) -> list[StoredKey]:
        names = sorted(stream for stream in self._keys if stream > after)[:limit]
        return [StoredKey(stream, self._keys[stream]) for stream in names]

    async def erase_key(self, stream: str) -> None:
        self._keys.pop(stream, None)
        self.snapshots.pop(stream, None)


class MemorySnapshots:
    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

    async def save(self, partition: int, epoch: int, snapshots: list[StoredSnapshot]) -> None:
        if self._journal.epoch(partition) != epoch:
            return
        for snapshot in snapshots:
            known = self._journal.snapshots.get(snapshot.stream)
            if known is None or known.offset < snapshot.offset:
                self._journal.snapshots[snapshot.stream] = snapshot


class MemoryCheckpoints:
    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal
        self._checkpoints: dict[tuple[str, int], Checkpoint] = {}

    async def load(self, reader: str, partition: int) -> Checkpoint:
        return self._checkpoints.get((reader, partition), Checkpoint(0))

    async def save(self, reader: str, partition: int, epoch: int, checkpoint: Checkpoint) -> None:
        if self._journal.epoch(partition) == epoch:
            self._checkpoints[reader, partition] = checkpoint


class MemoryDocuments:
    def __init__(self) -> None:
        self._documents: dict[tuple[str, str], Document] = {}
        self._removed: dict[tuple[str, str], int] = {}
        self._claims: dict[tuple[str, str], str] = {}

    async def get(self, kind: str, id: str) -> Document | None:
        return self._documents.get((kind, id))

    async def of_tenant(self, kind: str, tenant: str) -> list[Document]:
        found = [d for d in self._documents.values() if d.kind == kind and d.tenant == tenant]
        return sorted(found, key=lambda document: document.id)

    async def put(self, documents: list[Document]) -> None:
        for document in documents:
            key = (document.kind, document.id)
            known = self._documents.get(key)
            newest = max(known.revision if known else 0, self._removed.get(key, 0))
            if document.revision > newest:
                self._documents[key] = msgspec.structs.replace(document)

    async def remove(self, kind: str, id: str, revision: int) -> None:
        known = self._documents.get((kind, id))
        if known is None or known.revision <= revision:
            self._documents.pop((kind, id), None)
            self._removed[kind, id] = max(revision, self._removed.get((kind, id), 0))

    async def claim(self, kind: str, id: str, owner: str) -> str:
        return self._claims.setdefault((kind, id), owner)

    async def owner(self, kind: str, id: str) -> str | None:
        return self._claims.get((kind, id))

    async def all(self, after: tuple[str, str], limit: int) -> list[Document]:
        return [self._documents[key] for key in sorted(key for key in self._documents if key > after)[:limit]]

    async def claims(self, after: tuple[str, str], limit: int) -> list[Claim]:
        return [Claim(*key, self._claims[key]) for key in sorted(key for key in self._claims if key > after)[:limit]]


class MemoryViews:
    def __init__(self) -> None:
        self._checkpoints: dict[int, int] = {}
        self._conversations: dict[str, ConversationRow] = {}
        self._messages: dict[str, dict[int, MessageRow]] = {}
        self._customers: dict[str, CustomerRow] = {}

    async def checkpoint(self, partition: int) -> int:
        return self._checkpoints.get(partition, 0)

    async def apply(self, batch: ViewBatch) -> None:
        if batch.upto <= self._checkpoints.get(batch.partition, 0):
            return
        for conversation in batch.conversations:
            self._conversations[conversation.id] = conversation
        for message in batch.messages:
            self._messages.setdefault(message.conversation, {})[message.seq] = message
        for customer in batch.customers:
            self._customers[customer.id] = customer
        self._checkpoints[batch.partition] = batch.upto

    async def timers(self, partition: int) -> list[tuple[str, int]]:
        rows = (row for row in self._conversations.values() if row.partition == partition)
        return sorted((row.id, row.wake_at) for row in rows if row.wake_at is not None)

    async def conversation(self, tenant: str, id: str) -> bytes | None:
        row = self._conversations.get(id)
        return row.body if row is not None and row.tenant == tenant else None

    async def conversations(self, query: ConversationQuery) -> list[ConversationRow]:
        rows = [row for row in self._conversations.values() if _matches(row, query)]
        rows.sort(key=lambda row: (row.updated_at, row.id), reverse=not query.ascending)
        if query.before is not None:
            last, ascending = query.before, query.ascending
            at = [((row.updated_at, row.id), row) for row in rows]
            rows = [row for key, row in at if (key > last if ascending else key < last)]
        return rows[: query.limit]

    async def message(self, conversation: str, seq: int) -> bytes | None:
        row = self._messages.get(conversation, {}).get(seq)
        return row.body if row is not None else None

    async def messages(
        self, conversation: str, *, before: int | None, after: int | None, limit: int
    ) -> list[MessageRow]:
        rows = sorted(self._messages.get(conversation, {}).values(), key=lambda row: row.seq)
        rows = [row for row in rows if (before is None or row.seq < before) and (after is None or row.seq > after)]
        return rows[:limit] if after is not None else rows[max(0, len(rows) - limit) :]

    async def customer(self, tenant: str, id: str) -> bytes | None:
        row = self._customers.get(id)
        return row.body if row is not None and row.tenant == tenant else None

    async def customers(
        self, tenant: str, *, text: str | None, before: tuple[int, str] | None, limit: int
    ) -> list[CustomerRow]:
        rows = [row for row in self._customers.values() if row.tenant == tenant and (not text or text in row.search)]
        rows.sort(key=lambda row: (row.updated_at, row.id), reverse=True)
        return [row for row in rows if before is None or (row.updated_at, row.id) < before][:limit]


def _matches(row: ConversationRow, query: ConversationQuery) -> bool:
    wanted = {
        "status": query.status,
        "assignee": query.assignee,
        "team": query.team,
        "channel": query.channel,
        "priority": query.priority,
        "customer": query.customer,
    }
    return (
        row.tenant == query.tenant
        and all(value is None or getattr(row, name) == value for name, value in wanted.items())
        and (not query.unassigned or row.assignee is None)
        and (query.label is None or query.label in row.labels)
        and (not query.text or query.text in row.search)
    )


class MemoryStore:
    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.journal = MemoryJournal(partitions)
        self.snapshots = MemorySnapshots(self.journal)
        self.checkpoints = MemoryCheckpoints(self.journal)
        self.documents = MemoryDocuments()
        self.views = MemoryViews()

    async def close(self) -> None:
        pass
