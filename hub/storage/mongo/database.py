"""One MongoDB database, used from one process: its options, its bounds, and what its errors mean to a caller.

The driver never repeats a write by itself: a write whose answer got lost has an unknown outcome, and whoever wrote it
finds out by reading (a journal owner by acquiring again). Every write waits for a majority and its journals.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import pymongo
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from hub.errors import StoreUnavailable

log = logging.getLogger("hub.mongo")

NAME_DEFAULT = "cocolu_hub"
CONNECT_TIMEOUT_MS = 2_000
SELECT_TIMEOUT_MS = 3_000
CALL_TIMEOUT_MS = 4_000
OPEN_TIMEOUT_S = 30.0
HEARTBEAT_MS = 2_000
POOL_MAX_CONNECTIONS = 24
CALLS_MAX_COUNT = 1_000
"""Under way or waiting for a connection; one more is told to come back later."""
WIRE_VERSION_MIN = 9
"""MongoDB 4.4: the first that computes what a `find` returns."""
# Interrupted, timed out, cut off, stepping down, no majority: the server is in trouble, not the question.
TRANSIENT_CODES = frozenset(
    (6, 7, 50, 64, 89, 91, 112, 134, 189, 202, 262, 290, 317, 358, 384, 9001, 10058, 10107, 11600, 11602, 13435, 13436)
)

Doc = dict[str, Any]
Collection = AsyncCollection[Doc]


class Database:
    def __init__(self, client: AsyncMongoClient[Doc], name: str) -> None:
        self._client = client
        self._calls = 0
        self._database = client[name]
        self.name = name

    @staticmethod
    async def connect(url: str) -> Database:
        """Raises ValueError for a URL or a server that will not do, without its password; StoreUnavailable."""
        try:
            client: AsyncMongoClient[Doc] = AsyncMongoClient(url, **_OPTIONS)
            database = Database(client, client.get_default_database(NAME_DEFAULT).name)
        except (ConfigurationError, InvalidURI, ValueError) as error:
            reason = _without_password(str(error), url)
            raise ValueError(
                f"the storage URL cannot be used: {reason}; takes mongodb://USER:PASSWORD@HOST/NAME"
            ) from None
        try:
            await database._meet_server()
        except BaseException:
            await client.close()
            raise
        return database

    async def _meet_server(self) -> None:
        async with self.answering():
            hello = await self._client.admin.command("hello")
        if hello.get("maxWireVersion", 0) < WIRE_VERSION_MIN:
            raise ValueError("this MongoDB is too old: the hub needs 4.4 or newer")
        # Only what a majority holds may be shown: a fail-over must not take back what somebody has seen.
        # A server of its own, without a replica set, has nothing to wait for.
        alone = "setName" not in hello and hello.get("msg") != "isdbgrid"
        self._database = self._client.get_database(
            self.name,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("local" if alone else "majority"),
            write_concern=WriteConcern("majority", j=True),
        )

    def __getitem__(self, collection: str) -> Collection:
        return self._database[collection]

    def unconfirmed(self, collection: str) -> Collection:
        """As this moment's primary has it, whether or not a majority does: to decide by, never to show."""
        return self._database.get_collection(collection, read_concern=ReadConcern("local"))

    async def collections(self) -> list[str]:
        return await self._database.list_collection_names()

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Around everything asked of the server. Raises StoreUnavailable for what went wrong inside."""
        if self._calls >= CALLS_MAX_COUNT:
            raise StoreUnavailable("too many calls wait for MongoDB", retry_after_s=1.0)
        self._calls += 1
        try:
            yield
        except (PyMongoError, OSError) as error:
            raise _unavailable(error) from error
        finally:
            self._calls -= 1

    @contextlib.asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """As `answering`, for what may take long on a large store: indexes, migrations."""
        with pymongo.timeout(OPEN_TIMEOUT_S):
            async with self.answering():
                yield

    async def close(self) -> None:
        await self._client.close()


_OPTIONS: dict[str, Any] = {
    "retryWrites": False,
    "w": "majority",
    "journal": True,
    "connectTimeoutMS": CONNECT_TIMEOUT_MS,
    "serverSelectionTimeoutMS": SELECT_TIMEOUT_MS,
    "timeoutMS": CALL_TIMEOUT_MS,
    "heartbeatFrequencyMS": HEARTBEAT_MS,
    "maxPoolSize": POOL_MAX_CONNECTIONS,
    "appname": "cocolu-hub",
}


def _unavailable(error: Exception) -> StoreUnavailable:
    """A question that MongoDB does not understand is a defect of ours, and must be seen as one."""
    if isinstance(error, OperationFailure) and not is_transient(error):
        log.error("MongoDB refused: %s", _first_line(error), exc_info=error)
    return StoreUnavailable(f"MongoDB: {_first_line(error)}", retry_after_s=0.5)


def is_transient(error: OperationFailure) -> bool:
    codes = {error.code}
    if error.details is not None:
        for trouble in (*error.details.get("writeErrors", ()), *error.details.get("writeConcernErrors", ())):
            codes.add(trouble.get("code"))
    return bool(codes & TRANSIENT_CODES) or error.has_error_label("RetryableWriteError")


def _first_line(error: Exception) -> str:
    """Without the driver's picture of the topology and the server's whole answer."""
    text = str(error).partition("\n")[0]
    return re.split(r", full error: |, Timeout: |, Topology Description: | \(configured timeouts", text)[0][:300]


def _without_password(text: str, url: str) -> str:
    found = re.match(r"[^:]*://[^:/@]*:(.*)@", url)
    for secret in (found[1], unquote(found[1])) if found and found[1] else ():
        text = text.replace(secret, "***")
    return text
