"""From a Cloud API webhook to commands. Pure.

Nothing is lost silently: a message with an id and a sender always becomes a command, if need be as
`unsupported`; a body with a piece that names neither is refused as a whole, so that the provider keeps it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping

import msgspec

from channels.adapter import Delivery, Inbound
from channels.json import clean, decode, field_of
from channels.whatsapp import wire
from hub.commands import ReceiveMessage, RecordReceipt
from hub.errors import BadSignature, Forbidden, InvalidFields
from hub.ids import split_message
from hub.model import NAME_MAX_CHARS, TEXT_MAX_CHARS, Attachment, MessageError, MessageStatus
from hub.settings import Channel

EXTERNAL_ID_MAX_CHARS = 256
_payload = msgspec.json.Decoder(wire.Payload)
_value = msgspec.json.Decoder(wire.Value)
_head = msgspec.json.Decoder(wire.MessageHead)
_body = msgspec.json.Decoder(wire.MessageBody)
_status = msgspec.json.Decoder(wire.Status)
_STATUSES: dict[str, MessageStatus] = {"sent": "sent", "delivered": "delivered", "read": "read", "failed": "failed"}
_MEDIA = ("image", "video", "audio", "document", "sticker")


def challenge(channel: Channel, query: Mapping[str, str]) -> str:
    """Meta's GET verification. Raises Forbidden."""
    expected = channel.secrets.get("verify_token", "")
    given = query.get("hub.verify_token", "")
    ok = hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))
    if query.get("hub.mode") != "subscribe" or not ok or not expected:
        raise Forbidden("the verify token does not match")
    return query.get("hub.challenge", "")[:1024]


def verify(channel: Channel, headers: Mapping[str, str], body: bytes) -> None:
    """`X-Hub-Signature-256`: HMAC-SHA-256 of the raw body under the app secret. Raises BadSignature."""
    secret = channel.secrets.get("app_secret", "")
    expected = "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()
    given = headers.get("x-hub-signature-256", "")
    if not secret or not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
        raise BadSignature()


def parse(channel: Channel, body: bytes, now: int) -> Delivery:
    """Every message and status, in order. Raises MalformedBody or InvalidFields."""
    payload = decode(body, _payload)
    if payload.object != "whatsapp_business_account":
        raise InvalidFields(fields={"object": "takes whatsapp_business_account"})
    items: list[Inbound] = []
    ignored = 0
    for n, entry in enumerate(payload.entry):
        for m, change in enumerate(entry.changes):
            if change.field != "messages":
                ignored += 1
                continue
            found, skipped = _parse_change(channel, change.value, f"entry[{n}].changes[{m}].value")
            items += found
            ignored += skipped
    return Delivery(items, ignored)


def _parse_change(channel: Channel, raw: msgspec.Raw, path: str) -> tuple[list[Inbound], int]:
    value = _decode_at(raw, _value, path)
    if value.metadata.phone_number_id != channel.settings.get("phone_number_id"):
        return [], len(value.messages) + len(value.statuses)
    items = list(_messages(channel, value, path))
    statuses = [_receipt(channel, raw_status, f"{path}.statuses[{n}]") for n, raw_status in enumerate(value.statuses)]
    known = [status for status in statuses if status is not None]
    return items + known, len(statuses) - len(known)


def _decode_at(raw: msgspec.Raw, decoder: msgspec.json.Decoder[wire.Value], path: str) -> wire.Value:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        where, complaint = field_of(error)
        raise InvalidFields(fields={f"{path}.{where}": complaint}) from None


def _messages(channel: Channel, value: wire.Value, path: str) -> Iterator[Inbound]:
    names = {c.wa_id or c.user_id: c.profile.name for c in value.contacts if c.profile is not None}
    ids = {c.wa_id: c.user_id for c in value.contacts}
    for n, raw in enumerate(value.messages):
        try:
            head = _head.decode(raw)
        except msgspec.ValidationError as error:
            where, complaint = field_of(error)
            raise InvalidFields(fields={f"{path}.messages[{n}].{where}": complaint}) from None
        sender, user_id = head.sender, head.user_id or ids.get(head.sender)
        if not head.id or not (sender or user_id):
            raise InvalidFields(fields={f"{path}.messages[{n}]": "needs an id and a sender"})
        yield _message(channel, head, raw, names.get(sender or user_id), sender, user_id)


