"""Slots as documents of one collection, `journal`.

    batch   {_id, p, n, e, l, k: [{s, w}], t: [part], r: [{o, s, b}]}
    fence   {_id, p, n, e, h, b, by}

`_id` is partition and slot number in one integer, so that what fences is the one index that no database can lack; p partition,
n slot number, e epoch, l offset of the batch's newest record. A record in `r` is offset, stream and body; `k` has the wrapped data
keys that came with the batch, so that they are committed with their records.
A fence has h, the offset of the newest record before it, b, the number of the newest batch, and by, its owner. It has no l: what
looks for records by offset never meets one. All queries are plain: equal, equal, greater, as an index has it.

A document can hold 16 MB. A batch that is larger keeps its bodies in `journal_parts`, written and durable before the batch that
names them: a part that no batch names was left by an append that never landed, and is never looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from bson import ObjectId

from hub.ports import StoredKey, StoredRecord
from hub.storage.mongo.database import Collection, Database, Doc
from hub.storage.mongo.slots import Slot
from hub.storage.mongo.writes import insert_new

SLOT_BITS = 44
DOCUMENT_MAX_BYTES = 8 * 1024 * 1024
"""Bodies in one document; the rest of it, and one more body, stay well below what MongoDB takes."""
PARTS_PER_INSERT = 4
Batch = tuple[int, list[StoredRecord]]
"""Offset of its newest record, and its records, or those that were asked for."""


def slot_id(partition: int, number: int) -> int:
    return (partition << SLOT_BITS) + number


class MongoLog:
    def __init__(self, database: Database, document_max_bytes: int = DOCUMENT_MAX_BYTES) -> None:
        self._database = database
        self._slots = database["journal"]
        self._parts = database["journal_parts"]
        self._document_max_bytes = document_max_bytes
        self._known: dict[int, int] = {}
        """By partition, the highest slot number that a majority was seen to hold: the newest is there or further on."""

    async def newest(self, partition: int) -> Slot | None:
        # Not only what a majority holds: whoever decides what to write next must see what is there. What it then
        # writes waits for a majority, and so for everything before it.
        return await self._newest(partition, self._database.unconfirmed("journal"))

    async def head(self, partition: int) -> int:
        """Offset of the newest record that a majority holds."""
        newest = await self._newest(partition, self._slots)
        if newest is None:
            return 0
        self._note(newest)
        return newest.head

    async def _newest(self, partition: int, slots: Collection) -> Slot | None:
        known = self._known.get(partition, 0)
        places = {"$gte": slot_id(partition, known), "$lt": slot_id(partition + 1, 0)}
        async with self._database.answering():
            found = await slots.find_one({"_id": places}, _PLACE, sort=[("_id", -1)])
        if found is None:
            return None
        number = found["_id"] - slot_id(partition, 0)
        head = found["l"] if "l" in found else found["h"]
        return Slot(partition, number, found["e"], head, found.get("b", number), found.get("by", ""))

    async def insert(self, slots: list[Slot]) -> list[bool]:
        async with self._database.answering():
            taken = await insert_new(self._slots, [await self._document(slot) for slot in slots])
        outcomes = [index not in taken for index in range(len(slots))]
        for slot in itertools.compress(slots, outcomes):
            self._note(slot)
        return outcomes

    def _note(self, slot: Slot) -> None:
        self._known[slot.partition] = max(slot.number, self._known.get(slot.partition, 0))

    async def _document(self, slot: Slot) -> Doc:
        document: Doc = {
            "_id": slot_id(slot.partition, slot.number),
            "p": slot.partition,
            "n": slot.number,
            "e": slot.epoch,
        }
        append = slot.append
        if append is None:
            return document | {"h": slot.head, "b": slot.batch, "by": slot.by}
        document["l"] = slot.head
        if append.keys:
            document["k"] = [{"s": key.stream, "w": key.wrapped} for key in append.keys]
        if sum(len(record.body) for record in append.records) > self._document_max_bytes:
            document["t"] = await self._write_parts(document["_id"], append.records)
            document["r"] = [{"o": record.offset, "s": record.stream} for record in append.records]
        else:
            document["r"] = [{"o": r.offset, "s": r.stream, "b": r.body} for r in append.records]
        return document

    async def _write_parts(self, slot: int, records: list[StoredRecord]) -> list[Doc]:
        parts, named = [], []
        for some in _split(records, self._document_max_bytes):
            id = ObjectId()
            parts.append({"_id": id, "n": slot, "r": [{"o": record.offset, "b": record.body} for record in some]})
            named.append({"i": id, "f": some[0].offset, "l": some[-1].offset})
        for first in range(0, len(parts), PARTS_PER_INSERT):
            await self._parts.insert_many(parts[first : first + PARTS_PER_INSERT], ordered=False)
        return named

    async def forget_parts(self, fence: Slot) -> None:
        """Remove what an append left behind that wanted the slot which the fence now fills."""
        async with self._database.answering():
            await self._parts.delete_many({"n": slot_id(fence.partition, fence.number)})

    async def keys_of(self, partition: int, number: int) -> list[StoredKey]:
        async with self._database.answering():
            found = await self._slots.find_one({"_id": slot_id(partition, number)}, {"k": 1})
        return [StoredKey(key["s"], key["w"]) for key in (found or {}).get("k", ())]

    async def of_stream(self, partition: int, stream: str, after: int, limit: int = 0) -> list[Batch]:
        """Batches with records of `stream` and an end beyond `after`, with those records only."""
        # Picked by the server: a batch has many of others.
        shown = {"l": 1, "t": 1, "r": {"$filter": {"input": "$r", "cond": {"$eq": ["$$this.s", {"$literal": stream}]}}}}
        return await self.find({"p": partition, "r.s": stream, "l": {"$gt": after}}, limit, shown)

    async def find(self, query: Doc, limit: int = 0, shown: Doc | None = None) -> list[Batch]:
        """By offset, at most `limit` (0: all)."""
        async with self._database.answering():
            cursor = self._slots.find(query, shown or {"l": 1, "t": 1, "r": 1}, sort=[("l", 1)], limit=limit)
            return [(found["l"], await self._records(found)) async for found in cursor]

    async def _records(self, found: Doc) -> list[StoredRecord]:
        records = found.get("r", ())
        if "t" not in found:
            return [StoredRecord(r["o"], r["s"], r["b"]) for r in records]
        bodies = await self._bodies(found["t"], {record["o"] for record in records})
        return [StoredRecord(r["o"], r["s"], bodies[r["o"]]) for r in records]

    async def _bodies(self, parts: list[Doc], wanted: set[int]) -> dict[int, bytes]:
        needed = [part["i"] for part in parts if any(part["f"] <= offset <= part["l"] for offset in wanted)]
        bodies: dict[int, bytes] = {}
        async for part in self._parts.find({"_id": {"$in": needed}}):
            bodies |= {record["o"]: record["b"] for record in part["r"] if record["o"] in wanted}
        return bodies


_PLACE = {"n": 1, "e": 1, "l": 1, "h": 1, "b": 1, "by": 1}


def _split(records: list[StoredRecord], size_max: int) -> Iterator[list[StoredRecord]]:
    some: list[StoredRecord] = []
    size = 0
    for record in records:
        if some and size + len(record.body) > size_max:
            yield some
            some, size = [], 0
        some.append(record)
        size += len(record.body)
    if some:
        yield some
