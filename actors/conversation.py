"""The conversation actor: one thread of messages with one customer on one channel.

`decide` functions look at the state and return events; `apply` changes the state by an event and never
refuses. Both are pure: no clock, no I/O, no randomness of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from actors.decision import Decision
from hub import render
from hub.commands import (
    BeginDelivery,
    CustomerRead,
    DeferDelivery,
    FireTimer,
    MarkRead,
    ReceiveMessage,
    SendMessage,
    UpdateConversation,
)
from hub.errors import Conflict, InvalidFields, Overloaded, StaleReply
from hub.events import (
    Content,
    ConversationOpened,
    ConversationRead,
    ConversationUpdated,
    DeliveryDeferred,
    DeliveryStarted,
    Event,
    MessageQueued,
    MessageReceived,
    MessageStatusChanged,
    NoteAdded,
)
from hub.ids import message_id
from hub.model import STATUS_RANK, ConversationState, CustomerState, Message, MessageError, MessageStatus
from hub.window import find, fingerprint, remember

OUTBOUND_MAX_MESSAGES = 64
_SETTLED = ("read", "failed")
_CHANGEABLE = ("priority", "assignee", "team", "labels", "category")


def new(event: ConversationOpened, at: int) -> ConversationState:
    content = event.content or Content()
    return ConversationState(
        id=event.conversation,
        channel=event.channel,
        channel_kind=event.channel_kind,
        address=content.address or "",
        created_at=at,
        updated_at=at,
    )


def next_seq(state: ConversationState | None) -> int:
    return 1 if state is None else state.seq + 1


# --- decide -------------------------------------------------------------------------------------------------------


def receive(
    conversation: str, state: ConversationState | None, command: ReceiveMessage, *, mark: bytes, at: int
) -> Decision:
    seq = next_seq(state)
    content = Content(text=command.text, external_id=command.external_id, attachments=command.attachments)
    event = MessageReceived(
        conversation=conversation,
        seq=seq,
        mark=mark,
        sent_at=at,
        unsupported=command.unsupported,
        reopened=state is not None and state.status != "open",
        content=content,
    )
    return Decision([event], conversation, message_id(conversation, seq))


def send(
    conversation: str, state: ConversationState | None, command: SendMessage, *, channel: str, kind: str, address: str
) -> Decision:
    """Queue an outbound message or add a note. `state` is None where this very message opens the conversation."""
    if state is not None:
        earlier = find(state.sent, fingerprint(command.client_id))
        if earlier is not None:
            return Decision([], conversation, message_id(conversation, earlier[1]), duplicate=True)
        if command.if_seq is not None and command.if_seq < state.last_inbound_seq:
            raise StaleReply(
                f"the customer's message {state.last_inbound_seq} came after {command.if_seq}; read it first"
            )
    if not command.text.strip():
        raise InvalidFields(fields={"text": "must not be empty"})
    if command.kind == "outbound" and state is not None:
        _has_room(state)
    seq = next_seq(state)
    author = command.author
    event: Event
    if command.kind == "outbound":
        event = MessageQueued(
            conversation=conversation,
            seq=seq,
            author_type=author.type,
            author_id=author.id,
            client_id=command.client_id,
            channel=channel,
            channel_kind=kind,
            content=Content(text=command.text, author_name=author.name, address=address),
        )
    else:
        event = NoteAdded(
            conversation=conversation,
            seq=seq,
            author_type=author.type,
            author_id=author.id,
            client_id=command.client_id,
            content=Content(text=command.text, author_name=author.name),
        )
    return Decision([event], conversation, message_id(conversation, seq))


def _has_room(state: ConversationState) -> None:
    """A message that still waits must not be forgotten: it would never be sent."""
    if len(state.outbound) >= OUTBOUND_MAX_MESSAGES and all(m.status == "queued" for m in state.outbound.values()):
        raise Overloaded(
            f"{OUTBOUND_MAX_MESSAGES} messages of this conversation still wait to be sent", retry_after_s=1
        )


def update(state: ConversationState, command: UpdateConversation, now: int) -> Decision:
    event = ConversationUpdated(conversation=state.id, by=command.by.id)
    changed = False
    for name in _CHANGEABLE:
        wanted = getattr(command, name)
        if wanted is not UNSET and wanted != getattr(state, name):
            setattr(event, name, wanted)
            changed = True
    return Decision([event] if _decide_status(state, command, event, now) or changed else [], state.id)


def _decide_status(state: ConversationState, command: UpdateConversation, event: ConversationUpdated, now: int) -> bool:
    """Status and snooze belong together: `snoozed_until` alone snoozes, any other status ends a snooze."""
    status, until = command.status, command.snoozed_until
    if until is not UNSET and until is not None:
        if status not in (UNSET, "snoozed"):
            raise InvalidFields(fields={"snoozed_until": f"cannot be set together with status {status}"})
        if until <= now:
            raise InvalidFields(fields={"snoozed_until": "must lie in the future"})
        status = "snoozed"
    elif until is None and status is UNSET and state.status == "snoozed":
        status = "open"
    if status is UNSET:
        return False
    wake = until if status == "snoozed" and until is not UNSET else None
    if status == state.status and wake == state.snoozed_until:
        return False
    event.status, event.snoozed_until = status, wake
    return True


def mark_read(state: ConversationState, command: MarkRead) -> Decision:
    seq = min(command.seq, state.seq)
    if state.unread == 0 or seq <= state.read_seq:
        return Decision([], state.id)
    return Decision([ConversationRead(conversation=state.id, seq=seq, by=command.by.id)], state.id)


def customer_read(state: ConversationState, command: CustomerRead) -> Decision:
    events: list[Event] = [
        MessageStatusChanged(conversation=state.id, seq=seq, status=command.status)
        for seq, message in state.outbound.items()
        if seq <= command.seq and moves_forward(message.status, command.status)
    ]
    return Decision(events, state.id)


def begin_delivery(state: ConversationState, command: BeginDelivery) -> Decision:
    message = state.outbound.get(command.seq)
    if message is None or message.status != "queued":
        raise Conflict("the message is no longer waiting to be sent")
    return Decision([DeliveryStarted(conversation=state.id, seq=command.seq, attempt=command.attempt)], state.id)


def defer_delivery(state: ConversationState, command: DeferDelivery) -> Decision:
    event = DeliveryDeferred(conversation=state.id, seq=command.seq, attempt=command.attempt, code=command.code)
    return Decision([event], state.id)


def fire_timer(state: ConversationState, command: FireTimer, now: int) -> Decision:
    """A snooze ends. The state decides: a timer it no longer asks for, or not yet, changes nothing."""
    if state.status != "snoozed" or state.snoozed_until is None or state.snoozed_until > now:
        return Decision([], state.id)
    event = ConversationUpdated(conversation=state.id, reason="snooze_due", status="open", snoozed_until=None)
    return Decision([event], state.id)


def receipt(
    state: ConversationState, seq: int, status: MessageStatus, external_id: str | None, error: MessageError | None
) -> Event | None:
    """The event a provider's news makes, or None where it is old news."""
    message = state.outbound.get(seq)
    if message is None:
        return None
    learns = external_id is not None and message.external_id is None
    if not moves_forward(message.status, status):
        if not learns:
            return None
        status, error = message.status or status, message.error
    content = Content(external_id=external_id) if learns else None
    return MessageStatusChanged(conversation=state.id, seq=seq, status=status, error=error, content=content)


