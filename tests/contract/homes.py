"""The homes of the store port that the contract suite runs against, each empty and of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.servers.mongo import mongo_database
from tests.servers.postgres import PostgresServer, shared_postgres

DURABLE_HOMES = ("sqlite", "postgres", "mongodb")
HOMES = ("memory", *DURABLE_HOMES)
SERVED_HOMES = ("postgres",)
"""Those in a server of their own, which can be away while the hub is not; MongoDB's tests have theirs in `test_mongo.py`."""


def server_of(home: str) -> PostgresServer:
    """Shared by the whole session: who breaks it mends it."""
    return {"postgres": shared_postgres}[home]()


@contextlib.asynccontextmanager
async def fresh_home(home: str, folder: Path) -> AsyncIterator[str]:
    """The URL of an empty store."""
    match home:
        case "memory":
            yield "memory:"
        case "sqlite":
            yield f"sqlite://{folder}"
        case "postgres":
            async with shared_postgres().database() as url:
                yield url
        case "mongodb":
            async with mongo_database() as url:
                yield url
        case _:
            raise ValueError(home)
