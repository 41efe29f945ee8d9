"""Blocks, written into a store.

Everything goes through `acquire` and `append`, so offsets are what they were, and a hub that was running on the target by mistake is
fenced, or fences us. The target is empty, or holds the beginning of the same archive: what an interrupted restore has written is compared,
record by record, and not written twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from hub.archive.blocks import ArchiveError, Block, Claims, Documents, Events, Header, KeyMarks, Trailer, mark
from hub.archive.cut import Cut
from hub.archive.in_hand import InHand, is_attempt
from hub.codec import decode_record
from hub.events import SettingChanged
from hub.ports import Append, Claim, Ownership, Store, StoredKey, StoredRecord

PAGE_MAX_ROWS = 1_000


class Restored(msgspec.Struct):
    """What a restore came to."""

    heads: list[int]
    """Offset of the newest event of the archive, by partition, that is in the store."""
    events: int = 0
    present: int = 0
    """Events that an interrupted restore had written before."""
    erased: int = 0
    """Keys that are in the archive and were erased before it was finished, or are to be forgotten."""
    attempts: int = 0
    """Outbound messages that may have left after the archive was made."""
    moved: dict[int, int] = {}


async def check_empty(store: Store) -> None:
    """Raises ArchiveError unless nothing was ever written here."""
    held = [number for number in range(store.partitions) if await store.journal.head(number)]
    if held or await store.journal.stream_keys("", 1) or await store.documents.claims(("", ""), 1):
        raise ArchiveError(
            "the store to write to is not empty; name a new one, or say --resume to go on with an interrupted restore"
        )
    if any([await store.views.checkpoint(number) for number in range(store.partitions)]):
        raise ArchiveError("the store to write to has lists of another journal; name a new one, or remove views.db*")


class StoreWriter:
    """Writes the blocks of one archive, or of a chain of them, one `write` after the other, then `finish`."""

    def __init__(self, store: Store, *, cut: Cut | None = None, forget: frozenset[str] = frozenset()) -> None:
        self._store = store
        self._cut = cut or Cut()
        self._forget = forget
        self._owned: dict[int, Ownership] = {}
        self._in_hand: dict[int, InHand] = {}
        self._settings: set[tuple[str, str]] = set()
        self._present: list[int] = []
        self.done = Restored([0] * store.partitions, moved=self._cut.moved)

    async def write(self, blocks: AsyncIterator[Block], *, newest: bool = True, documents: bool = True) -> None:
        """`newest`: no other archive continues this one. `documents`: take them along as they are.

        Raises ArchiveError, StoreUnavailable.
        """
        if not self._present:
            numbers = range(self._store.partitions)
            self._present = [await self._store.journal.head(number) for number in numbers]
        keys = _KeyList(self._store)
        async for block in blocks:
            if isinstance(block, Header) and block.partitions != self._store.partitions:
                raise ArchiveError(f"the archive has {block.partitions} partitions, the store {self._store.partitions}")
            if isinstance(block, Events):
                await self._events(block)
            elif newest and isinstance(block, Documents) and documents and self._cut.everything:
                await self._store.documents.put(block.documents)
            elif newest and isinstance(block, Claims):
                await self._claims(block.claims)
            elif newest and isinstance(block, KeyMarks):
                await keys.listed(block.marks)
            elif newest and isinstance(block, Trailer):
                await keys.end()
        self.done.erased += keys.erased

    async def _events(self, block: Events) -> None:
        number = block.partition
        records = self._cut.keep(number, block.records)
        if not records:
            return
        streams = {record.stream for record in records}
        keys = [key for key in block.keys if key.stream in streams and key.stream not in self._forget]
        self.done.erased += sum(key.stream in self._forget for key in block.keys if key.stream in streams)
        self._follow(number, records)
        missing = records[await self._compare(number, records) :]
        if missing:
            await self._append(number, missing, keys)
        self.done.events += len(missing)
        self.done.present += len(records) - len(missing)
        self.done.heads[number] = records[-1].offset

    def _follow(self, number: int, records: list[StoredRecord]) -> None:
        in_hand = self._in_hand.setdefault(number, InHand())
        for record in records:
            in_hand.follow(record)
            if record.stream.startswith("ten_"):
                opened = decode_record(record.body, stream=record.stream, offset=record.offset, cipher=None)
                if isinstance(opened.event, SettingChanged):
                    self._settings.add((opened.tenant, opened.event.id))

    async def _compare(self, number: int, records: list[StoredRecord]) -> int:
        """How many of these the store has already. Raises ArchiveError where it has something else."""
        first = records[0].offset
        present = min(len(records), max(0, self._present[number] - first + 1))
        if present and await self._store.journal.read(number, first - 1, present) != records[:present]:
            raise ArchiveError(
                f"partition {number} of the store holds another journal than the archive; name a new one"
            )
        return present

    async def _append(self, number: int, records: list[StoredRecord], keys: list[StoredKey]) -> None:
        owned = self._owned.get(number)
        if owned is None:
            owned = self._owned[number] = await self._store.journal.acquire(number)
        [ok] = await self._store.journal.append([Append(number, owned.epoch, records[0].offset, records, keys)])
        if not ok:
            raise ArchiveError(
                f"partition {number} of the store is being written by somebody else; stop that hub first"
            )

    async def _claims(self, claims: list[Claim]) -> None:
        for claim in claims:
            if self._cut.everything or self._was_there(claim):
                await self._store.documents.claim(claim.kind, claim.id, claim.owner)

    def _was_there(self, claim: Claim) -> bool:
        """A name claimed for a setting (`tenant/id`) that was made after the cut must be free again."""
        tenant, _, id = claim.owner.partition("/")
        return not id or (tenant, id) in self._settings

    async def finish(self, *, attempts_at: int | None = None) -> Restored:
        """With `attempts_at` (epoch ms), write down which outbound messages may have left since; see `in_hand`."""
        for number in range(self._store.partitions):
            end = self.done.heads[number]
            head = await self._store.journal.head(number)
            added = [] if attempts_at is None else self._attempts(number, end + 1, attempts_at)
            if head > end:
                await self._check_attempts(number, end, head)
            elif added:
                await self._append(number, added, [])
            self.done.attempts += len(added)
        return self.done

    def _attempts(self, number: int, first_offset: int, at: int) -> list[StoredRecord]:
        in_hand = self._in_hand.get(number)
        return in_hand.attempts(first_offset, at) if in_hand is not None else []

    async def _check_attempts(self, number: int, end: int, head: int) -> None:
        """What an interrupted restore wrote last may be there; anything else is the work of a hub."""
        rest = await self._store.journal.read(number, end, PAGE_MAX_ROWS)
        if not all(map(is_attempt, rest)):
            raise ArchiveError(f"partition {number} of the store went on to {head}, past the archive; name a new one")


class _KeyList:
    """Holds the keys of the store against the list of those that should be, both by stream, and erases the others."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._page: list[StoredKey] = []
        self._after: str | None = ""
        self.erased = 0

    async def listed(self, marks: list[tuple[str, bytes]]) -> None:
        for stream, wanted in marks:
            key = await self._erase_before(stream)
            if key is not None and key.stream == stream:
                self._page.pop()
                if mark(key.wrapped) != wanted:
                    await self._erase(stream)

    async def end(self) -> None:
        await self._erase_before(None)

    async def _erase_before(self, stream: str | None) -> StoredKey | None:
        """The first key at or after `stream`; those before it are not on the list."""
        while (key := await self._next()) is not None and (stream is None or key.stream < stream):
            self._page.pop()
            await self._erase(key.stream)
        return key

    async def _next(self) -> StoredKey | None:
        if not self._page and self._after is not None:
            page = await self._store.journal.stream_keys(self._after, PAGE_MAX_ROWS)
            self._after = page[-1].stream if page else None
            self._page = page[::-1]
        return self._page[-1] if self._page else None

    async def _erase(self, stream: str) -> None:
        await self._store.journal.erase_key(stream)
        self.erased += 1