def moves_forward(now: MessageStatus | None, then: MessageStatus) -> bool:
    if now is None or now in _SETTLED or (then == "failed" and now == "delivered"):
        return False
    return STATUS_RANK[then] > STATUS_RANK[now]


# --- apply --------------------------------------------------------------------------------------------------------


def apply(state: ConversationState, event: Event, at: int, customer: CustomerState) -> None:
    handler = _APPLY.get(type(event))
    if handler is not None:
        handler(state, event, at, customer)
        state.updated_at = max(state.updated_at, at)


def _apply_received(state: ConversationState, event: MessageReceived, at: int, customer: CustomerState) -> None:
    state.seq = state.last_inbound_seq = event.seq
    state.unread += 1
    if state.waiting_since is None:
        state.waiting_since = at
    state.status, state.snoozed_until = "open", None
    state.last_message = render.preview_of(render.message_of(event, at, customer))


def _apply_queued(state: ConversationState, event: MessageQueued, at: int, customer: CustomerState) -> None:
    message = render.message_of(event, at, customer)
    _remember_sent(state, event, message)
    state.outbound[event.seq] = message
    _bound_outbound(state)
    state.waiting_since = None
    state.unread, state.read_seq = 0, event.seq


def _apply_note(state: ConversationState, event: NoteAdded, at: int, customer: CustomerState) -> None:
    _remember_sent(state, event, render.message_of(event, at, customer))


def _remember_sent(state: ConversationState, event: MessageQueued | NoteAdded, message: Message) -> None:
    state.seq = event.seq
    remember(state.sent, fingerprint(event.client_id), 0, event.seq)
    state.last_message = render.preview_of(message)


def _bound_outbound(state: ConversationState) -> None:
    """Forget the oldest finished message first, else the oldest that has left: its later news no longer find it."""
    while len(state.outbound) > OUTBOUND_MAX_MESSAGES:
        settled = (seq for seq, message in state.outbound.items() if message.status in _SETTLED)
        left = (seq for seq, message in state.outbound.items() if message.status != "queued")
        del state.outbound[next(settled, next(left, next(iter(state.outbound))))]


def _apply_status(state: ConversationState, event: MessageStatusChanged, at: int, customer: CustomerState) -> None:
    message = state.outbound.get(event.seq)
    if message is None:
        return
    message.status, message.error = event.status, event.error
    if event.content is not None and event.content.external_id is not None:
        message.external_id = event.content.external_id
    if state.last_message is not None and state.last_message.seq == event.seq:
        state.last_message = render.preview_of(message)


def _apply_updated(state: ConversationState, event: ConversationUpdated, at: int, customer: CustomerState) -> None:
    for name in (*_CHANGEABLE, "status", "snoozed_until"):
        value = getattr(event, name)
        if value is not UNSET:
            setattr(state, name, value)


def _apply_read(state: ConversationState, event: ConversationRead, at: int, customer: CustomerState) -> None:
    state.read_seq = event.seq
    state.unread = 0 if event.seq >= state.last_inbound_seq else min(state.unread, state.last_inbound_seq - event.seq)


_APPLY: dict[type[Event], Callable[[ConversationState, Any, int, CustomerState], None]] = {
    MessageReceived: _apply_received,
    MessageQueued: _apply_queued,
    NoteAdded: _apply_note,
    MessageStatusChanged: _apply_status,
    ConversationUpdated: _apply_updated,
    ConversationRead: _apply_read,
}
