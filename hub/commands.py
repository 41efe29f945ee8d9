"""Requests to an actor. Each may be refused; each is safe to send again.

A command travels from a gateway to the shard that owns its stream, packed with others into one call.
Whoever creates a message names it (`external_id` or `client_id`), so that a retry after a lost answer
finds the first one.
"""

from __future__ import annotations

import msgspec

from hub.model import Attachment, Author, ConversationStatus, MessageError, MessageStatus, Priority


class Command(msgspec.Struct, tag_field="type", kw_only=True, omit_defaults=True):
    """Something somebody wants done to one stream."""


class ReceiveMessage(Command, tag="receive_message"):
    """A customer wrote. `sent_at` is the provider's clock in epoch ms; `unsupported` names a type we only keep."""

    channel: str
    channel_kind: str
    identity: str
    address: str
    external_id: str
    text: str
    name: str | None = None
    sent_at: int | None = None
    unsupported: str | None = None
    attachments: list[Attachment] = []


class RecordReceipt(Command, tag="record_receipt"):
    """A provider tells what became of an outbound message: by our id where it has it, else by its own."""

    channel: str
    status: MessageStatus
    external_id: str | None = None
    message: str | None = None
    error: MessageError | None = None
    at: int | None = None


class SendMessage(Command, tag="send_message"):
    """An agent writes: `outbound` to the customer, `note` to colleagues. `if_seq`: the last seq the agent saw."""

    conversation: str
    author: Author
    text: str
    client_id: str
    kind: str = "outbound"
    if_seq: int | None = None


class StartConversation(Command, tag="start_conversation"):
    """An agent writes first. Joins the customer's conversation on that channel where there is one."""

    channel: str
    channel_kind: str
    identity: str
    address: str
    author: Author
    text: str
    client_id: str
    name: str | None = None


class UpdateConversation(Command, tag="update_conversation"):
    """Change what an agent may change. UNSET leaves a field alone; None clears it."""

    conversation: str
    by: Author
    status: ConversationStatus | msgspec.UnsetType = msgspec.UNSET
    priority: Priority | msgspec.UnsetType = msgspec.UNSET
    assignee: str | msgspec.UnsetType | None = msgspec.UNSET
    team: str | msgspec.UnsetType | None = msgspec.UNSET
    labels: list[str] | msgspec.UnsetType = msgspec.UNSET
    category: str | msgspec.UnsetType | None = msgspec.UNSET
    snoozed_until: int | msgspec.UnsetType | None = msgspec.UNSET


class MarkRead(Command, tag="mark_read"):
    """An agent has read up to `seq`."""

    conversation: str
    seq: int
    by: Author


class CustomerRead(Command, tag="customer_read"):
    """The customer's own device has shown our messages up to `seq` (`delivered`: it has only received them)."""

    conversation: str
    seq: int
    status: MessageStatus = "read"


class BeginDelivery(Command, tag="begin_delivery"):
    """The courier is about to hand a message to its provider for the `attempt`-th time."""

    conversation: str
    seq: int
    attempt: int


class DeferDelivery(Command, tag="defer_delivery"):
    """The provider did not take the `attempt`-th send and said so: it is safe to try again."""

    conversation: str
    seq: int
    attempt: int
    code: str


class FireTimer(Command, tag="fire_timer"):
    """A timer set for `due` (epoch ms) is due. Ignored where the state no longer asks for it."""

    conversation: str
    name: str
    due: int


class GetConversation(Command, tag="get_conversation"):
    conversation: str


class GetCustomer(Command, tag="get_customer"):
    pass


class UpdateCustomer(Command, tag="update_customer"):
    name: str | msgspec.UnsetType | None = msgspec.UNSET
    attributes: dict[str, str | None] | msgspec.UnsetType = msgspec.UNSET


class PutSetting(Command, tag="put_setting"):
    """Create or replace a setting of the tenant: a channel, an agent, an API key.

    `document` is its encoded form; `if_revision` 0 means it must not exist yet.
    """

    kind: str
    id: str
    document: bytes
    by: Author
    if_revision: int | None = None


class RemoveSetting(Command, tag="remove_setting"):
    kind: str
    id: str
    by: Author


AnyCommand = (
    ReceiveMessage
    | RecordReceipt
    | SendMessage
    | StartConversation
    | UpdateConversation
    | MarkRead
    | CustomerRead
    | BeginDelivery
    | DeferDelivery
    | FireTimer
    | GetConversation
    | GetCustomer
    | UpdateCustomer
    | PutSetting
    | RemoveSetting
)


class Invocation(msgspec.Struct, array_like=True):
    """A command on its way to the owner of `stream`."""

    tenant: str
    stream: str
    command: AnyCommand


class Done(msgspec.Struct, array_like=True, tag=True):
    """The command's outcome is durable. `offset` is its last event's, or the newest it depends on.

    `message`, `conversation` and `customer` are JSON, encoded once by the owner.
    """

    partition: int
    offset: int
    duplicate: bool = False
    message_id: str | None = None
    conversation_id: str | None = None
    message: bytes = b""
    conversation: bytes = b""
    customer: bytes = b""
    revision: int = 0


class Refused(msgspec.Struct, array_like=True, tag=True):
    """The command changed nothing. See `hub.errors` for the codes."""

    code: str
    detail: str
    retry_after_s: float = 0.0


Answer = Done | Refused
