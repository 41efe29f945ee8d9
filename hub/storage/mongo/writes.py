"""Writes that the same row, written by two at once, cannot take backwards."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo import ReplaceOne, UpdateOne
from pymongo.errors import BulkWriteError

from hub.storage.mongo.database import Collection, Doc

DUPLICATE_KEY = 11000
ROWS_PER_CALL = 500
"""So few that a slow server answers each call in time, however much there is to write."""


def duplicates(error: BulkWriteError) -> list[int]:
    """Positions of the documents refused because their key exists. Raises `error` where that is not all that went wrong."""
    details = error.details
    refused = details["writeErrors"]
    if details.get("writeConcernErrors") or any(one["code"] != DUPLICATE_KEY for one in refused):
        raise error
    return [one["index"] for one in refused]


async def insert_new(collection: Collection, documents: list[Doc]) -> list[int]:
    """Insert what is not there; the positions of what is."""
    known: list[int] = []
    for first in range(0, len(documents), ROWS_PER_CALL):
        try:
            await collection.insert_many(documents[first : first + ROWS_PER_CALL], ordered=False)
        except BulkWriteError as error:
            known += [first + index for index in duplicates(error)]
    return known


async def put_newer(collection: Collection, updates: Sequence[UpdateOne | ReplaceOne[Doc]]) -> None:
    """Upserts, each of which names its row's key and matches only while what is stored is older.

    A row that exists and does not match is refused as a duplicate: it is newer, and stays. But two who create a row at
    once can both be refused so once; the second attempt finds the row and compares.
    """
    for first in range(0, len(updates), ROWS_PER_CALL):
        left = updates[first : first + ROWS_PER_CALL]
        for _ in range(2):
            try:
                await collection.bulk_write(left, ordered=False)
                break
            except BulkWriteError as error:
                left = [left[index] for index in duplicates(error)]
