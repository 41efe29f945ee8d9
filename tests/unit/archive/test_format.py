"""The form of an archive: what was written is read, and whatever is not is told, with its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.archive.blocks import MAGIC, ArchiveError, Block, Claims, Documents, Events, Header, KeyMarks, Packer, Tally
from hub.archive.files import blocks_of, header_of, write_file
from hub.ports import Claim, Document, StoredKey, StoredRecord
from tests.unit.archive.made import AT, blocks_of_store, small_store, stream_of

names = st.text(min_size=1, max_size=8)
records = st.lists(st.tuples(names, st.binary(max_size=40)), min_size=1, max_size=6)


@st.composite
def archives(draw: st.DrawFn) -> list[Block]:
    """Any archive that could have been written."""
    journals = draw(st.lists(st.lists(records, max_size=3), min_size=1, max_size=4))
    after = [draw(st.integers(0, 3)) for _ in journals]
    events: list[Block] = []
    heads = list(after)
    for number, chunks in enumerate(journals):
        for chunk in chunks:
            made = [StoredRecord(heads[number] + n, *one) for n, one in enumerate(chunk, 1)]
            heads[number] += len(made)
            events.append(Events(number, made, [StoredKey(r.stream, b"key") for r in made[:1]]))
    header = Header(1, "id", AT, "secret", len(journals), heads, after, [b"tip"] * len(heads))
    rest: list[Block] = [
        Documents([Document("kind", name, "t", 1, b"body") for name in draw(st.lists(names, max_size=3))]),
        Claims([Claim("kind", name, "owner") for name in draw(st.lists(names, max_size=3))]),
        KeyMarks([(name, b"mark") for name in draw(st.lists(names, max_size=3))]),
    ]
    tally = Tally()
    for block in [header, *events, *rest]:
        tally.add(block)
    return [header, *events, *rest, tally.totals]


def packed(blocks: list[Block]) -> bytes:
    packer = Packer()
    return MAGIC + b"".join(map(packer.pack, blocks))


@settings(max_examples=60, deadline=None)
@given(archives())
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, blocks: list[Block]) -> None:
    path = tmp_path_factory.mktemp("archive") / "a"
    path.write_bytes(packed(blocks))
    assert list(blocks_of(str(path))) == blocks
    assert header_of(str(path)) == blocks[0]


@settings(max_examples=150, deadline=None)
@given(archives(), st.data())
def test_no_flipped_bit_goes_unseen(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[Block], data: st.DataObject
) -> None:
    whole = bytearray(packed(blocks))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.mktemp("archive") / "a"
    path.write_bytes(whole)
    with pytest.raises(ArchiveError):
        list(blocks_of(str(path)))


@settings(max_examples=80, deadline=None)
@given(archives(), st.data())
def test_no_missing_end_goes_unseen(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[Block], data: st.DataObject
) -> None:
    whole = packed(blocks)
    path = tmp_path_factory.mktemp("archive") / "a"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ArchiveError):
        list(blocks_of(str(path)))


async def test_a_block_left_out_moved_or_added_is_told_with_its_number(tmp_path: Path) -> None:
    store, _ = await small_store()
    blocks = await blocks_of_store(store)
    packer = Packer()
    frames = [packer.pack(block) for block in blocks]
    path = tmp_path / "a"
    for broken, number in (
        ([frames[0], *frames[2:]], 1),
        ([frames[0], frames[2], frames[1], *frames[3:]], 1),
        ([*frames[:3], frames[2], *frames[3:]], 3),
        (frames[:-1], len(frames) - 1),
        ([*frames, frames[-1]], len(frames) - 1),
    ):
        path.write_bytes(MAGIC + b"".join(broken))
        with pytest.raises(ArchiveError, match=f"{path}: block {number} "):
            list(blocks_of(str(path)))


async def test_blocks_that_fit_but_do_not_add_up_are_refused(tmp_path: Path) -> None:
    """An archive whose checksums are right and whose writer was wrong."""
    store, _ = await small_store()
    blocks = await blocks_of_store(store)
    events = next(n for n, block in enumerate(blocks) if isinstance(block, Events))
    path = tmp_path / "a"
    path.write_bytes(packed(blocks[:events] + blocks[events + 1 :]))
    with pytest.raises(ArchiveError, match=r"something is missing|does not have event"):
        list(blocks_of(str(path)))


def test_another_file_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"SQLite format 3\0" * 100)
    with pytest.raises(ArchiveError, match="not an archive"):
        header_of(str(path))
    with pytest.raises(ArchiveError, match="No such file"):
        header_of(str(tmp_path / "nowhere"))


async def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    store, _ = await small_store()
    blocks = await blocks_of_store(store)

    async def breaks_off() -> object:
        for block in blocks[:3]:
            yield block
        assert os.listdir(tmp_path) == ["a.part"]
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        await write_file(breaks_off(), str(tmp_path / "a"))  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []
    await write_file(stream_of(blocks), str(tmp_path / "a"))
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ArchiveError, match="exists"):
        await write_file(stream_of(blocks), str(tmp_path / "a"))
