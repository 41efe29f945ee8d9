"""Connections to one PostgreSQL database, in lanes, so that a commit never queues behind a list.

Whatever goes wrong on a connection ends it: the next call opens a new one. So a restarted server needs no care,
and a call whose outcome is unknown can leave nothing behind for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias, TypeVar

import asyncpg

from hub.errors import StoreUnavailable
from hub.storage.postgres.address import Address

log = logging.getLogger("hub.postgres")

COMMAND_TIMEOUT_S = 4.0
"""From asking to the answer, waiting for a connection and opening it included."""
ROWS_PER_S_MIN = 10_000
"""A call that carries rows may take longer by so much."""
SERVER_TIMEOUT_MS = 15_000
"""The server itself ends what takes longer, and lets go of the locks of a client that stands still."""
DISCONNECT_CHECK_MS = 1_000
CLOSE_TIMEOUT_S = 2.0
RETRY_AFTER_S = 0.5
APPEND_CONNECTIONS = 1
WRITE_CONNECTIONS = 2
READ_CONNECTIONS = 4
WAITING_MAX_COUNT = 256
"""Callers that wait for a connection of one lane; more are refused at once."""

# Durable when it returns. Every question of ours is answered along an index in its order: without these the planner
# of a young store, which has no statistics yet, reads and sorts all of a tenant for one page.
SETTINGS = {
    "application_name": "cocolu-hub",
    "synchronous_commit": "on",
    "client_min_messages": "error",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "standard_conforming_strings": "on",
}
# Not every version of the server knows each of these.
LIMITS = {
    "statement_timeout": SERVER_TIMEOUT_MS,
    "transaction_timeout": SERVER_TIMEOUT_MS,
    "idle_in_transaction_session_timeout": SERVER_TIMEOUT_MS,
    "client_connection_check_interval": DISCONNECT_CHECK_MS,
}
_LIMIT = (
    "SELECT set_config(name, wanted, false) FROM unnest($1::text[], $2::text[]) AS w (name, wanted) "
    "JOIN pg_settings USING (name)"
)
# SQLSTATE classes of what no retry will heal: data, constraints, syntax and names, our own internals.
DEFECT_CLASSES = ("21", "22", "23", "42", "XX")

Connection: TypeAlias = asyncpg.Connection
T = TypeVar("T")


class Lane:
    """A few connections for one kind of work, opened when they are needed."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], size: int) -> None:
        self._connect = connect
        self._size = size
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(size)
        self._inside = 0
        self._closed = False

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, rows: int = 0) -> T:
        """Raises StoreUnavailable for whatever the server or the way to it does; the outcome is then unknown."""
        if self._closed or self._inside >= self._size + WAITING_MAX_COUNT:
            reason = "this store is closed" if self._closed else "too many calls wait for PostgreSQL"
            raise StoreUnavailable(reason, retry_after_s=RETRY_AFTER_S)
        self._inside += 1
        try:
            with translated():
                async with asyncio.timeout(COMMAND_TIMEOUT_S + rows / ROWS_PER_S_MIN), self._free:
                    return await self._work(work)
        finally:
            self._inside -= 1

    async def _work(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        connection = self._take() or await self._connect()
        try:
            result = await work(connection)
        except BaseException:
            connection.terminate()
            raise
        if self._closed:
            connection.terminate()
        else:
            self._idle.append(connection)
        return result

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def close(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await hang_up(connection)


class Database:
    def __init__(self, address: Address) -> None:
        self.address = address
        self.appends = Lane(self.connect, APPEND_CONNECTIONS)
        self.writes = Lane(self.connect, WRITE_CONNECTIONS)
        self.reads = Lane(self.connect, READ_CONNECTIONS)

    async def connect(self, *, limited: bool = True, database: str | None = None) -> Connection:
        """`limited`: the server ends what takes too long; a migration may take its time."""
        connection: Connection = await asyncpg.connect(
            self.address.url, database=database, timeout=COMMAND_TIMEOUT_S, server_settings=SETTINGS
        )
        try:
            if limited:
                await connection.fetch(_LIMIT, list(LIMITS), [f"{value}ms" for value in LIMITS.values()])
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def fetch(self, sql: str, *values: object) -> list[asyncpg.Record]:
        """A question that changes nothing."""
        return await self.reads.run(lambda connection: connection.fetch(sql, *values))

    async def row(self, sql: str, *values: object) -> asyncpg.Record | None:
        return await self.reads.run(lambda connection: connection.fetchrow(sql, *values))

    async def write(self, sql: str, *values: object, rows: int = 0) -> asyncpg.Record | None:
        """One statement, so one transaction and one round trip; its first row."""
        return await self.writes.run(lambda connection: connection.fetchrow(sql, *values), rows=rows)

    async def close(self) -> None:
        for lane in (self.appends, self.writes, self.reads):
            await lane.close()


async def hang_up(connection: Connection) -> None:
    """Say goodbye, or just leave where nobody listens."""
    try:
        await connection.close(timeout=CLOSE_TIMEOUT_S)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what asyncpg and the operating system raise into StoreUnavailable; defects are logged as what they are."""
    try:
        yield
    except TimeoutError as error:
        raise StoreUnavailable("PostgreSQL does not answer in time", retry_after_s=RETRY_AFTER_S) from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        reason = _reason(error)
        if _is_defect(error):
            log.error("PostgreSQL cannot do what the hub asks; retrying will not help: %s", reason, stack_info=True)
        raise StoreUnavailable(f"PostgreSQL: {reason}", retry_after_s=RETRY_AFTER_S) from error


def _is_defect(error: Exception) -> bool:
    if isinstance(error, asyncpg.DataError | asyncpg.InternalClientError):
        return True
    return str(getattr(error, "sqlstate", None) or "").startswith(DEFECT_CLASSES)


def _reason(error: Exception) -> str:
    """One line that quotes no value of a row: those are people's words."""
    if isinstance(error, asyncpg.PostgresError):
        return f"{error.args[0] if error.args else type(error).__name__} ({error.sqlstate})"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__


def storable(text: str) -> str:
    """PostgreSQL's text cannot hold U+0000, which people can send."""
    return text.replace("\0", "\ufffd") if "\0" in text else text
