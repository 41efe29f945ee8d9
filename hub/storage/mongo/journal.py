"""The journal in MongoDB: a document an append, which is the whole commit. See `slots.py` for who may write, `log.py` for the form.

Data keys are committed inside the batch that brings them. From there they are copied to `stream_keys`, where they are looked up,
before the append returns; a process that dies in between is made up for by the next `acquire`, before it returns. So a key there
always belongs to a committed batch: a stale owner cannot put one. `n` is the newest slot a key came from; a copy from that slot or
an older one changes nothing, so an erased key (which stays as a row without `w`) cannot come back.
"""

from __future__ import annotations

import asyncio
import itertools

from pymongo import UpdateOne

from hub.ports import Append, Ownership, StoredKey, StoredRecord, StoredSnapshot, StreamImage
from hub.storage.mongo.database import Database, Doc
from hub.storage.mongo.log import MongoLog, slot_id
from hub.storage.mongo.slots import Slots
from hub.storage.mongo.writes import insert_new, put_newer

BATCHES_FIRST_COUNT = 8
"""How many batches a read asks for at first; twice as many each time that they were not enough."""
STREAMS_MAX_PER_QUERY = 64
NAMES_MAX_PER_QUERY = 1_000


class MongoJournal:
    def __init__(self, database: Database, log: MongoLog | None = None) -> None:
        self._database = database
        self._log = log or MongoLog(database)
        self._slots = Slots(self._log)
        self._keys = database["stream_keys"]
        self._snapshots = database["snapshots"]

    async def acquire(self, partition: int, expected_epoch: int | None = None) -> Ownership:
        fence = await self._slots.acquire(partition, expected_epoch)
        try:
            if fence.batch:
                await self._copy_keys(partition, fence.batch, await self._log.keys_of(partition, fence.batch))
            await self._log.forget_parts(fence)
        except BaseException:
            self._slots.disown(fence, expected_epoch)
            raise
        return Ownership(fence.epoch, fence.head + 1)

    async def append(self, appends: list[Append]) -> list[bool]:
        outcomes, filled = await self._slots.append(appends)
        with_keys = [slot for slot in filled if slot.append is not None and slot.append.keys]
        try:
            for slot in with_keys:
                await self._copy_keys(slot.partition, slot.number, slot.append.keys)  # type: ignore[union-attr]
        except BaseException:
            self._slots.forsake(filled)
            raise
        return outcomes

    async def _copy_keys(self, partition: int, number: int, keys: list[StoredKey]) -> None:
        if not keys:
            return
        slot = slot_id(partition, number)
        async with self._database.answering():
            rows = [{"_id": key.stream, "w": key.wrapped, "n": slot, "from": [slot]} for key in keys]
            known = [rows[index] for index in await insert_new(self._keys, rows)]
            await put_newer(self._keys, [_newer_key(row) for row in known])

    async def read(self, partition: int, after: int, limit: int) -> list[StoredRecord]:
        records: list[StoredRecord] = []
        batches = BATCHES_FIRST_COUNT
        seen = after
        while len(records) < limit:
            found = await self._log.find({"p": partition, "l": {"$gt": seen}}, limit=batches)
            for _, some in found:
                records += [record for record in some if record.offset > after]
            if len(found) < batches:
                break
            seen, batches = found[-1][0], batches * 2
        return records[: max(limit, 0)]

    async def head(self, partition: int) -> int:
        return await self._log.head(partition)

    async def history(self, partition: int, stream: str, after: int, limit: int) -> list[StoredRecord]:
        if limit <= 0:
            return []
        found = await self._log.of_stream(partition, stream, after, limit)
        return [record for _, records in found for record in records if record.offset > after][:limit]

    async def load(self, partition: int, streams: list[str]) -> list[StreamImage]:
        images = {}
        names = list(dict.fromkeys(streams))
        for first in range(0, len(names), STREAMS_MAX_PER_QUERY):
            images.update(await self._load(partition, names[first : first + STREAMS_MAX_PER_QUERY]))
        return [images[stream] for stream in streams]

    async def _load(self, partition: int, streams: list[str]) -> dict[str, StreamImage]:
        keys = await self.keys(streams)
        # No key: a stream nobody ever wrote to, or an erased one, whose skeleton must still be replayed.
        snapshots = await self._snapshots_of(list(keys))
        images = {s: StreamImage(keys.get(s), snapshots.get(s)) for s in streams}
        fresh = [stream for stream in streams if stream not in snapshots]
        found = await asyncio.gather(
            *([self._log.find({"p": partition, "r.s": {"$in": fresh}})] if fresh else []),
            # One by one: each has another offset to begin at, and nearly always there is nothing.
            *(self._log.of_stream(partition, s.stream, s.offset) for s in snapshots.values()),
        )
        for _, records in itertools.chain.from_iterable(found):
            for record in records:
                image = images.get(record.stream)
                if image is not None and (image.snapshot is None or record.offset > image.snapshot.offset):
                    image.records.append(record)
        return images

    async def _snapshots_of(self, streams: list[str]) -> dict[str, StoredSnapshot]:
        async with self._database.answering():
            cursor = self._snapshots.find({"_id": {"$in": streams}})
            return {s["_id"]: StoredSnapshot(s["_id"], s["o"], s["b"]) async for s in cursor}

    async def keys(self, streams: list[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for first in range(0, len(streams), NAMES_MAX_PER_QUERY):
            query = {"_id": {"$in": streams[first : first + NAMES_MAX_PER_QUERY]}}
            async with self._database.answering():
                cursor = self._keys.find(query, {"w": 1})
                found |= {key["_id"]: key["w"] async for key in cursor if key["w"] is not None}
        return found

    async def stream_keys(self, after: str, limit: int) -> list[StoredKey]:
        if limit <= 0:
            return []
        query = {"_id": {"$gt": after}, "w": {"$ne": None}}
        async with self._database.answering():
            cursor = self._keys.find(query, {"w": 1}, sort=[("_id", 1)], limit=limit)
            return [StoredKey(key["_id"], key["w"]) async for key in cursor]

    async def erase_key(self, stream: str) -> None:
        async with self._database.answering():
            known = await self._keys.find_one({"_id": stream})
            if known is None:
                return
            batches = {"_id": {"$in": known["from"]}}
            await self._database["journal"].update_many(batches, {"$pull": {"k": {"s": stream}}})
            await self._keys.update_one({"_id": stream, "n": known["n"]}, {"$set": {"w": None}})
            await self._snapshots.delete_one({"_id": stream})


def _newer_key(row: Doc) -> UpdateOne:
    older = {"_id": row["_id"], "n": {"$lt": row["n"]}}
    return UpdateOne(older, {"$set": {"w": row["w"], "n": row["n"]}, "$push": {"from": row["n"]}}, upsert=True)
