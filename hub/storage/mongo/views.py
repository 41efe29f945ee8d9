"""Read models in MongoDB.

A batch is applied without a transaction: the rows first, then the checkpoint, all waiting for a majority. If something
breaks in between, the checkpoint still says that the batch is missing, and it is applied again; rows are upserts. Every row
carries in `at` the offset of the batch that wrote it and is replaced only by the same or a later one, so a flush of an owner that
has been replaced cannot take a row back, however late it lands: it never reaches beyond the fence, and the new owner's rows do.

Conversations and customers lead with their tenant. Messages lead with their conversation, whose id is a keyed hash of the
customer: it spreads a large tenant, and nothing ever asks for messages but by conversation.
"""

from __future__ import annotations

import re

import msgspec
from pymongo import ReplaceOne, UpdateOne

from hub.ports import ConversationQuery, ConversationRow, CustomerRow, MessageRow, ViewBatch
from hub.storage.mongo.database import Collection, Database, Doc
from hub.storage.mongo.schema import view_name
from hub.storage.mongo.writes import insert_new, put_newer

SEQ_END = 2**62


class MongoViews:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._checkpoints = database[view_name("checkpoints")]
        self._conversations = database[view_name("conversations")]
        self._messages = database[view_name("messages")]
        self._customers = database[view_name("customers")]

    async def checkpoint(self, partition: int) -> int:
        async with self._database.answering():
            found = await self._checkpoints.find_one({"_id": partition})
        return int(found["at"]) if found else 0

    async def apply(self, batch: ViewBatch) -> None:
        if batch.upto <= await self.checkpoint(batch.partition):
            return
        at = batch.upto
        async with self._database.answering():
            await self._put_messages(batch.messages, at)
            await put_newer(self._conversations, [_replacement(row, at) for row in batch.conversations])
            await put_newer(self._customers, [_replacement(row, at) for row in batch.customers])
            reached = UpdateOne({"_id": batch.partition, "at": {"$lt": at}}, {"$set": {"at": at}}, upsert=True)
            await put_newer(self._checkpoints, [reached])

    async def _put_messages(self, rows: list[MessageRow], at: int) -> None:
        """Nearly all of them are new, and an insert is several times cheaper than an upsert."""
        if not rows:
            return
        documents = [{"conversation": m.conversation, "seq": m.seq, "at": at, "body": m.body} for m in rows]
        known = [rows[index] for index in await insert_new(self._messages, documents)]
        await put_newer(self._messages, [_newer_message(row, at) for row in known])

    async def timers(self, partition: int) -> list[tuple[str, int]]:
        query = {"partition": partition, "wake_at": {"$gt": 0}}
        async with self._database.answering():
            cursor = self._conversations.find(query, {"wake_at": 1})
            return sorted([(row["_id"], row["wake_at"]) async for row in cursor])

    async def conversation(self, tenant: str, id: str) -> bytes | None:
        return await self._body(self._conversations, {"_id": id, "tenant": tenant})

    async def conversations(self, query: ConversationQuery) -> list[ConversationRow]:
        if query.unassigned and query.assignee is not None:
            return []
        found = await self._page(self._conversations, _conversation_query(query), query.ascending, query.limit)
        return [ConversationRow(**row) for row in found]

    async def message(self, conversation: str, seq: int) -> bytes | None:
        return await self._body(self._messages, {"conversation": conversation, "seq": seq})

    async def messages(
        self, conversation: str, *, before: int | None, after: int | None, limit: int
    ) -> list[MessageRow]:
        if limit <= 0:
            return []
        between = {"$gt": -1 if after is None else after, "$lt": SEQ_END if before is None else before}
        sort = [("seq", 1 if after is not None else -1)]
        async with self._database.answering():
            cursor = self._messages.find({"conversation": conversation, "seq": between}, sort=sort, limit=limit)
            rows = [MessageRow(conversation, row["seq"], row["body"]) async for row in cursor]
        return rows if after is not None else rows[::-1]

    async def customer(self, tenant: str, id: str) -> bytes | None:
        return await self._body(self._customers, {"_id": id, "tenant": tenant})

    async def customers(
        self, tenant: str, *, text: str | None, before: tuple[int, str] | None, limit: int
    ) -> list[CustomerRow]:
        query: Doc = {"tenant": tenant, **_containing(text), **_beyond(before, ascending=False)}
        found = await self._page(self._customers, query, False, limit)
        return [CustomerRow(**row) for row in found]

    async def _body(self, collection: Collection, query: Doc) -> bytes | None:
        async with self._database.answering():
            found = await collection.find_one(query, {"body": 1})
        return found["body"] if found else None

    async def _page(self, collection: Collection, query: Doc, ascending: bool, limit: int) -> list[Doc]:
        if limit <= 0:
            return []
        order = 1 if ascending else -1
        async with self._database.answering():
            cursor = collection.find(query, {"at": 0}, sort=[("updated_at", order), ("_id", order)], limit=limit)
            return [row | {"id": row.pop("_id")} async for row in cursor]


def _newer_message(row: MessageRow, at: int) -> UpdateOne:
    key = {"conversation": row.conversation, "seq": row.seq, "at": {"$lte": at}}
    return UpdateOne(key, {"$set": {"at": at, "body": row.body}}, upsert=True)


def _replacement(row: ConversationRow | CustomerRow, at: int) -> ReplaceOne[Doc]:
    document = msgspec.structs.asdict(row)
    document["_id"] = document.pop("id")
    document["at"] = at
    # With its tenant: rows may be spread over several servers by that.
    older = {"_id": row.id, "tenant": row.tenant, "at": {"$lte": at}}
    return ReplaceOne(older, document, upsert=True)


def _conversation_query(query: ConversationQuery) -> Doc:
    wanted: Doc = {"tenant": query.tenant}
    for name in ("status", "assignee", "team", "channel", "priority", "customer"):
        value = getattr(query, name)
        if value is not None:
            wanted[name] = value
    if query.unassigned:
        wanted["assignee"] = None
    if query.label is not None:
        wanted["labels"] = query.label
    return wanted | _containing(query.text) | _beyond(query.before, query.ascending)


def _containing(text: str | None) -> Doc:
    return {"search": {"$regex": re.escape(text)}} if text else {}


def _beyond(last: tuple[int, str] | None, ascending: bool) -> Doc:
    if last is None:
        return {}
    at, id = last
    further = "$gt" if ascending else "$lt"
    # Said twice, for the index: the time bounds what is read, the rest picks among equal times.
    return {
        "updated_at": {f"{further}e": at},
        "$or": [{"updated_at": {further: at}}, {"updated_at": at, "_id": {further: id}}],
    }
