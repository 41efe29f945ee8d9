"""Opening the embedded home: create, migrate, check."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

from hub.errors import StoreUnavailable
from hub.ids import PARTITIONS_MAX
from hub.storage.sqlite.database import Database
from hub.storage.sqlite.journal import SqliteJournal
from hub.storage.sqlite.roles import SqliteCheckpoints, SqliteDocuments, SqliteSnapshots
from hub.storage.sqlite.schema import HUB_VERSION, MIGRATIONS, VIEWS, VIEWS_VERSION
from hub.storage.sqlite.views import SqliteViews

PARTITIONS_DEFAULT = 16


class SqliteStore:
    def __init__(self, hub: Database, views: Database, partitions: int) -> None:
        self._hub = hub
        self._views = views
        self.partitions = partitions
        self.journal = SqliteJournal(hub)
        self.snapshots = SqliteSnapshots(hub)
        self.checkpoints = SqliteCheckpoints(hub)
        self.documents = SqliteDocuments(hub)
        self.views = SqliteViews(views)

    @staticmethod
    async def open(directory: Path, partitions: int | None = None) -> SqliteStore:
        """Raises ValueError where the store has another partition count or a newer hub made it; StoreUnavailable."""
        try:
            return await asyncio.to_thread(_open, directory, partitions)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{directory}: {error}") from error

    async def close(self) -> None:
        await self._hub.close()
        await self._views.close()


def _open(directory: Path, partitions: int | None) -> SqliteStore:
    if partitions is not None and not 1 <= partitions <= PARTITIONS_MAX:
        raise ValueError(f"partitions got {partitions}, takes 1 to {PARTITIONS_MAX}")
    directory.mkdir(parents=True, exist_ok=True)
    hub = Database(directory / "hub.db", "FULL")
    connection = hub.connect()
    try:
        _migrate(connection)
        count = _fix_partitions(connection, partitions)
    finally:
        connection.close()
    views = Database(directory / "views.db", "NORMAL")
    _prepare_views(views)
    _sync_directory(directory)
    return SqliteStore(hub, views, count)


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        [version] = connection.execute("PRAGMA user_version").fetchone()
        if version > HUB_VERSION:
            raise ValueError(f"this store was made by a newer hub (schema {version}, ours is {HUB_VERSION})")
        for step in MIGRATIONS[version:]:
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={HUB_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _fix_partitions(connection: sqlite3.Connection, wanted: int | None) -> int:
    """The count is chosen once: every key hashes to a partition, so another count would lose them all."""
    connection.execute("BEGIN IMMEDIATE")
    row = connection.execute("SELECT value FROM meta WHERE name = 'partitions'").fetchone()
    if row is None:
        count = wanted or PARTITIONS_DEFAULT
        connection.execute("INSERT INTO meta VALUES ('partitions', ?)", (str(count),))
        connection.executemany("INSERT INTO partitions VALUES (?, 0, 1)", [(n,) for n in range(count)])
    else:
        count = int(row[0])
    connection.execute("COMMIT")
    if wanted is not None and wanted != count:
        raise ValueError(
            f"this store was created with {count} partitions, not {wanted}; the count is fixed for its life"
        )
    return count


def _prepare_views(views: Database) -> None:
    """A view store that is missing, damaged or of another version is made anew; the journal fills it again."""
    for attempt in (1, 2):
        try:
            connection = views.connect()
            try:
                _create_views(connection)
                return
            finally:
                connection.close()
        except sqlite3.OperationalError:
            raise  # locked by a busy hub, or a full disk: the views themselves are well
        except sqlite3.DatabaseError:
            if attempt == 2:
                raise
            for suffix in ("", "-wal", "-shm"):
                Path(f"{views.path}{suffix}").unlink(missing_ok=True)


def _create_views(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version != VIEWS_VERSION:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            connection.execute(f"DROP TABLE {table}")
        for statement in VIEWS.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={VIEWS_VERSION}")
    connection.execute("COMMIT")


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
