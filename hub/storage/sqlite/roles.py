"""Snapshots, checkpoints and documents in SQLite."""

from __future__ import annotations

import sqlite3

from hub.ports import Checkpoint, Claim, Document, StoredSnapshot
from hub.storage.sqlite.database import Database


def _owns(connection: sqlite3.Connection, partition: int, epoch: int) -> bool:
    row = connection.execute("SELECT epoch FROM partitions WHERE id = ?", (partition,)).fetchone()
    return row is not None and row[0] == epoch


class SqliteSnapshots:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def save(self, partition: int, epoch: int, snapshots: list[StoredSnapshot]) -> None:
        sql = (
            "INSERT INTO snapshots VALUES (?, ?, ?) ON CONFLICT (stream) DO UPDATE SET "
            "offset = excluded.offset, body = excluded.body WHERE excluded.offset > snapshots.offset"
        )

        def work(connection: sqlite3.Connection) -> None:
            if _owns(connection, partition, epoch):
                connection.executemany(sql, [(s.stream, s.offset, s.body) for s in snapshots])

        await self._db.write(work)


class SqliteCheckpoints:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def load(self, reader: str, partition: int) -> Checkpoint:
        sql = "SELECT offset, data FROM checkpoints WHERE reader = ? AND partition = ?"
        row = await self._db.read(lambda connection: connection.execute(sql, (reader, partition)).fetchone())
        return Checkpoint(*row) if row else Checkpoint(0)

    async def save(self, reader: str, partition: int, epoch: int, checkpoint: Checkpoint) -> None:
        def work(connection: sqlite3.Connection) -> None:
            if _owns(connection, partition, epoch):
                row = (reader, partition, checkpoint.offset, checkpoint.data)
                connection.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)", row)

        await self._db.write(work)


class SqliteDocuments:
    """A removed document stays as a row without a body: its revision must keep older ones away."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def get(self, kind: str, id: str) -> Document | None:
        sql = "SELECT kind, id, tenant, revision, body FROM documents WHERE kind = ? AND id = ? AND body IS NOT NULL"
        row = await self._db.read(lambda connection: connection.execute(sql, (kind, id)).fetchone())
        return Document(*row) if row else None

    async def of_tenant(self, kind: str, tenant: str) -> list[Document]:
        sql = (
            "SELECT kind, id, tenant, revision, body FROM documents "
            "WHERE kind = ? AND tenant = ? AND body IS NOT NULL ORDER BY id"
        )
        return await self._db.read(
            lambda connection: [Document(*row) for row in connection.execute(sql, (kind, tenant))]
        )

    async def put(self, documents: list[Document]) -> None:
        rows = [(d.kind, d.id, d.tenant, d.revision, d.body) for d in documents]
        await self._db.write(lambda connection: connection.executemany(_PUT, rows))

    async def remove(self, kind: str, id: str, revision: int) -> None:
        sql = (
            "INSERT INTO documents VALUES (?, ?, '', ?, NULL) ON CONFLICT (kind, id) DO UPDATE SET "
            "revision = excluded.revision, body = NULL WHERE excluded.revision >= documents.revision"
        )
        await self._db.write(lambda connection: connection.execute(sql, (kind, id, revision)))

    async def claim(self, kind: str, id: str, owner: str) -> str:
        def work(connection: sqlite3.Connection) -> str:
            connection.execute("INSERT OR IGNORE INTO claims VALUES (?, ?, ?)", (kind, id, owner))
            return str(connection.execute(_OWNER, (kind, id)).fetchone()[0])

        return await self._db.write(work)

    async def owner(self, kind: str, id: str) -> str | None:
        row = await self._db.read(lambda connection: connection.execute(_OWNER, (kind, id)).fetchone())
        return str(row[0]) if row else None

    async def all(self, after: tuple[str, str], limit: int) -> list[Document]:
        sql = (
            "SELECT kind, id, tenant, revision, body FROM documents "
            "WHERE (kind, id) > (?, ?) AND body IS NOT NULL ORDER BY kind, id LIMIT ?"
        )
        return await self._db.read(
            lambda connection: [Document(*row) for row in connection.execute(sql, (*after, limit))]
        )

    async def claims(self, after: tuple[str, str], limit: int) -> list[Claim]:
        sql = "SELECT kind, id, owner FROM claims WHERE (kind, id) > (?, ?) ORDER BY kind, id LIMIT ?"
        return await self._db.read(lambda connection: [Claim(*row) for row in connection.execute(sql, (*after, limit))])


_OWNER = "SELECT owner FROM claims WHERE kind = ? AND id = ?"
_PUT = (
    "INSERT INTO documents VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, id) DO UPDATE SET "
    "tenant = excluded.tenant, revision = excluded.revision, body = excluded.body "
    "WHERE excluded.revision > documents.revision"
)
