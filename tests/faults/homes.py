"""The homes of the store as a world needs them: a URL, and the server behind it where there is one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

HOMES = ("sqlite", "postgres", "mongodb")


class Server(Protocol):
    """What a fault does to a database. `tests/servers` has them."""

    url: str

    def start(self) -> object: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


@contextlib.contextmanager
def running_home(home: str, folder: Path | None) -> Iterator[Server | None]:
    """None for the embedded home. With `folder`, the server keeps its files there."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder) if folder else tempfile.tempdir
    try:
        server = _server(home)
    finally:
        tempfile.tempdir = before
    if server is None:
        yield None
        return
    try:
        server.start()
        yield server
    finally:
        remove = getattr(server, "remove", server.stop)
        remove()


def storage_url(home: str, server: Server) -> str:
    """What the hub takes as `--storage`. PostgreSQL's URL must name a database; this one is always there."""
    if home == "mongodb":
        # It names itself by its loopback address, which means another machine in a network of its own.
        return f"{server.url}/?directConnection=true"
    return f"{server.url}/postgres" if home == "postgres" else server.url


def _server(home: str) -> Server | None:
    server: Server | None = None
    if home == "postgres":
        from tests.servers.postgres import PostgresServer

        server = PostgresServer()
    elif home == "mongodb":
        from tests.servers.mongo import MongoServer

        server = MongoServer()
    elif home != "sqlite":
        raise ValueError(f"home {home!r} is not known: takes {', '.join(HOMES)}")
    return server
