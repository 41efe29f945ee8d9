"""The body of `POST /v1/channels/{id}/inbound`: one message, or a list of them. Pure.

The whole list is decoded in one typed pass; only where that fails is each item looked at, so that every bad one
is named and the good ones still get in.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from channels.adapter import Inbound
from channels.json import clean, decode, field_of
from hub.clock import parse_rfc3339
from hub.commands import ReceiveMessage
from hub.errors import HubError, InvalidFields
from hub.model import NAME_MAX_CHARS, TEXT_MAX_CHARS
from hub.settings import Channel

ITEMS_MAX_COUNT = 500
Id = Annotated[str, Meta(min_length=1, max_length=256)]


class Item(msgspec.Struct, forbid_unknown_fields=True):
    external_id: Id
    sender: Id = msgspec.field(name="from")
    text: Annotated[str, Meta(min_length=1, max_length=TEXT_MAX_CHARS)]
    name: Annotated[str, Meta(max_length=NAME_MAX_CHARS)] | None = None
    attachments: list[msgspec.Raw] | None = None
    sent_at: str | None = None


_items = msgspec.json.Decoder(list[Item])
_item = msgspec.json.Decoder(Item)
_loose = msgspec.json.Decoder(list[msgspec.Raw])


def parse(channel: Channel, body: bytes) -> tuple[list[Inbound | HubError], bool]:
    """(an Inbound or its refusal for each item, was it a list). Raises MalformedBody or InvalidFields for the whole."""
    listed = body.lstrip()[:1] == b"["
    if not listed:
        return [_one(channel, decode(body, _item), "")], False
    try:
        items = _items.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return _each(channel, decode(body, _loose)), True
    _bound(len(items))
    return [_one(channel, item, f"items[{n}].") for n, item in enumerate(items)], True


def _bound(count: int) -> None:
    if count > ITEMS_MAX_COUNT:
        raise InvalidFields(fields={"body": f"takes at most {ITEMS_MAX_COUNT} items, got {count}"})


def _each(channel: Channel, raws: list[msgspec.Raw]) -> list[Inbound | HubError]:
    _bound(len(raws))
    results: list[Inbound | HubError] = []
    for n, raw in enumerate(raws):
        try:
            item = _item.decode(raw)
        except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
            where, complaint = field_of(error) if isinstance(error, msgspec.ValidationError) else ("body", str(error))
            results.append(InvalidFields(fields={f"items[{n}].{where}": complaint}))
        else:
            results.append(_one(channel, item, f"items[{n}]."))
    return results


def _one(channel: Channel, item: Item, path: str) -> Inbound | HubError:
    text = clean(item.text, TEXT_MAX_CHARS)
    if not text.strip():
        return InvalidFields(fields={f"{path}text": "must not be empty"})
    sent_at = None
    if item.sent_at is not None:
        try:
            sent_at = parse_rfc3339(item.sent_at)
        except (ValueError, OverflowError):
            return InvalidFields(fields={f"{path}sent_at": "takes an RFC 3339 instant between 2000 and 2100"})
    sender = clean(item.sender, 256)
    command = ReceiveMessage(
        channel=channel.id,
        channel_kind="api",
        identity=identity_of(channel, sender),
        address=sender,
        external_id=clean(item.external_id, 256),
        text=text,
        name=clean(item.name, NAME_MAX_CHARS) if item.name else None,
        sent_at=sent_at,
    )
    return Inbound(command.identity, command)


def identity_of(channel: Channel, sender: str) -> str:
    return f"api:{channel.id}:{sender}"
