"""Writes a golden store: one record of every event type with every field set, snapshots, documents.

Run once for each released form (`python -m tests.golden.make_golden v2`); what is committed is never made again.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
import types
import typing
from pathlib import Path
from typing import Any

import msgspec

from hub.codec import encode_record, encode_snapshot
from hub.events import AnyEvent
from hub.model import CustomerImage, TenantImage
from hub.ports import Append, Checkpoint, Document, StoredKey, StoredRecord, StoredSnapshot
from hub.sealing import Keyring
from hub.storage.sqlite.store import SqliteStore

SECRET = b"golden-golden-golden"
CUSTOMER, TENANT = "cus_0010123456789abcdef", "ten_golden"
PARTITION, AT = 1, 1_790_000_000_123


def sample(kind: Any, name: str = "") -> Any:
    """A value of a type that is none of its defaults, the same each time."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if name == "conversation" and kind is str:
        return f"cnv_{CUSTOMER[4:]}-1"
    if origin is typing.Literal:
        return args[-1]
    if origin in (typing.Union, types.UnionType):
        real = [arg for arg in args if arg not in (type(None), msgspec.UnsetType)]
        return sample(real[0], name)
    if origin is list:
        return [sample(args[0], name)]
    if origin is dict:
        return {sample(args[0], name): sample(args[1], name)}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        return kind(**{field.name: sample(hints[field.name], field.name) for field in msgspec.structs.fields(kind)})
    simple: dict[Any, Any] = {
        str: f"{name} ñ", int: 7, float: 0.5, bool: True, bytes: b"\x00" * 8, bytearray: bytearray(b"\x01" * 16),
    }  # fmt: skip
    return simple[kind]


def events() -> list[Any]:
    return [sample(kind) for kind in typing.get_args(AnyEvent)]


def images() -> dict[str, Any]:
    return {CUSTOMER: sample(CustomerImage), TENANT: sample(TenantImage)}


async def write(folder: Path) -> None:
    store = await SqliteStore.open(folder, 4)
    keyring = Keyring(SECRET)
    cipher, wrapped = keyring.new_data_key(CUSTOMER)
    tenant_cipher, tenant_wrapped = keyring.new_data_key(TENANT)
    owned = await store.journal.acquire(PARTITION)
    records = [
        StoredRecord(
            n, CUSTOMER, encode_record(tenant="golden", stream=CUSTOMER, offset=n, at=AT, event=event, cipher=cipher)
        )
        for n, event in enumerate(events(), 1)
    ]
    keys = [StoredKey(CUSTOMER, wrapped), StoredKey(TENANT, tenant_wrapped)]
    assert await store.journal.append([Append(PARTITION, owned.epoch, 1, records, keys)]) == [True]
    ciphers = {CUSTOMER: cipher, TENANT: tenant_cipher}
    snapshots = [
        StoredSnapshot(stream, 3, encode_snapshot(image, stream=stream, offset=3, cipher=ciphers[stream]))
        for stream, image in images().items()
    ]
    await store.snapshots.save(PARTITION, owned.epoch, snapshots)
    await store.checkpoints.save("courier", PARTITION, owned.epoch, Checkpoint(3, b"data"))
    await store.documents.put([Document("channel", "golden", "golden", 5, b"body")])
    await store.documents.claim("email", "a@golden.test", "golden/agt")
    await store.close()


def main() -> None:
    folder = Path(__file__).parent / sys.argv[1]
    shutil.rmtree(folder, ignore_errors=True)
    asyncio.run(write(folder))
    connection = sqlite3.connect(folder / "hub.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    for leftover in [*folder.glob("views.db*"), *folder.glob("*-wal"), *folder.glob("*-shm")]:
        leftover.unlink()
    expected = {
        "events": msgspec.to_builtins(events()),
        "images": {stream: msgspec.to_builtins(image) for stream, image in images().items()},
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
