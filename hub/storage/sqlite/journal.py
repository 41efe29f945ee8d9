"""The journal in SQLite: a row an event, a transaction a group commit."""

from __future__ import annotations

import sqlite3

from hub.errors import Fenced
from hub.ports import Append, Ownership, StoredKey, StoredRecord, StoredSnapshot, StreamImage
from hub.storage.sqlite.database import Database

NAMES_MAX_PER_QUERY = 400


class SqliteJournal:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def acquire(self, partition: int, expected_epoch: int | None = None) -> Ownership:
        def work(connection: sqlite3.Connection) -> Ownership | None:
            [row] = connection.execute("SELECT epoch, next_offset FROM partitions WHERE id = ?", (partition,))
            if expected_epoch is not None and row[0] != expected_epoch:
                return None
            connection.execute("UPDATE partitions SET epoch = epoch + 1 WHERE id = ?", (partition,))
            return Ownership(row[0] + 1, row[1])

        owned = await self._db.write(work)
        if owned is None:
            raise Fenced
        return owned

    async def append(self, appends: list[Append]) -> list[bool]:
        return await self._db.write(lambda connection: [_append(connection, append) for append in appends])

    async def read(self, partition: int, after: int, limit: int) -> list[StoredRecord]:
        sql = "SELECT offset, stream, body FROM journal WHERE partition = ? AND offset > ? ORDER BY offset LIMIT ?"
        return await self._records(sql, (partition, after, limit))

    async def history(self, partition: int, stream: str, after: int, limit: int) -> list[StoredRecord]:
        sql = (
            "SELECT offset, stream, body FROM journal INDEXED BY journal_stream WHERE stream = ? AND offset > ? AND partition = ? "
            "ORDER BY offset LIMIT ?"
        )
        return await self._records(sql, (stream, after, partition, limit))

    async def _records(self, sql: str, values: tuple[object, ...]) -> list[StoredRecord]:
        return await self._db.read(lambda connection: [StoredRecord(*row) for row in connection.execute(sql, values)])

    async def head(self, partition: int) -> int:
        sql = "SELECT next_offset - 1 FROM partitions WHERE id = ?"
        return await self._db.read(lambda connection: int(connection.execute(sql, (partition,)).fetchone()[0]))

    async def load(self, partition: int, streams: list[str]) -> list[StreamImage]:
        return await self._db.read(lambda connection: _load(connection, partition, streams))

    async def keys(self, streams: list[str]) -> dict[str, bytes]:
        return await self._db.read(lambda connection: _keys(connection, streams))

    async def stream_keys(self, after: str, limit: int) -> list[StoredKey]:
        sql = "SELECT stream, wrapped FROM stream_keys WHERE stream > ? ORDER BY stream LIMIT ?"
        return await self._db.read(
            lambda connection: [StoredKey(*row) for row in connection.execute(sql, (after, limit))]
        )

    async def erase_key(self, stream: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM stream_keys WHERE stream = ?", (stream,))
            connection.execute("DELETE FROM snapshots WHERE stream = ?", (stream,))

        await self._db.write(work)


def _append(connection: sqlite3.Connection, append: Append) -> bool:
    first = append.first_offset
    fits = connection.execute(
        "UPDATE partitions SET next_offset = ? WHERE id = ? AND epoch = ? AND next_offset = ?",
        (first + len(append.records), append.partition, append.epoch, first),
    )
    if fits.rowcount != 1:
        return False
    if append.keys:
        rows = [(key.stream, key.wrapped) for key in append.keys]
        connection.executemany("INSERT OR REPLACE INTO stream_keys VALUES (?, ?)", rows)
    partition = append.partition
    records = [(partition, record.offset, record.stream, record.body) for record in append.records]
    connection.executemany("INSERT INTO journal VALUES (?, ?, ?, ?)", records)
    return True


def _load(connection: sqlite3.Connection, partition: int, streams: list[str]) -> list[StreamImage]:
    keys = _keys(connection, streams)
    images = []
    for stream in streams:
        key = keys.get(stream)
        if key is None:
            # No key: a stream nobody ever wrote to, or an erased one, whose skeleton must still be replayed.
            snapshot = None
        else:
            row = connection.execute("SELECT offset, body FROM snapshots WHERE stream = ?", (stream,)).fetchone()
            snapshot = StoredSnapshot(stream, *row) if row else None
        sql = "SELECT offset, stream, body FROM journal INDEXED BY journal_stream WHERE stream = ? AND offset > ? AND partition = ? ORDER BY offset"
        rows = connection.execute(sql, (stream, snapshot.offset if snapshot else 0, partition))
        images.append(StreamImage(key, snapshot, [StoredRecord(*row) for row in rows]))
    return images


def _keys(connection: sqlite3.Connection, streams: list[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for start in range(0, len(streams), NAMES_MAX_PER_QUERY):
        some = streams[start : start + NAMES_MAX_PER_QUERY]
        marks = ",".join("?" * len(some))
        found.update(connection.execute(f"SELECT stream, wrapped FROM stream_keys WHERE stream IN ({marks})", some))
    return found
