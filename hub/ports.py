"""What the hub needs from a store, and nothing more. `hub/storage/` holds the homes of these ports.

The contract, checked for every home by one suite (`tests/contract`):

* `Journal.append` is the only commit point. It is atomic per partition, and durable when it returns.
  It refuses (False) a partition whose epoch is stale or whose next offset is not `first_offset`,
  without touching the others in the call. Data keys in an append are durable no later than its records.
* Where it raises `StoreUnavailable` the outcome may be unknown: the caller must `acquire` again, which
  raises the epoch (so that a write still under way can no longer land) and tells the true next offset.
* Everything else is derived from the journal and may be lost without losing a message: snapshots,
  checkpoints, documents, views. Re-applying what was already applied changes nothing.
* Bodies are opaque here. Offsets of a partition start at 1 and have no gap. Times are epoch ms.
* Any method may raise `StoreUnavailable`; none returns before what it says is true.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class StoredRecord(msgspec.Struct, array_like=True):
    offset: int
    stream: str
    body: bytes


class StoredKey(msgspec.Struct, array_like=True):
    """The wrapped data key of a stream, stored with its first record."""

    stream: str
    wrapped: bytes


class Append(msgspec.Struct):
    """One partition's share of a group commit."""

    partition: int
    epoch: int
    first_offset: int
    records: list[StoredRecord]
    keys: list[StoredKey] = []


class Ownership(msgspec.Struct, frozen=True):
    epoch: int
    next_offset: int


class StoredSnapshot(msgspec.Struct, array_like=True):
    """`offset`: the newest event of the stream that is in it."""

    stream: str
    offset: int
    body: bytes


class StreamImage(msgspec.Struct):
    """All that is needed to bring one stream to life. `key` is None for a new stream or an erased one."""

    key: bytes | None = None
    snapshot: StoredSnapshot | None = None
    records: list[StoredRecord] = []
    """Events after the snapshot, in order."""


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a reader has come in a partition, and what it still has in hand."""

    offset: int
    data: bytes = b""


class Document(msgspec.Struct):
    """A setting as the gateways look it up. A lower or equal revision never replaces a higher one."""

    kind: str
    id: str
    tenant: str
    revision: int
    body: bytes


class Claim(msgspec.Struct, array_like=True):
    """A name that is unique across tenants, and who claimed it first."""

    kind: str
    id: str
    owner: str


class ConversationRow(msgspec.Struct):
    """A conversation in the lists. `body` is its public JSON; the rest is what lists filter and sort by."""

    id: str
    tenant: str
    partition: int
    customer: str
    channel: str
    status: str
    priority: str
    assignee: str | None
    team: str | None
    labels: list[str]
    created_at: int
    updated_at: int
    wake_at: int | None
    """When its next timer is due."""
    search: str
    """Lower-case text that `q` looks in."""
    body: bytes


class MessageRow(msgspec.Struct):
    conversation: str
    seq: int
    body: bytes


class CustomerRow(msgspec.Struct):
    id: str
    tenant: str
    partition: int
    search: str
    updated_at: int
    body: bytes


class ViewBatch(msgspec.Struct):
    """Rows to upsert, and the offset up to which the views then hold everything of this partition."""

    partition: int
    upto: int
    conversations: list[ConversationRow] = []
    messages: list[MessageRow] = []
    customers: list[CustomerRow] = []


class ConversationQuery(msgspec.Struct, kw_only=True):
    """Newest `updated_at` first (or oldest, with `ascending`). None means any. `before` is (updated_at, id) of the last row seen."""

    tenant: str
    status: str | None = None
    assignee: str | None = None
    unassigned: bool = False
    team: str | None = None
    label: str | None = None
    channel: str | None = None
    priority: str | None = None
    customer: str | None = None
    text: str | None = None
    ascending: bool = False
    before: tuple[int, str] | None = None
    limit: int = 50


class Journal(Protocol):
    async def acquire(self, partition: int, expected_epoch: int | None = None) -> Ownership:
        """Take the partition: raise its epoch and fence every earlier owner.

        With `expected_epoch`, only while that is still the epoch; raises `hub.errors.Fenced` where it is not.
        """
        ...

    async def append(self, appends: list[Append]) -> list[bool]:
        """Group commit. One bool for each: False where it was fenced or the offset did not fit."""
        ...

    async def read(self, partition: int, after: int, limit: int) -> list[StoredRecord]:
        """Records with offset > after, in order, at most `limit`."""
        ...

    async def head(self, partition: int) -> int:
        """Offset of the newest record, 0 where there is none."""
        ...

    async def load(self, partition: int, streams: list[str]) -> list[StreamImage]:
        """One image for each stream asked for, in that order."""
        ...

    async def history(self, partition: int, stream: str, after: int, limit: int) -> list[StoredRecord]:
        """Records of one stream with offset > after, in order, at most `limit`."""
        ...

    async def keys(self, streams: list[str]) -> dict[str, bytes]:
        """The wrapped data keys that exist among these streams."""
        ...

    async def stream_keys(self, after: str, limit: int) -> list[StoredKey]:
        """Every key there is, a page at a time: of streams whose name is > after, by name (code points), at most `limit`."""
        ...

    async def erase_key(self, stream: str) -> None:
        """Make the stream's content unreadable for ever, its snapshot included."""
        ...


