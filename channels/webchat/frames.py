"""The frames a customer's browser sends."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from channels.json import clean, decode
from hub.errors import InvalidFields, MalformedBody
from hub.model import NAME_MAX_CHARS, TEXT_MAX_CHARS

FRAME_MAX_CHARS = 64 * 1024
Name = Annotated[str, Meta(max_length=NAME_MAX_CHARS)]
Id = Annotated[str, Meta(min_length=1, max_length=256)]


class SignedIdentity(msgspec.Struct):
    """Who the shop says this is: `hmac` is the hex HMAC-SHA-256 of `id` under the channel's identity secret."""

    id: Id
    hmac: Annotated[str, Meta(max_length=256)]


class Hello(msgspec.Struct, tag="hello"):
    visitor: Annotated[str, Meta(max_length=256)] | None = None
    token: Annotated[str, Meta(max_length=512)] | None = None
    name: Name | None = None
    identity: SignedIdentity | None = None


class Message(msgspec.Struct, tag="message"):
    client_id: Annotated[str, Meta(min_length=1, max_length=128)]
    text: Annotated[str, Meta(max_length=TEXT_MAX_CHARS)]


class Typing(msgspec.Struct, tag="typing"):
    on: bool = True


class Read(msgspec.Struct, tag="read"):
    seq: Annotated[int, Meta(ge=0, le=2**31)]


class Ping(msgspec.Struct, tag="ping"):
    pass


Frame = Hello | Message | Typing | Read | Ping
_decoder: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(Frame)


def parse(text: str) -> Frame:
    """Raises MalformedBody or InvalidFields."""
    if len(text) > FRAME_MAX_CHARS:
        raise MalformedBody(f"a frame takes at most {FRAME_MAX_CHARS} characters")
    frame = decode(text, _decoder)
    if isinstance(frame, Message):
        frame.text = clean(frame.text, TEXT_MAX_CHARS)
        frame.client_id = clean(frame.client_id, 128)
        if not frame.text.strip():
            raise InvalidFields(fields={"text": "must not be empty"})
    elif isinstance(frame, Hello):
        frame.name = clean(frame.name, NAME_MAX_CHARS).strip() or None if frame.name else None
    return frame
