"""The journal as it is, read behind everybody's back: what the checkers hold everything else against."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.activation import BEHAVIOURS
from hub.codec import decode_record
from hub.events import Event
from hub.sealing import Cipher
from hub.storage.memory import MemoryStore
from tests.simulation.cluster import KEYRING
from tests.simulation.loop import run_now


class Fact(msgspec.Struct):
    partition: int
    offset: int
    stream: str
    tenant: str
    at: int
    event: Event


class Journal:
    def __init__(self, entries: list[Fact]) -> None:
        self.entries = entries

    @classmethod
    def read(cls, store: MemoryStore) -> Journal:
        facts = []
        ciphers: dict[str, Cipher | None] = {}
        for partition in range(store.partitions):
            for record in run_now(store.journal.read(partition, 0, 1_000_000)):
                stream = record.stream
                if stream not in ciphers:
                    wrapped = run_now(store.journal.keys([stream])).get(stream)
                    ciphers[stream] = KEYRING.unwrap(stream, wrapped) if wrapped is not None else None
                opened = decode_record(record.body, stream=stream, offset=record.offset, cipher=ciphers[stream])
                facts.append(Fact(partition, record.offset, stream, opened.tenant, opened.at, opened.event))
        return cls(facts)

    def of(self, *kinds: type[Any]) -> list[Any]:
        """(fact, event) of these types, in order."""
        return [(fact, fact.event) for fact in self.entries if isinstance(fact.event, kinds)]

    def images(self) -> dict[str, Any]:
        """Every stream's state, replayed from zero."""
        images: dict[str, Any] = {}
        for fact in self.entries:
            behaviour: Any = BEHAVIOURS[fact.stream[:3]]
            if fact.stream not in images:
                images[fact.stream] = behaviour.empty(fact.stream, fact.tenant)
            behaviour.apply(images[fact.stream], fact.event, fact.at)
        return images
