"""Snapshots, checkpoints and documents in MongoDB.

Snapshots and checkpoints ask who owns the partition and then write, in two steps: an owner that was fenced in between may still
write once. That does no harm. A snapshot holds committed events only, and never replaces a newer one. A checkpoint tells of work
really done on committed events, and never replaces one of a later epoch.
"""

from __future__ import annotations

import contextlib

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from hub.errors import StoreUnavailable
from hub.ports import Checkpoint, Claim, Document, StoredSnapshot
from hub.storage.mongo.database import Database, Doc
from hub.storage.mongo.log import MongoLog
from hub.storage.mongo.writes import put_newer

CLAIM_ATTEMPTS_MAX = 5


class Owners:
    """Whose epoch it is, as the journal's newest slots say."""

    def __init__(self, log: MongoLog) -> None:
        self._log = log

    async def owns(self, partition: int, epoch: int) -> bool:
        newest = await self._log.newest(partition)
        return newest is not None and newest.epoch == epoch


class MongoSnapshots:
    def __init__(self, database: Database, owners: Owners) -> None:
        self._database = database
        self._owners = owners

    async def save(self, partition: int, epoch: int, snapshots: list[StoredSnapshot]) -> None:
        if not await self._owners.owns(partition, epoch):
            return
        async with self._database.answering():
            await put_newer(
                self._database["snapshots"],
                [
                    UpdateOne(
                        {"_id": s.stream, "o": {"$lt": s.offset}}, {"$set": {"o": s.offset, "b": s.body}}, upsert=True
                    )
                    for s in snapshots
                ],
            )


class MongoCheckpoints:
    def __init__(self, database: Database, owners: Owners) -> None:
        self._database = database
        self._owners = owners

    async def load(self, reader: str, partition: int) -> Checkpoint:
        async with self._database.answering():
            found = await self._database["checkpoints"].find_one({"_id": f"{reader}/{partition}"})
        return Checkpoint(found["offset"], found["data"]) if found else Checkpoint(0)

    async def save(self, reader: str, partition: int, epoch: int, checkpoint: Checkpoint) -> None:
        if not await self._owners.owns(partition, epoch):
            return
        key = {"_id": f"{reader}/{partition}", "epoch": {"$lte": epoch}}
        change = {"$set": {"epoch": epoch, "offset": checkpoint.offset, "data": checkpoint.data}}
        async with self._database.answering():
            await put_newer(self._database["checkpoints"], [UpdateOne(key, change, upsert=True)])


class MongoDocuments:
    """A removed document stays as a row without a body: its revision must keep older ones away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._documents = database["documents"]
        self._claims = database["claims"]

    async def get(self, kind: str, id: str) -> Document | None:
        async with self._database.answering():
            found = await self._documents.find_one({"kind": kind, "id": id})
        return _document(found) if found and found["body"] is not None else None

    async def of_tenant(self, kind: str, tenant: str) -> list[Document]:
        async with self._database.answering():
            cursor = self._documents.find({"tenant": tenant, "kind": kind}, sort=[("id", 1)])
            return [_document(found) async for found in cursor if found["body"] is not None]

    async def put(self, documents: list[Document]) -> None:
        updates = [
            UpdateOne(
                {"kind": d.kind, "id": d.id, "revision": {"$lt": d.revision}},
                {"$set": {"tenant": d.tenant, "revision": d.revision, "body": d.body}},
                upsert=True,
            )
            for d in documents
        ]
        async with self._database.answering():
            await put_newer(self._documents, updates)

    async def remove(self, kind: str, id: str, revision: int) -> None:
        key = {"kind": kind, "id": id, "revision": {"$lte": revision}}
        change = {"$set": {"tenant": "", "revision": revision, "body": None}}
        async with self._database.answering():
            await put_newer(self._documents, [UpdateOne(key, change, upsert=True)])

    async def claim(self, kind: str, id: str, owner: str) -> str:
        async with self._database.answering():
            for _ in range(CLAIM_ATTEMPTS_MAX):
                # Two who claim at once can both try to create the row; the second attempt finds it. It is a write even
                # where it changes nothing: so it waits until a majority has what it found.
                with contextlib.suppress(DuplicateKeyError):
                    found = await self._claims.find_one_and_update(
                        {"kind": kind, "id": id}, {"$setOnInsert": {"owner": owner}}, upsert=True, return_document=True
                    )
                    if found is not None:
                        return str(found["owner"])
        raise StoreUnavailable(f"{kind} {id} is being claimed again and again", retry_after_s=0.1)

    async def owner(self, kind: str, id: str) -> str | None:
        async with self._database.answering():
            found = await self._claims.find_one({"kind": kind, "id": id})
        return str(found["owner"]) if found else None

    async def all(self, after: tuple[str, str], limit: int) -> list[Document]:
        async with self._database.answering():
            cursor = self._documents.find({**_beyond(after), "body": {"$ne": None}}, sort=_BY_NAME, limit=max(limit, 1))
            return [_document(found) async for found in cursor][:limit]

    async def claims(self, after: tuple[str, str], limit: int) -> list[Claim]:
        async with self._database.answering():
            cursor = self._claims.find(_beyond(after), sort=_BY_NAME, limit=max(limit, 1))
            return [Claim(found["kind"], found["id"], found["owner"]) async for found in cursor][:limit]


_BY_NAME = [("kind", 1), ("id", 1)]


def _beyond(after: tuple[str, str]) -> Doc:
    kind, id = after
    return {"$or": [{"kind": {"$gt": kind}}, {"kind": kind, "id": {"$gt": id}}]}


def _document(found: Doc) -> Document:
    return Document(found["kind"], found["id"], found["tenant"], found["revision"], found["body"])
