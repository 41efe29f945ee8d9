"""Collections, indexes, and how a database of an earlier version becomes one of this version.

`MIGRATIONS[n]` takes it from version n + 1 to n + 2; the list only ever grows. A step may be run by several processes at once and
again after a crash, so each must be one that can be: add, fill in what is missing, drop what is unused. Views have no migrations: they
live in collections named by `VIEWS_VERSION`, so those of another version are simply not these, and the journal fills these.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError, OperationFailure

from hub.errors import StoreUnavailable
from hub.ids import PARTITIONS_MAX
from hub.storage.mongo.database import Database, Doc

PARTITIONS_DEFAULT = 16
VIEWS_VERSION = 1
CREATE_ATTEMPTS_MAX = 5
INDEX_CONFLICT_CODES = (85, 86)

Migration = Callable[[Database], Awaitable[None]]
MIGRATIONS: tuple[Migration, ...] = ()


def view_name(rows: str) -> str:
    return f"views{VIEWS_VERSION}_{rows}"


class Index:
    def __init__(self, collection: str, name: str, *fields: str, **options: Any) -> None:
        self.collection = collection
        self.name = name
        self.keys = [(field, 1) for field in fields]
        self.options = options

    def model(self) -> IndexModel:
        return IndexModel(self.keys, name=self.name, **self.options)

    def is_like(self, found: Doc) -> bool:
        partial = found.get("partialFilterExpression")
        return (
            [(field, int(order)) for field, order in found["key"]] == self.keys
            and bool(found.get("unique")) == bool(self.options.get("unique"))
            and (dict(partial) if partial else None) == self.options.get("partialFilterExpression")
        )


INDEXES = (
    Index("journal", "by_slot", "p", "n"),
    Index("journal", "by_offset", "p", "l"),
    Index("journal", "by_stream", "p", "r.s", "l"),
    Index("journal_parts", "by_slot", "n"),
    Index("documents", "by_name", "kind", "id", unique=True),
    Index("documents", "by_tenant", "tenant", "kind", "id"),
    Index("claims", "by_name", "kind", "id", unique=True),
    Index(view_name("conversations"), "newest", "tenant", "updated_at", "_id"),
    Index(view_name("conversations"), "status", "tenant", "status", "updated_at", "_id"),
    Index(view_name("conversations"), "customer", "tenant", "customer", "updated_at", "_id"),
    Index(view_name("conversations"), "wake", "partition", "wake_at", partialFilterExpression={"wake_at": {"$gt": 0}}),
    Index(view_name("messages"), "by_seq", "conversation", "seq", unique=True),
    Index(view_name("customers"), "newest", "tenant", "updated_at", "_id"),
)


async def prepare(database: Database, partitions: int | None, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Create, migrate, check. The partition count. Raises ValueError, in one line, for a database that does not fit."""
    if partitions is not None and not 1 <= partitions <= PARTITIONS_MAX:
        raise ValueError(f"partitions got {partitions}, takes 1 to {PARTITIONS_MAX}")
    ours = len(migrations) + 1
    async with database.opening():
        about = await _about(database, {"schema": ours, "partitions": partitions or PARTITIONS_DEFAULT})
        if about["schema"] > ours:
            raise ValueError(f"this store was made by a newer hub (schema {about['schema']}, ours is {ours})")
        count = int(about["partitions"])
        if partitions is not None and partitions != count:
            raise ValueError(
                f"this store was created with {count} partitions, not {partitions}; the count is fixed for its life"
            )
        for version in range(about["schema"], ours):
            await migrations[version - 1](database)
            await database["meta"].update_one({"_id": "store", "schema": version}, {"$set": {"schema": version + 1}})
        await _prepare_indexes(database)
        await _drop_older_views(database)
    return count


async def _about(database: Database, new: Doc) -> Doc:
    """What the database says of itself, or `new` where it was empty: whoever comes first decides."""
    for _ in range(CREATE_ATTEMPTS_MAX):
        # Several may create it at once; the next attempt finds it.
        with contextlib.suppress(DuplicateKeyError):
            found = await database["meta"].find_one_and_update(
                {"_id": "store"}, {"$setOnInsert": new}, upsert=True, return_document=True
            )
            if found is not None:
                return found
    raise StoreUnavailable("the store is being created by too many at once", retry_after_s=0.1)


async def _prepare_indexes(database: Database) -> None:
    for collection in dict.fromkeys(index.collection for index in INDEXES):
        wanted = [index for index in INDEXES if index.collection == collection]
        try:
            await database[collection].create_indexes([index.model() for index in wanted])
        except OperationFailure as error:
            if error.code not in INDEX_CONFLICT_CODES:
                raise
        there = await database[collection].index_information()
        for index in wanted:
            if index.name not in there or not index.is_like(there[index.name]):
                raise ValueError(
                    f"{collection} in MongoDB has another index in place of {index.name} on "
                    f"{', '.join(field for field, _ in index.keys)}; drop that one and start again"
                )


async def _drop_older_views(database: Database) -> None:
    """Those of a newer hub stay: it may be running."""
    for name in await database.collections():
        match = re.fullmatch(r"views(\d+)_[a-z]+", name)
        if match and int(match[1]) < VIEWS_VERSION:
            await database[name].drop()
