"""The journal in PostgreSQL: a row an event, one statement a group commit.

One statement is one transaction that begins and ends on the server, so a process that is stopped in the middle of an
append holds no lock. It moves `partitions.next_offset` first: a row lock that makes `acquire` wait for an append
under way, and makes the append that comes after an `acquire` see that its epoch is over.
"""

from __future__ import annotations

from collections.abc import Iterable

import asyncpg

from hub.errors import Fenced
from hub.ports import Append, Ownership, StoredKey, StoredRecord, StoredSnapshot, StreamImage
from hub.storage.postgres.database import Connection, Database

_APPEND = """
WITH wanted AS (
    SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[]) AS w (id, epoch, first_offset, next_offset)
), fitted AS (
    UPDATE hub.partitions AS p SET next_offset = w.next_offset FROM wanted AS w
    WHERE p.id = w.id AND p.epoch = w.epoch AND p.next_offset = w.first_offset RETURNING p.id
), written AS (
    INSERT INTO hub.journal (partition, "offset", stream, body)
    SELECT * FROM unnest($5::integer[], $6::bigint[], $7::text[], $8::bytea[]) AS r (partition, "offset", stream, body)
    WHERE r.partition = ANY (ARRAY(SELECT id FROM fitted))
), keyed AS (
    INSERT INTO hub.stream_keys (stream, wrapped)
    SELECT k.stream, k.wrapped FROM unnest($9::integer[], $10::text[], $11::bytea[]) AS k (partition, stream, wrapped)
    WHERE k.partition = ANY (ARRAY(SELECT id FROM fitted))
    ON CONFLICT (stream) DO UPDATE SET wrapped = excluded.wrapped
)
SELECT id FROM fitted
"""
_ACQUIRE = (
    "UPDATE hub.partitions SET epoch = epoch + 1 WHERE id = $1 AND ($2::bigint IS NULL OR epoch = $2) "
    "RETURNING epoch, next_offset"
)
# LATERAL keeps it a look-up by stream for each, whatever the planner believes of the tables' sizes.
_LOAD = """
SELECT s.stream, k.wrapped, n."offset", n.body, r.offsets, r.bodies
FROM unnest($2::text[]) WITH ORDINALITY AS s (stream, place)
LEFT JOIN LATERAL (SELECT wrapped FROM hub.stream_keys WHERE stream = s.stream LIMIT 1) AS k ON true
LEFT JOIN LATERAL (
    SELECT "offset", body FROM hub.snapshots WHERE stream = s.stream AND k.wrapped IS NOT NULL LIMIT 1
) AS n ON true
LEFT JOIN LATERAL (
    SELECT array_agg(j."offset" ORDER BY j."offset") AS offsets, array_agg(j.body ORDER BY j."offset") AS bodies
    FROM hub.journal AS j WHERE j.partition = $1 AND j.stream = s.stream AND j."offset" > coalesce(n."offset", 0)
) AS r ON true
ORDER BY s.place
"""
_ERASE = """
WITH unkeyed AS (DELETE FROM hub.stream_keys WHERE stream = $1) DELETE FROM hub.snapshots WHERE stream = $1
"""


class PostgresJournal:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def acquire(self, partition: int, expected_epoch: int | None = None) -> Ownership:
        row = await self._db.write(_ACQUIRE, partition, expected_epoch)
        if row is None:
            raise Fenced
        return Ownership(*row)

    async def append(self, appends: list[Append]) -> list[bool]:
        values = _columns(appends)

        async def work(connection: Connection) -> list[asyncpg.Record]:
            found: list[asyncpg.Record] = await connection.fetch(_APPEND, *values)
            return found

        fitted = {row[0] for row in await self._db.appends.run(work, rows=len(values[5]))}
        return [append.partition in fitted for append in appends]

    async def read(self, partition: int, after: int, limit: int) -> list[StoredRecord]:
        sql = 'SELECT "offset", stream, body FROM hub.journal WHERE partition = $1 AND "offset" > $2 ORDER BY "offset" LIMIT $3'
        return [StoredRecord(*row) for row in await self._db.fetch(sql, partition, after, limit)]

    async def history(self, partition: int, stream: str, after: int, limit: int) -> list[StoredRecord]:
        sql = (
            'SELECT "offset", stream, body FROM hub.journal WHERE partition = $1 AND stream = $2 AND "offset" > $3 '
            'ORDER BY stream, "offset" LIMIT $4'
        )
        return [StoredRecord(*row) for row in await self._db.fetch(sql, partition, stream, after, limit)]

    async def head(self, partition: int) -> int:
        row = await self._db.row("SELECT next_offset - 1 FROM hub.partitions WHERE id = $1", partition)
        return int(row[0]) if row else 0

    async def load(self, partition: int, streams: list[str]) -> list[StreamImage]:
        return [_image(row) for row in await self._db.fetch(_LOAD, partition, streams)]

    async def keys(self, streams: list[str]) -> dict[str, bytes]:
        sql = "SELECT stream, wrapped FROM hub.stream_keys WHERE stream = ANY ($1::text[])"
        return dict(await self._db.fetch(sql, streams))

    async def stream_keys(self, after: str, limit: int) -> list[StoredKey]:
        sql = "SELECT stream, wrapped FROM hub.stream_keys WHERE stream > $1 ORDER BY stream LIMIT $2"
        return [StoredKey(*row) for row in await self._db.fetch(sql, after, limit)]

    async def erase_key(self, stream: str) -> None:
        await self._db.write(_ERASE, stream)


def _columns(appends: list[Append]) -> tuple[list[object], ...]:
    """The arguments of `_APPEND`: four columns of partitions, four of records, three of keys."""
    records = [(append.partition, record) for append in appends for record in append.records]
    # A statement may touch a row once: of two keys for one stream the last one counts, as if they had come in turn.
    keys = {key.stream: (append.partition, key.wrapped) for append in appends for key in append.keys}
    return (
        [append.partition for append in appends],
        [append.epoch for append in appends],
        [append.first_offset for append in appends],
        [append.first_offset + len(append.records) for append in appends],
        [partition for partition, _ in records],
        [record.offset for _, record in records],
        [record.stream for _, record in records],
        [record.body for _, record in records],
        [partition for partition, _ in keys.values()],
        list(keys),
        [wrapped for _, wrapped in keys.values()],
    )


def _image(row: Iterable[object]) -> StreamImage:
    stream, key, offset, body, offsets, bodies = row
    snapshot = StoredSnapshot(stream, offset, body) if offset is not None else None  # type: ignore[arg-type]
    found = zip(offsets or (), bodies or (), strict=True)  # type: ignore[call-overload]
    return StreamImage(key, snapshot, [StoredRecord(at, stream, record) for at, record in found])  # type: ignore[arg-type]
