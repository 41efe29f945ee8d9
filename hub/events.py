"""Decided facts, in the past tense: what the journal holds.

An event has a skeleton, stored in the clear (ids, seq, kinds, times), and for some types a `content`:
everything a person wrote or is called. Content is sealed with its stream's own key before it is
stored; once that key is erased the skeleton still replays and `content` reads as None.

Evolution: a new field gets a default; a field is never renamed or reused; an event type is never
removed. The golden store in the tests holds the first form of each of them.
"""

from __future__ import annotations

import msgspec

from hub.model import Attachment, ConversationStatus, MessageError, MessageKind, MessageStatus, Priority


class Content(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The personal part of an event; sealed at rest. One shape for all types keeps old records readable."""

    text: str = ""
    name: str | None = None
    address: str | None = None
    identity: str | None = None
    external_id: str | None = None
    author_name: str | None = None
    attachments: list[Attachment] = []
    attributes: dict[str, str | None] = {}
    document: bytes = b""


class Event(msgspec.Struct, tag_field="type", kw_only=True, omit_defaults=True):
    """Something that happened. `content` is set where the type has personal content and it is not erased."""

    content: Content | None = None


class CustomerCreated(Event, tag="customer.created"):
    channel: str
    channel_kind: str


class CustomerUpdated(Event, tag="customer.updated"):
    """`content.name` and `content.attributes` hold what changed; an attribute set to None is removed."""

    named: bool = False


class ConversationOpened(Event, tag="conversation.opened"):
    conversation: str
    channel: str
    channel_kind: str


class MessageReceived(Event, tag="message.received"):
    """The customer's message `seq`. `mark` is the fingerprint of its external id; `reopened` tells of a status change."""

    conversation: str
    seq: int
    mark: bytes
    sent_at: int
    unsupported: str | None = None
    reopened: bool = False


class MessageQueued(Event, tag="message.queued"):
    """An outbound message exists and waits for the courier. `content.address` is where it goes."""

    conversation: str
    seq: int
    author_type: str
    author_id: str | None
    client_id: str
    channel: str
    channel_kind: str


class NoteAdded(Event, tag="note.added"):
    conversation: str
    seq: int
    author_type: str
    author_id: str | None
    client_id: str
    kind: MessageKind = "note"


class MessageStatusChanged(Event, tag="message.status"):
    """Delivery news of message `seq`; `content.external_id` is set with the first one that knows it."""

    conversation: str
    seq: int
    status: MessageStatus
    error: MessageError | None = None


class DeliveryStarted(Event, tag="delivery.started"):
    """Written before the provider is called: after a crash it tells that an attempt may have gone out."""

    conversation: str
    seq: int
    attempt: int


class DeliveryDeferred(Event, tag="delivery.deferred"):
    """The provider answered that it did not take the attempt, so another one cannot double it."""

    conversation: str
    seq: int
    attempt: int
    code: str


class ReceiptHeld(Event, tag="receipt.held"):
    """A status for an external id nobody knows yet; applied as soon as the message learns its id."""

    status: MessageStatus
    error: MessageError | None = None


class ConversationUpdated(Event, tag="conversation.updated"):
    """UNSET means unchanged. `by` is an agent id, or None for the hub itself; `reason` says why in that case."""

    conversation: str
    by: str | None = None
    reason: str | None = None
    status: ConversationStatus | msgspec.UnsetType = msgspec.UNSET
    priority: Priority | msgspec.UnsetType = msgspec.UNSET
    assignee: str | msgspec.UnsetType | None = msgspec.UNSET
    team: str | msgspec.UnsetType | None = msgspec.UNSET
    labels: list[str] | msgspec.UnsetType = msgspec.UNSET
    category: str | msgspec.UnsetType | None = msgspec.UNSET
    snoozed_until: int | msgspec.UnsetType | None = msgspec.UNSET


class ConversationRead(Event, tag="conversation.read"):
    conversation: str
    seq: int
    by: str | None = None


class SettingChanged(Event, tag="setting.changed"):
    """`content.document` is the setting's encoded form. `spread` is a tenant's, repeated in the clear: it never changes."""

    kind: str
    id: str
    revision: int
    by: str | None = None
    spread: int = 1


class SettingRemoved(Event, tag="setting.removed"):
    kind: str
    id: str
    revision: int
    by: str | None = None


AnyEvent = (
    CustomerCreated
    | CustomerUpdated
    | ConversationOpened
    | MessageReceived
    | MessageQueued
    | NoteAdded
    | MessageStatusChanged
    | DeliveryStarted
    | DeliveryDeferred
    | ReceiptHeld
    | ConversationUpdated
    | ConversationRead
    | SettingChanged
    | SettingRemoved
)


def type_name(event: Event) -> str:
    """The public name, such as `message.received`."""
    return str(event.__struct_config__.tag)
