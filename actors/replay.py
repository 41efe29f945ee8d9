"""A customer, their conversations and messages as they were at some moment, from the journal alone."""

from __future__ import annotations

from typing import Any

import msgspec

from actors import customer
from hub import render
from hub.codec import decode_record
from hub.events import Event, MessageQueued, MessageReceived, MessageStatusChanged, NoteAdded
from hub.ids import conversation_id, customer_of, is_customer, ordinal_of, stream_partition
from hub.model import STATUS_RANK, CustomerImage, Message
from hub.ports import Store, StoredRecord
from hub.sealing import Cipher, Keyring, Unsealable

READ_MAX_EVENTS = 1_000


class Past:
    """One customer stream, replayed event by event through the same functions that made it."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.image: CustomerImage = customer.empty(stream, "")
        self.messages: dict[str, dict[int, Message]] = {}
        self.offset = 0
        self.at = 0
        self.erased: set[tuple[str, int]] = set()
        """(conversation, seq) of messages whose words were erased."""
        self.sealed_away = False
        """Some content could not be opened: its key was erased."""

    def follow(self, record: StoredRecord, cipher: Cipher | None, until: int | None) -> bool:
        """Take one event in. False where it came after `until` (epoch ms): the moment is reached."""
        opened, erased = _open(record, cipher)
        if until is not None and opened.at > until:
            return False
        self.image.customer.tenant = opened.tenant
        customer.apply(self.image, opened.event, opened.at)
        self._message(opened.event, opened.at)
        self.sealed_away |= erased
        if erased and isinstance(opened.event, MessageReceived | MessageQueued | NoteAdded):
            self.erased.add((opened.event.conversation, opened.event.seq))
        self.offset, self.at = record.offset, opened.at
        return True

    def _message(self, event: Event, at: int) -> None:
        if isinstance(event, MessageReceived | MessageQueued | NoteAdded):
            message = render.message_of(event, at, self.image.customer)
            self.messages.setdefault(event.conversation, {})[event.seq] = message
        elif isinstance(event, MessageStatusChanged):
            known = self.messages.get(event.conversation, {}).get(event.seq)
            if known is None:
                return
            if event.content is not None and event.content.external_id is not None:
                known.external_id = event.content.external_id
            if STATUS_RANK[event.status] >= STATUS_RANK[known.status or "queued"]:
                known.status, known.error = event.status, event.error

    def shown(self, conversation: str | None = None) -> dict[str, Any]:
        """As JSON shows it: the customer, and that conversation or all of them, each with its messages."""
        ordinals = [n for n in self.image.conversations if conversation in (None, conversation_id(self.stream, n))]
        return {
            "customer": msgspec.json.decode(render.customer_json(self.image)),
            "conversations": [self._conversation(ordinal) for ordinal in ordinals],
        }

    def _conversation(self, ordinal: int) -> dict[str, Any]:
        state = self.image.conversations[ordinal]
        messages = []
        for seq, message in sorted(self.messages.get(state.id, {}).items()):
            shown = msgspec.to_builtins(message)
            shown["erased"] = (state.id, seq) in self.erased
            messages.append(shown)
        found: dict[str, Any] = msgspec.json.decode(render.conversation_json(state, self.image.customer))
        return {**found, "messages": messages}


def _open(record: StoredRecord, cipher: Cipher | None) -> tuple[Any, bool]:
    """The record, and whether content it has could not be opened. An erased stream may have a newer key, which opens what came after."""
    stream, offset = record.stream, record.offset
    try:
        opened = decode_record(record.body, stream=stream, offset=offset, cipher=cipher)
    except Unsealable:
        opened = decode_record(record.body, stream=stream, offset=offset, cipher=None)
    return opened, opened.sealed is not None and opened.event.content is None


def stream_of(id: str) -> str | None:
    """The stream of a customer's or conversation's id, or None where it is neither."""
    return id if is_customer(id) else customer_of(id)


async def replay(store: Store, keyring: Keyring, stream: str, until: int | None) -> Past:
    """The stream as it was at `until` (epoch ms), or as it is. Reads the journal only. Raises StoreUnavailable."""
    partition = stream_partition(stream, store.partitions)
    past = Past(stream)
    if partition >= store.partitions:
        return past
    wrapped = (await store.journal.keys([stream])).get(stream)
    cipher = keyring.unwrap(stream, wrapped) if wrapped is not None else None
    after = 0
    while records := await store.journal.history(partition, stream, after, READ_MAX_EVENTS):
        for record in records:
            if not past.follow(record, cipher, until):
                return past
        after = records[-1].offset
    return past


def has(past: Past, id: str) -> bool:
    """Was this customer or conversation there at that moment?"""
    return past.offset > 0 and (id == past.stream or ordinal_of(id) in past.image.conversations)
