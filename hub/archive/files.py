"""Archives as files. A file that has its name is whole: it is written beside it, as `NAME.part`, and renamed at the end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

from hub.archive.blocks import FRAME, MAGIC, ArchiveError, Block, Header, Packer, Unpacker

STDOUT = "-"


async def write_file(blocks: AsyncIterator[Block], name: str) -> int:
    """Write an archive and return its size in bytes. It is durable then. Raises ArchiveError where the file exists."""
    if name == STDOUT:
        return await _write(blocks, sys.stdout.buffer)
    with _renamed_when_whole(Path(name)) as file:
        return await _write(blocks, file)


@contextlib.contextmanager
def _renamed_when_whole(path: Path) -> Iterator[IO[bytes]]:
    if path.exists():
        raise ArchiveError(f"{path} exists; choose another name, or remove it")
    part = path.with_name(path.name + ".part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
            os.fsync(file.fileno())
        os.rename(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.absolute().parent)


async def _write(blocks: AsyncIterator[Block], file: IO[bytes]) -> int:
    packer = Packer()
    size = file.write(MAGIC)
    async for block in blocks:
        size += file.write(packer.pack(block))
    file.flush()
    return size


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def blocks_of(name: str) -> Iterator[Block]:
    """Every block of an archive, checked. Raises ArchiveError, which names the file."""
    unpacker = Unpacker()
    try:
        with open(name, "rb") as file:
            unpacker.begin(file.read(len(MAGIC)))
            while not unpacker.done:
                head = file.read(FRAME.size)
                yield unpacker.unpack(head, file.read(unpacker.frame(head)))
            unpacker.end(file.read(1))
    except OSError as error:
        raise ArchiveError(f"{name}: {error.strerror or error}") from error
    except ArchiveError as error:
        raise ArchiveError(f"{name}: {error}") from error


async def read_file(name: str) -> AsyncIterator[Block]:
    for block in blocks_of(name):
        yield block


def header_of(name: str) -> Header:
    blocks = blocks_of(name)
    header = next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert isinstance(header, Header)
    return header


def check_chain(names: list[str]) -> list[Header]:
    """The headers of a full archive and those that continue it, in order. Raises ArchiveError where one is missing."""
    headers = [header_of(name) for name in names]
    before: Header | None = None
    for name, header in zip(names, headers, strict=True):
        if header.base != (before.id if before is not None else None):
            raise ArchiveError(
                f"{name} continues another archive than {names[headers.index(before)]}"
                if before is not None
                else f"{name} holds only what came after archive {header.base}; name that one first"
            )
        before = header
    return headers
