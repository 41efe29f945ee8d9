"""Homes of the ports in `hub/ports.py`, and the one function that opens them by URL."""

from __future__ import annotations

from pathlib import Path

from hub.ports import Store

PARTITIONS_DEFAULT = 16
TAKES = "sqlite:///FOLDER, postgresql://USER:PASSWORD@HOST/NAME, mongodb://HOST/NAME or memory:"


async def open_store(url: str, *, partitions: int | None = None) -> Store:
    """Open, and create where there is none. Raises ValueError for a URL or partition count that does not fit."""
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        from hub.storage.memory import MemoryStore

        return MemoryStore(partitions or PARTITIONS_DEFAULT)
    if scheme == "sqlite" and rest.startswith("//") and len(rest) > 2:
        from hub.storage.sqlite.store import SqliteStore

        return await SqliteStore.open(Path(rest[2:]), partitions)
    if scheme in ("postgresql", "postgres"):
        from hub.storage.postgres.store import PostgresStore

        return await PostgresStore.open(url, partitions)
    if scheme in ("mongodb", "mongodb+srv"):
        from hub.storage.mongo.store import MongoStore

        return await MongoStore.open(url, partitions)
    # Only its scheme is repeated: what follows may hold a password.
    raise ValueError(f"storage {scheme!r} is not known: takes {TAKES}")