def _message(
    channel: Channel,
    head: wire.MessageHead,
    raw: msgspec.Raw,
    name: str | None,
    sender: str | None,
    user_id: str | None,
) -> Inbound:
    text, attachments, unsupported = _content(head.type, raw)
    command = ReceiveMessage(
        channel=channel.id,
        channel_kind="whatsapp",
        identity=identity_of(sender, user_id),
        address=clean(sender or user_id or "", EXTERNAL_ID_MAX_CHARS),
        external_id=clean(head.id, EXTERNAL_ID_MAX_CHARS),
        text=clean(text, TEXT_MAX_CHARS),
        name=clean(name, NAME_MAX_CHARS) if name else None,
        sent_at=_milliseconds(head.timestamp),
        unsupported=unsupported,
        attachments=attachments,
    )
    return Inbound(command.identity, command)


def identity_of(phone: str | None, user_id: str | None) -> str:
    """The phone where it is shown, else the business-scoped user id (customers with a username may hide the phone)."""
    digits = "".join(c for c in phone or "" if c in "0123456789")
    return f"tel:+{digits}" if digits else f"wa:{clean(user_id or phone or '', EXTERNAL_ID_MAX_CHARS)}"


def _content(kind: str, raw: msgspec.Raw) -> tuple[str, list[Attachment], str | None]:
    """(text, attachments, name of an unsupported type)."""
    kind = clean(kind, 64)
    try:
        body = _body.decode(raw)
    except msgspec.ValidationError:
        return "", [], kind
    media: wire.Media | None = getattr(body, kind) if kind in _MEDIA else None
    if media is not None:
        shown = "voice" if media.voice else kind
        return media.caption or "", [Attachment(shown, media.filename, media.mime_type, None, media.id)], None
    if kind == "text" and body.text is not None:
        return body.text.body, [], None
    text = _readable(kind, body)
    return (text, [], None) if text else ("", [], kind)


def _readable(kind: str, body: wire.MessageBody) -> str:
    """Simple structured messages as the text a person would read; empty where we cannot."""
    if kind == "location" and body.location is not None:
        spot = body.location
        label = ", ".join(part for part in (spot.name, spot.address) if part)
        return f"📍 {label} ({spot.latitude}, {spot.longitude})".replace("  ", " ")
    if kind == "button" and body.button is not None:
        return body.button.text
    if kind == "reaction" and body.reaction is not None:
        return body.reaction.emoji
    if kind == "interactive" and body.interactive is not None:
        reply = body.interactive.button_reply or body.interactive.list_reply
        return reply.title if reply is not None else ""
    return ""


def _receipt(channel: Channel, raw: msgspec.Raw, path: str) -> Inbound | None:
    """None for statuses that are no delivery news (`deleted`, `warning`) or cannot be read: nothing is lost by that."""
    try:
        status = _status.decode(raw)
    except msgspec.ValidationError:
        return None
    kind = _STATUSES.get(status.status)
    if kind is None or not (status.recipient_id or status.recipient_user_id):
        return None
    ours = status.biz_opaque_callback_data
    identity = identity_of(status.recipient_id, status.recipient_user_id)
    command = RecordReceipt(
        channel=channel.id,
        status=kind,
        external_id=clean(status.id, EXTERNAL_ID_MAX_CHARS),
        message=ours if ours is not None and split_message(ours) is not None else None,
        error=_error(status.errors),
        at=_milliseconds(status.timestamp),
    )
    return Inbound(identity, command)


def _error(errors: list[wire.StatusError]) -> MessageError | None:
    if not errors:
        return None
    first = errors[0]
    detail = (first.error_data.details if first.error_data else None) or first.message or first.title or ""
    return MessageError(str(first.code), clean(detail, 500))


def _milliseconds(timestamp: str | int | None) -> int | None:
    """Meta sends epoch seconds as text. None where it is nothing of the kind."""
    text = str(timestamp)
    return int(text) * 1000 if text.isascii() and text.isdigit() and len(text) <= 12 else None
