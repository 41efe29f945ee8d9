"""Where a command reads and writes: stores by URL or folder, and the secret that belongs to them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hub.archive.blocks import ArchiveError
from hub.config import Config, InvalidSetting, load
from hub.errors import HubError
from hub.ports import Store
from hub.sealing import Keyring, load_secret
from hub.storage import open_store

SQLITE = "sqlite://"
EMBEDDED = "hub.db"


def store_flags(parser: argparse.ArgumentParser, what: str) -> None:
    """Which store, said as it is said to `hub serve`."""
    parser.add_argument("--storage", metavar="URL", help=f"{what} (HUB_STORAGE; default: SQLite in the data folder)")
    data_dir_flag(parser)


def data_dir_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", metavar="DIR", help="the hub's data folder, with secret.key (HUB_DATA_DIR) [data]"
    )


def config_of(args: argparse.Namespace, **flags: str | None) -> Config:
    """Flags and variables as the server reads them. Raises InvalidSetting."""
    given = {"storage": getattr(args, "storage", None), "data_dir": getattr(args, "data_dir", None)}
    return load({**given, **flags}, os.environ)


def run(work: Callable[[argparse.Namespace], Coroutine[Any, Any, int]]) -> Callable[[argparse.Namespace], int]:
    """A command as the command line calls it: what goes wrong is one line, and the exit status is not zero."""

    def command(args: argparse.Namespace) -> int:
        try:
            return asyncio.run(work(args))
        except (ArchiveError, HubError, ValueError, OSError) as error:
            print(f"hub: {shown(str(error))}", file=sys.stderr)
            return 1

    return command


def url_of(text: str) -> str:
    """A store said as URL or as a data folder."""
    return text if text.startswith("memory:") or "://" in text else f"{SQLITE}{Path(text).absolute()}"


def is_archive(text: str) -> bool:
    return "://" not in text and Path(text).is_file()


def folder_of(url: str) -> Path | None:
    """The data folder of an embedded store, None where the store is elsewhere."""
    return Path(url.removeprefix(SQLITE)) if url.startswith(SQLITE) else None


def shown(text: str) -> str:
    """Text that may be read aloud: the passwords of all URLs in it are masked."""
    return " ".join(_masked(word) if "://" in word and "@" in word else word for word in text.split(" "))


def _masked(word: str) -> str:
    scheme, _, rest = word.partition("://")
    credentials, _, place = rest.rpartition("@")
    return f"{scheme}://{credentials.partition(':')[0]}:***@{place}" if ":" in credentials else word


@contextlib.asynccontextmanager
async def existing(url: str) -> AsyncIterator[Store]:
    """Open a store to read from. Raises ArchiveError where there is none: a typing error must not make an empty one."""
    folder = folder_of(url)
    if folder is not None and not (folder / EMBEDDED).exists():
        raise ArchiveError(f"there is no store in {folder}; give --storage or --data-dir")
    store = await open_store(url)
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def target(url: str, partitions: int) -> AsyncIterator[Store]:
    """Open a store to write to, and make it where there is none. No hub may run on it."""
    with _locked(folder_of(url)):
        store = await open_store(url, partitions=partitions)
        try:
            yield store
        finally:
            await store.close()


@contextlib.contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    """The lock that a serving hub holds on its data folder; a store elsewhere has its epochs."""
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "hub.lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ArchiveError(f"a hub is running on {folder}; stop it, or name another folder") from None
        yield


def keyring_of(config: Config) -> Keyring:
    """The installation's keys; never makes a new secret. Raises InvalidSetting."""
    if config.secret_key is None and not (config.data_dir / "secret.key").exists():
        raise InvalidSetting(
            f"there is no secret.key in {config.data_dir}; give --data-dir, or set HUB_SECRET_KEY as for the server"
        )
    return Keyring(load_secret(config.secret_key, config.data_dir))


def host_of(url: str) -> str:
    """A store's URL as it may be shown, without user and password."""
    parts = urlsplit(url)
    return url if not parts.netloc else f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
