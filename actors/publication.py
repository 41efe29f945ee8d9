"""Publications: encoded events on their way from a shard to the gateways that care."""

from __future__ import annotations

import msgspec

from actors.entry import PUBLIC, Entry
from hub import render
from hub.events import MessageQueued, SettingChanged, SettingRemoved, type_name


class Publication(msgspec.Struct, array_like=True):
    """`event` is the JSON agents see. `message` is the bare message, present where the customer may see it too."""

    offset: int
    tenant: str
    stream: str
    conversation: str
    type: str
    event: bytes
    message: bytes = b""


class SettingNotice(msgspec.Struct, array_like=True):
    """A setting has changed: gateways forget what they remember of it."""

    tenant: str
    kind: str
    id: str


class Feed(msgspec.Struct, array_like=True):
    """What happened in (after, upto] of a partition, for one gateway. A gap between feeds means: replay."""

    shard: str
    incarnation: int
    partition: int
    after: int
    upto: int
    items: list[Publication]
    settings: list[SettingNotice]


encode_feeds = msgspec.msgpack.Encoder().encode
decode_feeds = msgspec.msgpack.Decoder(list[Feed]).decode
decode_publications = msgspec.msgpack.Decoder(list[Publication]).decode


def publication(entry: Entry) -> Publication | None:
    """None where the event is nobody's business but ours."""
    event = entry.event
    if entry.conversation is None or not isinstance(event, PUBLIC):
        return None
    kind = type_name(event)
    message = entry.message.body if entry.message is not None else b""
    return Publication(
        entry.offset,
        entry.tenant,
        entry.stream,
        entry.conversation.id,
        kind,
        render.event_json(kind, entry.conversation.body, message, entry.at),
        message if kind == "message.status" or isinstance(event, MessageQueued) else b"",
    )


def setting_notice(entry: Entry) -> SettingNotice | None:
    event = entry.event
    if isinstance(event, SettingChanged | SettingRemoved):
        return SettingNotice(entry.tenant, event.kind, event.id)
    return None
