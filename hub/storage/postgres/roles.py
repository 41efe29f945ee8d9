"""Snapshots, checkpoints and documents in PostgreSQL."""

from __future__ import annotations

from hub.ports import Checkpoint, Claim, Document, StoredSnapshot
from hub.storage.postgres.database import Database, storable

_OWNED = "EXISTS (SELECT FROM hub.partitions WHERE id = $1 AND epoch = $2)"
_SAVE_SNAPSHOTS = f"""
INSERT INTO hub.snapshots AS known (stream, "offset", body)
SELECT DISTINCT ON (s.stream) * FROM unnest($3::text[], $4::bigint[], $5::bytea[]) AS s (stream, "offset", body)
WHERE {_OWNED} ORDER BY s.stream, s."offset" DESC
ON CONFLICT (stream) DO UPDATE SET "offset" = excluded."offset", body = excluded.body
WHERE excluded."offset" > known."offset"
"""
# The row remembers its epoch: a late save of an earlier owner cannot undo one of the owner after it.
_SAVE_CHECKPOINT = f"""
INSERT INTO hub.checkpoints AS known (reader, partition, epoch, "offset", data)
SELECT $3::text, $1::integer, $2::bigint, $4::bigint, $5::bytea WHERE {_OWNED}
ON CONFLICT (reader, partition) DO UPDATE SET epoch = excluded.epoch, "offset" = excluded."offset", data = excluded.data
WHERE excluded.epoch >= known.epoch
"""
_DOCUMENT = "SELECT kind, id, tenant, revision, body FROM hub.documents WHERE body IS NOT NULL AND"
_PUT = """
INSERT INTO hub.documents AS known (kind, id, tenant, revision, body)
SELECT DISTINCT ON (d.kind, d.id) *
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[]) AS d (kind, id, tenant, revision, body)
ORDER BY d.kind, d.id, d.revision DESC
ON CONFLICT (kind, id) DO UPDATE SET tenant = excluded.tenant, revision = excluded.revision, body = excluded.body
WHERE excluded.revision > known.revision
"""
_REMOVE = """
INSERT INTO hub.documents AS known (kind, id, tenant, revision, body) VALUES ($1, $2, '', $3, NULL)
ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision, body = NULL WHERE excluded.revision >= known.revision
"""
# The update changes nothing; it waits for a claim under way and returns the row that won.
_CLAIM = """
INSERT INTO hub.claims AS known (kind, id, owner) VALUES ($1, $2, $3)
ON CONFLICT (kind, id) DO UPDATE SET owner = known.owner RETURNING owner
"""


class PostgresSnapshots:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def save(self, partition: int, epoch: int, snapshots: list[StoredSnapshot]) -> None:
        columns = [s.stream for s in snapshots], [s.offset for s in snapshots], [s.body for s in snapshots]
        await self._db.write(_SAVE_SNAPSHOTS, partition, epoch, *columns, rows=len(snapshots))


class PostgresCheckpoints:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def load(self, reader: str, partition: int) -> Checkpoint:
        sql = 'SELECT "offset", data FROM hub.checkpoints WHERE reader = $1 AND partition = $2'
        row = await self._db.row(sql, reader, partition)
        return Checkpoint(*row) if row else Checkpoint(0)

    async def save(self, reader: str, partition: int, epoch: int, checkpoint: Checkpoint) -> None:
        await self._db.write(_SAVE_CHECKPOINT, partition, epoch, reader, checkpoint.offset, checkpoint.data)


class PostgresDocuments:
    """A removed document stays as a row without a body: its revision must keep older ones away."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def get(self, kind: str, id: str) -> Document | None:
        row = await self._db.row(f"{_DOCUMENT} kind = $1 AND id = $2", kind, storable(id))
        return Document(*row) if row else None

    async def of_tenant(self, kind: str, tenant: str) -> list[Document]:
        sql = f"{_DOCUMENT} kind = $1 AND tenant = $2 ORDER BY kind, tenant, id"
        return [Document(*row) for row in await self._db.fetch(sql, kind, tenant)]

    async def all(self, after: tuple[str, str], limit: int) -> list[Document]:
        sql = f"{_DOCUMENT} (kind, id) > ($1, $2) ORDER BY kind, id LIMIT $3"
        return [Document(*row) for row in await self._db.fetch(sql, *after, limit)]

    async def put(self, documents: list[Document]) -> None:
        columns = (
            [d.kind for d in documents],
            [storable(d.id) for d in documents],
            [d.tenant for d in documents],
            [d.revision for d in documents],
            [d.body for d in documents],
        )
        await self._db.write(_PUT, *columns, rows=len(documents))

    async def remove(self, kind: str, id: str, revision: int) -> None:
        await self._db.write(_REMOVE, kind, storable(id), revision)

    async def claim(self, kind: str, id: str, owner: str) -> str:
        row = await self._db.write(_CLAIM, kind, storable(id), owner)
        assert row is not None
        return str(row[0])

    async def claims(self, after: tuple[str, str], limit: int) -> list[Claim]:
        sql = "SELECT kind, id, owner FROM hub.claims WHERE (kind, id) > ($1, $2) ORDER BY kind, id LIMIT $3"
        return [Claim(*row) for row in await self._db.fetch(sql, *after, limit)]

    async def owner(self, kind: str, id: str) -> str | None:
        row = await self._db.row("SELECT owner FROM hub.claims WHERE kind = $1 AND id = $2", kind, storable(id))
        return str(row[0]) if row else None
