"""Which outbound messages were under way where a journal ends. Pure.

The hub that goes on from a backup cannot know what the old one sent after it. To send again might double a message; so a restore writes,
for each message that nobody had taken down as sent or failed, that an attempt was begun. That is the truth as far as anybody can
know, and the courier knows what to do with it: repeat where the provider recognises a repeat, `uncertain` where it does not.
"""

from __future__ import annotations

import msgspec

from hub.codec import decode_record, encode_record
from hub.events import DeliveryDeferred, DeliveryStarted, MessageQueued, MessageStatusChanged
from hub.ports import StoredRecord


class _Outbound(msgspec.Struct):
    tenant: str
    stream: str
    attempt: int = 0
    begun: bool = False


class InHand:
    """Follows the records of one partition."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, int], _Outbound] = {}

    def follow(self, record: StoredRecord) -> None:
        opened = decode_record(record.body, stream=record.stream, offset=record.offset, cipher=None)
        event = opened.event
        if isinstance(event, MessageQueued):
            self._messages[event.conversation, event.seq] = _Outbound(opened.tenant, record.stream)
        elif isinstance(event, DeliveryStarted | DeliveryDeferred):
            message = self._messages.get((event.conversation, event.seq))
            if message is not None:
                message.attempt, message.begun = event.attempt, isinstance(event, DeliveryStarted)
        elif isinstance(event, MessageStatusChanged):
            self._messages.pop((event.conversation, event.seq), None)

    def attempts(self, first_offset: int, at: int) -> list[StoredRecord]:
        """The records to add."""
        added: list[StoredRecord] = []
        for (conversation, seq), message in self._messages.items():
            if message.begun:
                continue
            event = DeliveryStarted(conversation=conversation, seq=seq, attempt=message.attempt + 1)
            offset, stream = first_offset + len(added), message.stream
            body = encode_record(tenant=message.tenant, stream=stream, offset=offset, at=at, event=event, cipher=None)
            added.append(StoredRecord(offset, stream, body))
        return added


def is_attempt(record: StoredRecord) -> bool:
    opened = decode_record(record.body, stream=record.stream, offset=record.offset, cipher=None)
    return isinstance(opened.event, DeliveryStarted)
