"""An agent: follows the inbox, resumes where it was cut off, and checks what it sees."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

from bench.peers.socket import Socket
from bench.words import find

_POSITION = b'"position":"'
_RECEIVED = b'"event":{"type":"message.received"'
_MESSAGE = b',"message":{"id":"'
_SEQ = b'"seq":'


class Agent(Socket):
    """`seen(number, conversation, seq, at)` is called for each delivery of a message of this run."""

    def __init__(self, url: str, key: str, mark: bytes, seen: Callable[[int, int, int, float], None]) -> None:
        super().__init__(url)
        self._key = key
        self._mark = mark
        self._seen = seen
        self.position: str | None = None
        self.resyncs = 0
        self.subscribed = asyncio.Event()

    def opened(self) -> None:
        self.send(json.dumps({"type": "auth", "token": self._key}).encode())
        self.send(json.dumps({"type": "subscribe", "topic": "inbox", "position": self.position}).encode())

    def text(self, raw: bytes) -> None:
        at = time.perf_counter()
        if raw.startswith(b'{"type":"event"'):
            start = raw.index(_POSITION) + len(_POSITION)
            self.position = raw[start : raw.index(b'"', start)].decode()
            if _RECEIVED in raw:
                self._received(raw, at)
            return
        frame = json.loads(raw)
        if frame["type"] == "subscribed":
            if self.position is None:
                self.position = frame["position"]
            if not frame["recovered"]:
                self.resyncs += 1
            self.subscribed.set()

    def _received(self, raw: bytes, at: float) -> None:
        message = raw.rindex(_MESSAGE)
        found = find(raw[message:], self._mark)
        if found is None:
            return
        start = raw.index(_SEQ, message) + len(_SEQ)
        seq = int(raw[start : raw.index(b",", start)])
        self._seen(found[1], found[0], seq, at)
