"""A store, read as blocks, while others write to it.

The heads of all partitions are taken first, then every partition is read up to its head. A journal is append-only and an append
is atomic, so what is read is a true prefix of each partition, whatever is appended meanwhile. Keys are read after the records they seal,
and exist no later than those: none is missing unless it was erased, which the list of keys at the end makes sure of.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

from hub import __version__
from hub.archive.blocks import (
    VERSION,
    ArchiveError,
    Block,
    Claims,
    Documents,
    Events,
    Header,
    KeyMarks,
    Tally,
    mark,
)
from hub.ports import Store, StoredKey, StoredRecord

READ_MAX_EVENTS = 1_000
PAGE_MAX_ROWS = 1_000
STREAMS_REMEMBERED_MAX_COUNT = 100_000


async def read_store(store: Store, *, secret: str, now: int, base: Header | None = None) -> AsyncIterator[Block]:
    """All of a store, or what came after `base`. `secret` is the installation's fingerprint, `now` epoch ms.

    Raises ArchiveError where `base` was not made of this store, StoreUnavailable.
    """
    tally = Tally()
    header = await _header(store, secret, now, base)
    async for block in _blocks(store, header):
        tally.add(block)
        yield block
    yield tally.totals


async def _header(store: Store, secret: str, now: int, base: Header | None) -> Header:
    numbers = range(store.partitions)
    heads = [await store.journal.head(number) for number in numbers]
    if base is not None:
        await _check_continues(store, heads, secret, base)
    return Header(
        version=VERSION,
        id=secrets.token_hex(8),
        created_at=now,
        secret=secret,
        partitions=store.partitions,
        heads=heads,
        after=base.heads if base is not None else [0 for _ in numbers],
        tips=[await _tip(store, number, heads[number]) for number in numbers],
        base=base.id if base is not None else None,
        hub=__version__,
    )


async def _tip(store: Store, partition: int, offset: int) -> bytes:
    if offset == 0:
        return b""
    found = await store.journal.read(partition, offset - 1, 1)
    return mark(found[0].body) if found else b"?"


async def _check_continues(store: Store, heads: list[int], secret: str, base: Header) -> None:
    if base.partitions != store.partitions or base.secret != secret:
        raise ArchiveError(f"archive {base.id} is of another installation; make a full backup")
    for number, (head, offset, tip) in enumerate(zip(heads, base.heads, base.tips, strict=True)):
        if head < offset or await _tip(store, number, offset) != tip:
            raise ArchiveError(
                f"partition {number} is not the one that archive {base.id} was made of; make a full backup"
            )


async def _blocks(store: Store, header: Header) -> AsyncIterator[Block]:
    yield header
    streams = _Streams(store)
    for number in range(store.partitions):
        after = header.after[number]
        while after < header.heads[number]:
            records = await _read(store, number, after, header.heads[number])
            yield Events(number, records, await streams.new_keys(records))
            after = records[-1].offset
    place = ("", "")
    while documents := await store.documents.all(place, PAGE_MAX_ROWS):
        yield Documents(documents)
        place = (documents[-1].kind, documents[-1].id)
    place = ("", "")
    while claims := await store.documents.claims(place, PAGE_MAX_ROWS):
        yield Claims(claims)
        place = (claims[-1].kind, claims[-1].id)
    name = ""
    while keys := await store.journal.stream_keys(name, PAGE_MAX_ROWS):
        yield KeyMarks([(key.stream, mark(key.wrapped)) for key in keys])
        name = keys[-1].stream


async def _read(store: Store, partition: int, after: int, head: int) -> list[StoredRecord]:
    records = await store.journal.read(partition, after, min(READ_MAX_EVENTS, head - after))
    if [record.offset for record in records] != list(range(after + 1, after + 1 + len(records))) or not records:
        raise ArchiveError(f"partition {partition} of the store has a gap after event {after}")
    return records


class _Streams:
    """Which streams' keys are in the archive already. Forgets when it grows large: a key that comes twice does no harm."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: set[str] = set()

    async def new_keys(self, records: list[StoredRecord]) -> list[StoredKey]:
        names = list(dict.fromkeys(r.stream for r in records if r.stream not in self._seen))
        if len(self._seen) + len(names) > STREAMS_REMEMBERED_MAX_COUNT:
            self._seen.clear()
        self._seen.update(names)
        found = await self._store.journal.keys(names) if names else {}
        return [StoredKey(name, found[name]) for name in names if name in found]
