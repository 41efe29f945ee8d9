"""A journal entry in memory: the event, and what readers need of the state it left behind.

A turn renders its conversation and message once; view, publication and answer share those bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hub import render
from hub.events import (
    ConversationOpened,
    ConversationRead,
    ConversationUpdated,
    CustomerCreated,
    CustomerUpdated,
    Event,
    MessageQueued,
    MessageReceived,
    MessageStatusChanged,
    NoteAdded,
    SettingChanged,
    SettingRemoved,
)
from hub.ids import ordinal_of
from hub.model import ConversationState, CustomerImage, Message
from hub.ports import ConversationRow, CustomerRow, MessageRow

_BRINGS_MESSAGE = (MessageReceived, MessageQueued, NoteAdded)
PUBLIC = (*_BRINGS_MESSAGE, MessageStatusChanged, ConversationOpened, ConversationUpdated, ConversationRead)
SETTINGS = (SettingChanged, SettingRemoved)
_CHANGES_CUSTOMER = (CustomerCreated, CustomerUpdated, ConversationOpened)


class Entry(msgspec.Struct):
    """One committed event. Rows are None where the event does not touch them."""

    partition: int
    offset: int
    at: int
    tenant: str
    stream: str
    event: Event
    conversation: ConversationRow | None = None
    message: MessageRow | None = None
    customer: CustomerRow | None = None
    renamed: Sequence[ConversationRow] = ()
    """Conversations that show their customer under a new name."""


def wake_at(state: ConversationState) -> int | None:
    """When the conversation's next timer is due."""
    return state.snoozed_until if state.status == "snoozed" else None


def conversation_row(image: CustomerImage, state: ConversationState, partition: int) -> ConversationRow:
    customer = image.customer
    last = state.last_message
    return ConversationRow(
        id=state.id,
        tenant=customer.tenant,
        partition=partition,
        customer=customer.id,
        channel=state.channel,
        status=state.status,
        priority=state.priority,
        assignee=state.assignee,
        team=state.team,
        labels=list(state.labels),
        created_at=state.created_at,
        updated_at=state.updated_at,
        wake_at=wake_at(state),
        search=f"{customer.name or ''} {state.address} {last.text if last else ''}".lower(),
        body=render.conversation_json(state, customer),
    )


def customer_row(image: CustomerImage, partition: int) -> CustomerRow:
    customer = image.customer
    words = [customer.name or "", *(identity.address for identity in customer.identities)]
    return CustomerRow(
        id=customer.id,
        tenant=customer.tenant,
        partition=partition,
        search=" ".join(words).lower(),
        updated_at=customer.updated_at,
        body=render.customer_json(image),
    )


def message_row(image: CustomerImage, event: Event, at: int) -> MessageRow | None:
    """The message an event made or changed, where the state still knows it."""
    if isinstance(event, _BRINGS_MESSAGE):
        message: Message | None = render.message_of(event, at, image.customer)
    elif isinstance(event, MessageStatusChanged):
        message = image.conversations[ordinal_of(event.conversation)].outbound.get(event.seq)
    else:
        return None
    return None if message is None else MessageRow(message.conversation, message.seq, render.message_json(message))


class Renderer:
    """Renders the entries of one turn (or of one replay), each conversation only once."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._rows: dict[str, ConversationRow] = {}

    def fill(self, entry: Entry, image: CustomerImage) -> Entry:
        event = entry.event
        target: str | None = getattr(event, "conversation", None)
        if target is not None and isinstance(event, PUBLIC):
            entry.conversation = self._row(image, image.conversations[ordinal_of(target)])
            entry.message = message_row(image, event, entry.at)
        if isinstance(event, _CHANGES_CUSTOMER):
            entry.customer = customer_row(image, self._partition)
        if isinstance(event, CustomerCreated) or (isinstance(event, CustomerUpdated) and event.named):
            entry.renamed = [self._row(image, state) for state in image.conversations.values()]
        return entry

    def _row(self, image: CustomerImage, state: ConversationState) -> ConversationRow:
        row = self._rows.get(state.id)
        if row is None:
            row = self._rows[state.id] = conversation_row(image, state, self._partition)
        return row
