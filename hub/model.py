"""State of the actors, and the public shapes rendered from it.

State structs are what snapshots hold: new fields need defaults, so that old snapshots still open.
Public structs (`Conversation`, `Message`, `Customer`) are exactly what the API and the stream show.
"""

from __future__ import annotations

from typing import Literal

import msgspec

ConversationStatus = Literal["open", "pending", "snoozed", "resolved"]
Priority = Literal["none", "low", "medium", "high", "urgent"]
MessageKind = Literal["inbound", "outbound", "note", "activity"]
MessageStatus = Literal["queued", "sent", "delivered", "read", "failed", "uncertain"]
AuthorType = Literal["customer", "agent", "bot", "system"]

TEXT_MAX_CHARS = 8_192
NAME_MAX_CHARS = 256
LABELS_MAX_COUNT = 50
PREVIEW_MAX_CHARS = 160

# A status may only be replaced by one with a higher rank; `failed` and `read` are the ends of the road.
STATUS_RANK: dict[str, int] = {"queued": 0, "uncertain": 1, "sent": 2, "delivered": 3, "read": 4, "failed": 5}


class Author(msgspec.Struct, frozen=True):
    type: AuthorType
    id: str | None = None
    name: str | None = None


class Attachment(msgspec.Struct, frozen=True):
    """What is known of a file before it is fetched; `url` is ours, never the provider's."""

    kind: str
    name: str | None = None
    content_type: str | None = None
    size: int | None = None
    provider_ref: str | None = None


class MessageError(msgspec.Struct, frozen=True):
    code: str
    detail: str


class Sentiment(msgspec.Struct, frozen=True):
    label: str
    score: float


class Message(msgspec.Struct):
    """A message as the API shows it. `created_at` is RFC 3339."""

    id: str
    conversation: str
    seq: int
    kind: MessageKind
    author: Author
    text: str
    created_at: str
    attachments: list[Attachment] = []
    status: MessageStatus | None = None
    error: MessageError | None = None
    external_id: str | None = None
    client_id: str | None = None
    sentiment: Sentiment | None = None
    unsupported: str | None = None


class Preview(msgspec.Struct, frozen=True):
    """`last_message` of a conversation: enough for a row of the inbox."""

    id: str
    seq: int
    kind: MessageKind
    author: Author
    text: str
    created_at: str
    status: MessageStatus | None = None


class ChannelRef(msgspec.Struct, frozen=True):
    id: str
    kind: str


class CustomerRef(msgspec.Struct, frozen=True):
    id: str
    name: str | None


class Sla(msgspec.Struct, frozen=True):
    policy: str | None = None
    first_response_due: str | None = None
    next_response_due: str | None = None
    resolution_due: str | None = None
    breached: list[str] = []


class Conversation(msgspec.Struct):
    """A conversation as the API shows it. Times are RFC 3339."""

    id: str
    channel: ChannelRef
    customer: CustomerRef
    status: ConversationStatus
    priority: Priority
    assignee: str | None
    team: str | None
    labels: list[str]
    category: str | None
    sentiment: Sentiment | None
    unread: int
    waiting_since: str | None
    snoozed_until: str | None
    sla: Sla
    last_message: Preview | None
    seq: int
    created_at: str
    updated_at: str


class Identity(msgspec.Struct, frozen=True):
    """One address of a customer: `key` is its canonical form (`tel:+58…`), `channel` where it was first seen."""

    key: str
    address: str
    channel: str
    channel_kind: str


class Customer(msgspec.Struct):
    """A customer as the API shows it."""

    id: str
    name: str | None
    identities: list[Identity]
    conversations: list[str]
    attributes: dict[str, str]
    created_at: str
    updated_at: str
    last_seen_at: str | None


class ConversationState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Live state of a conversation actor. Times are epoch milliseconds."""

    id: str
    channel: str
    channel_kind: str
    address: str
    created_at: int
    updated_at: int
    status: ConversationStatus = "open"
    priority: Priority = "none"
    assignee: str | None = None
    team: str | None = None
    labels: list[str] = []
    category: str | None = None
    unread: int = 0
    seq: int = 0
    last_inbound_seq: int = 0
    read_seq: int = 0
    waiting_since: int | None = None
    snoozed_until: int | None = None
    last_message: Preview | None = None
    outbound: dict[int, Message] = {}
    """Outbound messages whose story is not over, by seq; see OUTBOUND_MAX_MESSAGES."""
    sent: bytearray = msgspec.field(default_factory=bytearray)
    """Dedupe window of client ids; see `hub.window`."""
    lang: str | None = None


class HeldReceipt(msgspec.Struct, frozen=True):
    """A provider's status that overtook our own knowledge of the message it speaks of."""

    external_id: str
    status: MessageStatus
    error: MessageError | None
    at: int


class CustomerState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Live state of a customer actor."""

    id: str
    tenant: str
    created_at: int = 0
    updated_at: int = 0
    last_seen_at: int | None = None
    name: str | None = None
    identities: list[Identity] = []
    attributes: dict[str, str] = {}
    opened: int = 0
    """How many conversations were ever opened; the next one's ordinal is one more."""
    by_channel: dict[str, int] = {}
    """Channel → ordinal of the conversation that a new message there belongs to."""
    seen: bytearray = msgspec.field(default_factory=bytearray)
    """Dedupe window of inbound external ids; see `hub.window`."""
    held: list[HeldReceipt] = []


class CustomerImage(msgspec.Struct, kw_only=True):
    """All live state of one customer stream: the customer and their conversations by ordinal."""

    customer: CustomerState
    conversations: dict[int, ConversationState] = {}


class TenantState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Live state of a tenant actor: which settings exist, and at what revision."""

    tenant: str
    created_at: int = 0
    name: str | None = None
    settings: dict[str, dict[str, int]] = {}
    """kind → id → revision. The settings themselves are documents, projected from the journal."""
    spread: int = 1
    """What the tenant's own setting said first. It counts once there is one."""


class TenantImage(msgspec.Struct, kw_only=True):
    tenant: TenantState
