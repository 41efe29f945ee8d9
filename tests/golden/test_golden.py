"""Stores that earlier versions wrote open for ever, and mean what they meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hub.codec import decode_record, decode_snapshot
from hub.sealing import Keyring
from hub.storage.sqlite.store import SqliteStore
from tests.golden.make_golden import AT, CUSTOMER, PARTITION, SECRET, TENANT

VERSIONS = sorted(path.parent.name for path in Path(__file__).parent.glob("v*/hub.db"))


def covers(found: Any, expected: Any) -> bool:
    """Everything that was written is read back; fields that came later may be there too."""
    if isinstance(expected, dict):
        return all(name in found and covers(found[name], value) for name, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(covers, found, expected))
    return bool(found == expected)


def test_there_is_a_golden_store() -> None:
    assert VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_opens_and_means_what_it_meant(version: str, tmp_path: Path) -> None:
    source = Path(__file__).parent / version
    shutil.copy(source / "hub.db", tmp_path / "hub.db")
    expected = json.loads((source / "expected.json").read_text())
    store = await SqliteStore.open(tmp_path)
    keyring = Keyring(SECRET)
    keys = await store.journal.keys([CUSTOMER, TENANT])
    ciphers = {stream: keyring.unwrap(stream, wrapped) for stream, wrapped in keys.items()}
    found = []
    for record in await store.journal.read(PARTITION, 0, 1000):
        opened = decode_record(record.body, stream=CUSTOMER, offset=record.offset, cipher=ciphers[CUSTOMER])
        assert (opened.tenant, opened.at) == ("golden", AT)
        found.append(msgspec.to_builtins(opened.event))
        erased = decode_record(record.body, stream=CUSTOMER, offset=record.offset, cipher=None)
        assert erased.event.content is None
    assert len(found) == len(expected["events"])
    for event, wanted in zip(found, expected["events"], strict=True):
        assert covers(event, wanted), wanted["type"]
    for stream in (CUSTOMER, TENANT):
        [image] = await store.journal.load(PARTITION, [stream])
        assert image.snapshot is not None
        state = decode_snapshot(image.snapshot.body, stream=stream, offset=3, cipher=ciphers[stream])
        assert covers(json.loads(json.dumps(msgspec.to_builtins(state))), expected["images"][stream])
    assert (await store.checkpoints.load("courier", PARTITION)).offset == 3
    document = await store.documents.get("channel", "golden")
    assert document is not None and document.revision == 5
    assert await store.documents.owner("email", "a@golden.test") == "golden/agt"
    await store.close()


def test_the_newest_golden_store_holds_every_event_type() -> None:
    """A new event type needs a new golden store, or nothing keeps it readable."""
    import typing

    from hub.events import AnyEvent

    newest = json.loads((Path(__file__).parent / VERSIONS[-1] / "expected.json").read_text())
    types = {kind.__struct_config__.tag for kind in typing.get_args(AnyEvent)}
    assert {event["type"] for event in newest["events"]} == types
