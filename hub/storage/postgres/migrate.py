"""Bringing a database to this version of the schema while other processes use it, one process at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

import asyncpg
import msgspec

from hub.errors import StoreUnavailable
from hub.storage.postgres.database import COMMAND_TIMEOUT_S, Connection
from hub.storage.postgres.schema import (
    HUB_VERSION,
    MIGRATIONS,
    VIEWS,
    VIEWS_KEPT,
    VIEWS_SCHEMA,
    VIEWS_VERSION,
    Migration,
    views_schema,
)

log = logging.getLogger("hub.postgres")

PARTITIONS_DEFAULT = 16
SERVER_VERSION_MIN = 14
MIGRATION_KEY = 0x636F636F6C75
"""Of the advisory lock that one process holds while it changes the schema."""
MIGRATION_WAIT_TIMEOUT_S = 600.0
MIGRATION_POLL_S = 0.05
LOCK_TIMEOUT_MS = 200
"""A change that waits for a table makes everybody behind it wait too: it gives up soon, and tries again."""
LOCK_BACKOFF_S = 0.1
LOCK_TRIES_MAX_COUNT = 300


class _State(msgspec.Struct, frozen=True):
    version: int
    views: bool
    partitions: int | None

    @property
    def ready(self) -> bool:
        return self.version == HUB_VERSION and self.views and self.partitions is not None


async def prepare(connection: Connection, wanted: int | None) -> int:
    """The store's partition count, once everything is there. Raises ValueError where it cannot be ours."""
    async with asyncio.timeout(COMMAND_TIMEOUT_S):
        await _check_server(connection)
        state = await _state(connection)
    if state.ready:
        assert state.partitions is not None
        count = state.partitions
    else:
        async with _alone(connection):
            await migrate(connection)
            await _create_views(connection)
            count = await _fix_partitions(connection, wanted)
    if wanted is not None and wanted != count:
        raise ValueError(
            f"this store was created with {count} partitions, not {wanted}; the count is fixed for its life"
        )
    return count


async def _check_server(connection: Connection) -> None:
    version = connection.get_server_version().major
    if version < SERVER_VERSION_MIN:
        raise ValueError(f"the PostgreSQL server is version {version}: the hub takes {SERVER_VERSION_MIN} or newer")
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise ValueError(f"the database has encoding {encoding}: create one with ENCODING 'UTF8'")
    for name in ("fsync", "full_page_writes"):
        if await connection.fetchval("SELECT current_setting($1)", name) != "on":
            raise ValueError(
                f"the PostgreSQL server has {name} = off, so a power cut may lose what it acknowledged: "
                f"set {name} = on in postgresql.conf and reload it"
            )


async def _state(connection: Connection) -> _State:
    if await connection.fetchval("SELECT to_regclass('hub.meta')") is None:
        return _State(0, False, None)
    rows: dict[str, str] = dict(await connection.fetch("SELECT name, value FROM hub.meta"))
    version = int(rows.get("schema", 0))
    if version > HUB_VERSION:
        raise ValueError(f"this store was made by a newer hub (schema {version}, ours is {HUB_VERSION})")
    views = await connection.fetchval(f"SELECT to_regclass('{VIEWS_SCHEMA}.customers')") is not None
    return _State(version, views, int(rows["partitions"]) if "partitions" in rows else None)


@contextlib.asynccontextmanager
async def _alone(connection: Connection) -> AsyncIterator[None]:
    """Asked for again and again instead of waited for: an index that is built while the store is in use waits for
    every statement that began before it, one that waits for this lock included."""
    deadline = time.monotonic() + MIGRATION_WAIT_TIMEOUT_S
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", MIGRATION_KEY):
        if time.monotonic() > deadline:
            raise StoreUnavailable("another process is still changing the schema of this store")
        await asyncio.sleep(MIGRATION_POLL_S)
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", MIGRATION_KEY)


async def migrate(connection: Connection, upto: int = HUB_VERSION) -> None:
    """Take the next step until the store has version `upto`. The caller is alone."""
    state = await _state(connection)
    for version in range(state.version, upto):
        migration = MIGRATIONS[version]
        log.info("changing the schema of the store from version %d to %d", version, version + 1)
        if migration.in_transaction:
            await _step(connection, (*migration.statements, _set_version(version + 1)))
        else:
            await _step_in_use(connection, migration, version + 1)


def _set_version(version: int) -> str:
    return (
        f"INSERT INTO hub.meta (name, value) VALUES ('schema', '{version}') "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    )


async def _step(connection: Connection, statements: tuple[str, ...]) -> None:
    """All of it or nothing, and never in anybody's way for long."""
    for _ in range(LOCK_TRIES_MAX_COUNT):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
                for statement in statements:
                    await connection.execute(statement)
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(LOCK_BACKOFF_S)
    raise StoreUnavailable("the schema cannot be changed: another transaction keeps a table of the hub locked")


async def _step_in_use(connection: Connection, migration: Migration, version: int) -> None:
    for statement in migration.statements:
        await connection.execute(statement)
    await connection.execute(_set_version(version))


async def _create_views(connection: Connection) -> None:
    """Those of this version, empty: the journal fills them. Of earlier versions the newest ones stay."""
    if await connection.fetchval(f"SELECT to_regclass('{VIEWS_SCHEMA}.customers')") is None:
        await _step(connection, (f"DROP SCHEMA IF EXISTS {VIEWS_SCHEMA} CASCADE", *VIEWS))
    for version in range(1, VIEWS_VERSION - VIEWS_KEPT):
        await _step(connection, (f"DROP SCHEMA IF EXISTS {views_schema(version)} CASCADE",))


async def _fix_partitions(connection: Connection, wanted: int | None) -> int:
    """The count is chosen once: every key hashes to a partition, so another count would lose them all."""
    async with connection.transaction():
        known = await connection.fetchval("SELECT value FROM hub.meta WHERE name = 'partitions'")
        if known is not None:
            return int(known)
        count = wanted or PARTITIONS_DEFAULT
        await connection.execute("INSERT INTO hub.meta (name, value) VALUES ('partitions', $1)", str(count))
        await connection.execute(
            "INSERT INTO hub.partitions (id, epoch, next_offset) SELECT n, 0, 1 FROM generate_series(0, $1 - 1) AS n",
            count,
        )
    return count
