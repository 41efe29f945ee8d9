"""Bytes of everything that is stored or sent between processes.

Stored things are MessagePack arrays whose first element is the schema version of that thing, so that
any later version of the hub knows what it is reading:

    record    [1, tenant, at, skeleton, sealed content or nil]      one journal event
    snapshot  [1, sealed image]                                      one stream's state
"""

from __future__ import annotations

from typing import Any

import msgspec

from hub.commands import Answer, Invocation
from hub.events import AnyEvent, Content, Event
from hub.model import CustomerImage, TenantImage
from hub.sealing import Cipher

RECORD_VERSION = 1
SNAPSHOT_VERSION = 1

_encoder = msgspec.msgpack.Encoder()
_content_decoder = msgspec.msgpack.Decoder(Content)
_invocations = msgspec.msgpack.Decoder(list[Invocation])
_answers = msgspec.msgpack.Decoder(list[Answer])
_images: dict[str, msgspec.msgpack.Decoder[Any]] = {
    "cus": msgspec.msgpack.Decoder(CustomerImage),
    "ten": msgspec.msgpack.Decoder(TenantImage),
}


class UnknownVersion(Exception):
    """A stored thing was written by a newer hub than this one."""


class Record(msgspec.Struct, array_like=True):
    """A journal event at rest, before its content is opened."""

    version: int
    tenant: str
    at: int
    event: AnyEvent
    sealed: bytes | None


class SealedSnapshot(msgspec.Struct, array_like=True):
    version: int
    sealed: bytes


_records = msgspec.msgpack.Decoder(Record)
_snapshots = msgspec.msgpack.Decoder(SealedSnapshot)


def place(stream: str, offset: int) -> bytes:
    return f"{stream}:{offset}".encode()


def encode_record(*, tenant: str, stream: str, offset: int, at: int, event: Event, cipher: Cipher | None) -> bytes:
    """`cipher` may be None where the event has no content."""
    content = event.content
    if content is None:
        return _encoder.encode((RECORD_VERSION, tenant, at, event, None))
    if cipher is None:
        raise ValueError("content is never stored unsealed")
    sealed = cipher.seal(_encoder.encode(content), place(stream, offset))
    event.content = None
    try:
        return _encoder.encode((RECORD_VERSION, tenant, at, event, sealed))
    finally:
        event.content = content


def decode_record(body: bytes, *, stream: str, offset: int, cipher: Cipher | None) -> Record:
    """The record with its event's content opened; with no cipher (the key was erased) content stays None."""
    record = _records.decode(body)
    if record.version > RECORD_VERSION:
        raise UnknownVersion(f"journal record of version {record.version}")
    if record.sealed is not None and cipher is not None:
        record.event.content = _content_decoder.decode(cipher.open(record.sealed, place(stream, offset)))
    return record


def encode_snapshot(image: CustomerImage | TenantImage, *, stream: str, offset: int, cipher: Cipher) -> bytes:
    return _encoder.encode(SealedSnapshot(SNAPSHOT_VERSION, cipher.seal(_encoder.encode(image), place(stream, offset))))


def decode_snapshot(body: bytes, *, stream: str, offset: int, cipher: Cipher) -> CustomerImage | TenantImage | None:
    """None where a newer hub wrote it: a snapshot is disposable, the journal is not."""
    snapshot = _snapshots.decode(body)
    if snapshot.version > SNAPSHOT_VERSION:
        return None
    image: CustomerImage | TenantImage = _images[stream[:3]].decode(cipher.open(snapshot.sealed, place(stream, offset)))
    return image


encode = _encoder.encode
decode_invocations = _invocations.decode
decode_answers = _answers.decode
