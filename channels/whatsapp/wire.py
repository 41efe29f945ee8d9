"""The shapes of the Cloud API's webhooks (Meta, "Webhooks > Components" and "Webhooks > Payload examples").

Only what we read is named; everything else is ignored, so that Meta may add fields. Values inside one message are
taken loosely (`Raw`): one odd message must not cost the others of its delivery.
"""

from __future__ import annotations

import msgspec


class Profile(msgspec.Struct):
    name: str | None = None


class Contact(msgspec.Struct):
    wa_id: str | None = None
    user_id: str | None = None
    profile: Profile | None = None


class Metadata(msgspec.Struct):
    phone_number_id: str = ""


class Value(msgspec.Struct):
    metadata: Metadata = msgspec.field(default_factory=Metadata)
    contacts: list[Contact] = []
    messages: list[msgspec.Raw] = []
    statuses: list[msgspec.Raw] = []


class Change(msgspec.Struct):
    field: str = ""
    value: msgspec.Raw = msgspec.Raw(b"{}")


class Entry(msgspec.Struct):
    changes: list[Change] = []


class Payload(msgspec.Struct):
    object: str
    entry: list[Entry]


class MessageHead(msgspec.Struct):
    """What every message has, whatever its type."""

    id: str
    type: str = "unknown"
    sender: str | None = msgspec.field(default=None, name="from")
    user_id: str | None = None
    timestamp: str | int | None = None


class Text(msgspec.Struct):
    body: str = ""


class Media(msgspec.Struct):
    id: str | None = None
    caption: str | None = None
    mime_type: str | None = None
    filename: str | None = None
    voice: bool = False


class Location(msgspec.Struct):
    latitude: float = 0.0
    longitude: float = 0.0
    name: str | None = None
    address: str | None = None


class Reply(msgspec.Struct):
    id: str | None = None
    title: str = ""


class Interactive(msgspec.Struct):
    button_reply: Reply | None = None
    list_reply: Reply | None = None


class Button(msgspec.Struct):
    text: str = ""


class Reaction(msgspec.Struct):
    emoji: str = ""


class MessageBody(msgspec.Struct):
    """The part that depends on `type`."""

    text: Text | None = None
    image: Media | None = None
    video: Media | None = None
    audio: Media | None = None
    document: Media | None = None
    sticker: Media | None = None
    location: Location | None = None
    interactive: Interactive | None = None
    button: Button | None = None
    reaction: Reaction | None = None


class ErrorData(msgspec.Struct):
    details: str | None = None


class StatusError(msgspec.Struct):
    code: int | str = 0
    title: str | None = None
    message: str | None = None
    error_data: ErrorData | None = None


class Status(msgspec.Struct):
    id: str
    status: str
    recipient_id: str | None = None
    recipient_user_id: str | None = None
    timestamp: str | int | None = None
    biz_opaque_callback_data: str | None = None
    errors: list[StatusError] = []