class Snapshots(Protocol):
    async def save(self, partition: int, epoch: int, snapshots: list[StoredSnapshot]) -> None:
        """Replace older ones. A stale epoch, or an offset not newer, is ignored."""
        ...


class Checkpoints(Protocol):
    async def load(self, reader: str, partition: int) -> Checkpoint:
        """Offset 0 where the reader never came here."""
        ...

    async def save(self, reader: str, partition: int, epoch: int, checkpoint: Checkpoint) -> None:
        """A stale epoch is ignored."""
        ...


class Documents(Protocol):
    async def get(self, kind: str, id: str) -> Document | None: ...

    async def of_tenant(self, kind: str, tenant: str) -> list[Document]:
        """By id."""
        ...

    async def put(self, documents: list[Document]) -> None: ...

    async def remove(self, kind: str, id: str, revision: int) -> None:
        """Ignored where a higher revision is stored."""
        ...

    async def claim(self, kind: str, id: str, owner: str) -> str:
        """Who owns this name: `owner` where nobody did before. Names are global, so they are claimed, not decided."""
        ...

    async def owner(self, kind: str, id: str) -> str | None:
        """Who claimed this name, if anybody did."""
        ...

    async def all(self, after: tuple[str, str], limit: int) -> list[Document]:
        """Every document, a page at a time: with (kind, id) > after, in that order (code points). Removed ones are left out."""
        ...

    async def claims(self, after: tuple[str, str], limit: int) -> list[Claim]:
        """Every claim, a page at a time: with (kind, id) > after, in that order (code points)."""
        ...


class Views(Protocol):
    async def checkpoint(self, partition: int) -> int:
        """Offset up to which the views hold this partition."""
        ...

    async def apply(self, batch: ViewBatch) -> None:
        """Atomic. A batch whose `upto` is not newer than the checkpoint is ignored."""
        ...

    async def timers(self, partition: int) -> list[tuple[str, int]]:
        """(conversation, wake_at) of every conversation with a timer."""
        ...

    async def conversation(self, tenant: str, id: str) -> bytes | None: ...

    async def conversations(self, query: ConversationQuery) -> list[ConversationRow]: ...

    async def message(self, conversation: str, seq: int) -> bytes | None: ...

    async def messages(
        self, conversation: str, *, before: int | None, after: int | None, limit: int
    ) -> list[MessageRow]:
        """Ascending by seq: the newest `limit` below `before`, or the oldest `limit` above `after`."""
        ...

    async def customer(self, tenant: str, id: str) -> bytes | None: ...

    async def customers(
        self, tenant: str, *, text: str | None, before: tuple[int, str] | None, limit: int
    ) -> list[CustomerRow]:
        """Newest `updated_at` first."""
        ...


class Store(Protocol):
    """A home of all the ports. `partitions` was fixed when the store was created."""

    @property
    def partitions(self) -> int: ...

    @property
    def journal(self) -> Journal: ...

    @property
    def snapshots(self) -> Snapshots: ...

    @property
    def checkpoints(self) -> Checkpoints: ...

    @property
    def documents(self) -> Documents: ...

    @property
    def views(self) -> Views: ...

    async def close(self) -> None: ...
