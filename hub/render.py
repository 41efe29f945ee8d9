"""Public JSON of what actors know. Each thing is encoded here once, by its owner, and copied from then on:
into the answer, the publication and the view.
"""

from __future__ import annotations

import msgspec

from hub.clock import rfc3339
from hub.events import Content, MessageQueued, MessageReceived, NoteAdded
from hub.ids import conversation_id, message_id
from hub.model import (
    PREVIEW_MAX_CHARS,
    Author,
    ChannelRef,
    Conversation,
    ConversationState,
    Customer,
    CustomerImage,
    CustomerRef,
    CustomerState,
    Message,
    Preview,
    Sla,
)

_encode = msgspec.json.Encoder().encode
_decode_message = msgspec.json.Decoder(Message).decode
_NOTHING = Content()
_NO_SLA = Sla()


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def message_of(event: MessageReceived | MessageQueued | NoteAdded, at: int, customer: CustomerState) -> Message:
    """The message that an event brought into being."""
    content = event.content or _NOTHING
    message = Message(
        id=message_id(event.conversation, event.seq),
        conversation=event.conversation,
        seq=event.seq,
        kind="inbound",
        author=Author("customer", customer.id, customer.name),
        text=content.text,
        created_at=rfc3339(at),
        attachments=content.attachments,
    )
    if isinstance(event, MessageReceived):
        message.external_id = content.external_id
        message.unsupported = event.unsupported
        return message
    message.author = Author(event.author_type, event.author_id, content.author_name)  # type: ignore[arg-type]
    message.client_id = event.client_id
    if isinstance(event, MessageQueued):
        message.kind, message.status = "outbound", "queued"
    else:
        message.kind = event.kind
    return message


def preview_of(message: Message) -> Preview:
    return Preview(
        message.id,
        message.seq,
        message.kind,
        message.author,
        message.text[:PREVIEW_MAX_CHARS],
        message.created_at,
        message.status,
    )


def message_json(message: Message) -> bytes:
    return _encode(message)


def message_from_json(body: bytes) -> Message:
    return _decode_message(body)


def conversation_json(state: ConversationState, customer: CustomerState) -> bytes:
    return _encode(
        Conversation(
            id=state.id,
            channel=ChannelRef(state.channel, state.channel_kind),
            customer=CustomerRef(customer.id, customer.name),
            status=state.status,
            priority=state.priority,
            assignee=state.assignee,
            team=state.team,
            labels=state.labels,
            category=state.category,
            sentiment=None,
            unread=state.unread,
            waiting_since=_time(state.waiting_since),
            snoozed_until=_time(state.snoozed_until),
            sla=_NO_SLA,
            last_message=state.last_message,
            seq=state.seq,
            created_at=rfc3339(state.created_at),
            updated_at=rfc3339(state.updated_at),
        )
    )


def customer_json(image: CustomerImage) -> bytes:
    state = image.customer
    return _encode(
        Customer(
            id=state.id,
            name=state.name,
            identities=state.identities,
            conversations=[conversation_id(state.id, n) for n in image.conversations],
            attributes=state.attributes,
            created_at=rfc3339(state.created_at),
            updated_at=rfc3339(state.updated_at),
            last_seen_at=_time(state.last_seen_at),
        )
    )


def event_json(kind: str, conversation: bytes, message: bytes, at: int) -> bytes:
    """The `event` of a stream frame. Either part may be absent."""
    parts = [b'{"type":"', kind.encode(), b'"']
    if conversation:
        parts += (b',"conversation":', conversation)
    if message:
        parts += (b',"message":', message)
    parts += (b',"at":"', rfc3339(at).encode(), b'"}')
    return b"".join(parts)
