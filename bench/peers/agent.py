"""An agent: follows the inbox, resumes where it was cut off, and checks what it sees."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import msgspec

from bench.peers.socket import Socket
from bench.words import find


class Message(msgspec.Struct):
    seq: int
    text: str | None = None


class Event(msgspec.Struct):
    type: str
    message: Message | None = None


class Frame(msgspec.Struct):
    """What a measuring agent reads of any frame of the stream."""

    type: str
    position: str | None = None
    recovered: bool = True
    event: Event | None = None


class Agent(Socket):
    """`seen(number, conversation, seq, at)` is called for each delivery of a message of this run."""

    def __init__(self, url: str, key: str, mark: str, seen: Callable[[int, int, int, float], None]) -> None:
        super().__init__(url)
        self._key = key
        self._mark = mark
        self._seen = seen
        self._decode = msgspec.json.Decoder(Frame).decode
        self.position: str | None = None
        self.resyncs = 0
        self.subscribed = asyncio.Event()

    def opened(self) -> None:
        self.send(json.dumps({"type": "auth", "token": self._key}).encode())
        self.send(json.dumps({"type": "subscribe", "topic": "inbox", "position": self.position}).encode())

    def text(self, raw: bytes) -> None:
        at = time.perf_counter()
        frame = self._decode(raw)
        if frame.event is not None:
            self.position = frame.position
            if frame.event.type == "message.received" and frame.event.message is not None:
                self._received(frame.event.message, at)
        elif frame.type == "subscribed":
            if self.position is None:
                self.position = frame.position
            if not frame.recovered:
                self.resyncs += 1
            self.subscribed.set()

    def _received(self, message: Message, at: float) -> None:
        found = find(message.text or "", self._mark)
        if found is not None:
            self._seen(found[1], found[0], message.seq, at)
