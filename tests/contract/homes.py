"""The homes of the store port that the contract suite runs against, each empty and of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.servers.mongo import mongo_database

HOMES = ("memory", "sqlite", "mongodb")


@contextlib.asynccontextmanager
async def fresh_home(home: str, folder: Path) -> AsyncIterator[str]:
    """The URL of an empty store."""
    match home:
        case "memory":
            yield "memory:"
        case "sqlite":
            yield f"sqlite://{folder}"
        case "mongodb":
            async with mongo_database() as url:
                yield url
        case _:
            raise ValueError(home)
