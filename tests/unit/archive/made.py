"""Stores with a small history in them, made by the real actors' events and sealed as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from hub.archive.blocks import Block
from hub.archive.source import read_store
from hub.codec import encode_record
from hub.events import (
    Content,
    ConversationOpened,
    CustomerCreated,
    DeliveryStarted,
    Event,
    MessageQueued,
    MessageReceived,
    MessageStatusChanged,
    SettingChanged,
)
from hub.ids import conversation_id, crockford
from hub.ports import Append, Document, Store, StoredKey, StoredRecord
from hub.sealing import Cipher, Keyring
from hub.storage.memory import MemoryStore

KEYRING = Keyring(b"a secret of the archive's tests")
PARTITIONS = 4
AT = 1_790_000_000_000


def customer(partition: int, number: int) -> str:
    return f"cus_{crockford(partition, 3)}{crockford(number, 16)}"


class Writer:
    """Appends turns to a store, as a shard would."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._owned: dict[int, Any] = {}
        self._ciphers: dict[str, Cipher] = {}
        self._next: dict[int, int] = {}
        self.at = AT

    async def turn(self, stream: str, partition: int, *events: Event) -> int:
        """One turn, a second after the one before. Returns the offset of its last event."""
        if partition not in self._owned:
            self._owned[partition] = await self.store.journal.acquire(partition)
            self._next[partition] = self._owned[partition].next_offset
        keys = []
        if stream not in self._ciphers:
            self._ciphers[stream], wrapped = KEYRING.new_data_key(stream)
            keys.append(StoredKey(stream, wrapped))
        self.at += 1_000
        first = self._next[partition]
        records = [self._record(stream, first + n, event) for n, event in enumerate(events)]
        append = Append(partition, self._owned[partition].epoch, first, records, keys)
        assert await self.store.journal.append([append]) == [True]
        self._next[partition] += len(records)
        return self._next[partition] - 1

    def _record(self, stream: str, offset: int, event: Event) -> StoredRecord:
        cipher = self._ciphers[stream]
        body = encode_record(tenant="acme", stream=stream, offset=offset, at=self.at, event=event, cipher=cipher)
        return StoredRecord(offset, stream, body)

    async def contact(self, partition: int, number: int, text: str = "Hola") -> int:
        """A new customer's first message: three events of one turn."""
        stream = customer(partition, number)
        content = Content(name=f"Customer {number}", address="+58412", identity=f"tel:+{number}")
        return await self.turn(
            stream,
            partition,
            CustomerCreated(channel="wa", channel_kind="api", content=content),
            ConversationOpened(conversation=conversation_id(stream, 1), channel="wa", channel_kind="api"),
            received(stream, 1, text),
        )

    async def message(self, partition: int, number: int, seq: int, text: str) -> int:
        stream = customer(partition, number)
        return await self.turn(stream, partition, received(stream, seq, text))

    async def reply(self, partition: int, number: int, seq: int, *after: Event) -> int:
        stream = customer(partition, number)
        queued = MessageQueued(
            conversation=conversation_id(stream, 1), seq=seq, author_type="agent", author_id="ana",
            client_id=f"r{seq}", channel="wa", channel_kind="whatsapp",
            content=Content(text="Buenas", address="+58412", author_name="Ana"),
        )  # fmt: skip
        last = await self.turn(stream, partition, queued)
        for event in after:
            last = await self.turn(stream, partition, event)
        return last

    async def setting(self, kind: str, id: str) -> int:
        body = Content(document=b"document of " + id.encode())
        return await self.turn("ten_acme", 0, SettingChanged(kind=kind, id=id, revision=1, content=body))


def received(stream: str, seq: int, text: str) -> MessageReceived:
    return MessageReceived(
        conversation=conversation_id(stream, 1), seq=seq, mark=seq.to_bytes(8, "big"), sent_at=AT,
        content=Content(text=text, external_id=f"x{seq}"),
    )  # fmt: skip


def sent(stream: str, seq: int) -> MessageStatusChanged:
    return MessageStatusChanged(conversation=conversation_id(stream, 1), seq=seq, status="sent")


def begun(stream: str, seq: int) -> DeliveryStarted:
    return DeliveryStarted(conversation=conversation_id(stream, 1), seq=seq, attempt=1)


async def small_store(customers: int = 6) -> tuple[MemoryStore, Writer]:
    """Customers in every partition, settings, documents, claimed names."""
    store = MemoryStore(PARTITIONS)
    writer = Writer(store)
    await writer.setting("agent", "agt_ana")
    await store.documents.put(
        [Document("agent", "agt_ana", "acme", 1, b"a"), Document("refresh", "f", "acme", 3, b"f")]
    )
    await store.documents.claim("email", "ana@acme.test", "acme/agt_ana")
    for number in range(customers):
        await writer.contact(number % PARTITIONS, number)
        await writer.message(number % PARTITIONS, number, 2, "¿Está abierto?")
    return store, writer


async def blocks_of_store(store: Store, **more: Any) -> list[Block]:
    return [block async for block in read_store(store, secret=KEYRING.fingerprint, now=AT, **more)]


async def stream_of(blocks: Iterable[Block]) -> AsyncIterator[Block]:
    for block in blocks:
        yield block


async def records_of(store: Store) -> list[list[StoredRecord]]:
    return [await store.journal.read(number, 0, 100_000) for number in range(store.partitions)]
