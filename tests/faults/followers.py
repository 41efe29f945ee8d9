"""Those who watch: agents that follow an inbox and come back to where they were cut off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random

import msgspec
import websockets

from bench.words import find
from tests.faults.writers import connect

RECONNECT_AFTER_S = 0.1
OPEN_TIMEOUT_S = 10.0


class Message(msgspec.Struct):
    id: str
    conversation: str
    seq: int
    text: str | None = None


class Event(msgspec.Struct):
    type: str
    message: Message | None = None


class Frame(msgspec.Struct):
    type: str
    position: str | None = None
    recovered: bool = True
    event: Event | None = None


class Follower:
    """`seen[writer]` are the numbers of that writer's messages, as they came."""

    def __init__(self, name: str, *, key: str, mark: str, urls: list[str]) -> None:
        self.name = name
        self.seen: dict[int, list[int]] = {}
        self.misplaced = 0
        """Events whose seq was not above the last one of their conversation."""
        self.resyncs = 0
        self.reconnects = -1
        self.following = asyncio.Event()
        self._key = key
        self._mark = mark
        self._urls = urls
        self._position: str | None = None
        self._last_seq: dict[str, int] = {}
        self._decode = msgspec.json.Decoder(Frame).decode

    async def follow(self) -> None:
        """For ever; cancel it."""
        while True:
            with contextlib.suppress(OSError, EOFError, TimeoutError, websockets.WebSocketException):
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    socket = await connect(random.choice(self._urls) + "/v1/stream")
                try:
                    await self._watch(socket)
                finally:
                    await socket.close()
            await asyncio.sleep(RECONNECT_AFTER_S * (0.5 + random.random()))

    async def _watch(self, socket: websockets.ClientConnection) -> None:
        self.reconnects += 1
        await socket.send(json.dumps({"type": "auth", "token": self._key}))
        await socket.send(json.dumps({"type": "subscribe", "topic": "inbox", "position": self._position}))
        async for raw in socket:
            frame = self._decode(raw)
            if frame.type == "subscribed":
                self._position = self._position or frame.position
                self.resyncs += not frame.recovered
                self.following.set()
            elif frame.event is not None:
                self._position = frame.position
                if frame.event.message is not None and frame.event.type in ("message.received", "message.queued"):
                    self._note(frame.event.message)

    def _note(self, message: Message) -> None:
        found = find(message.text or "", self._mark)
        if found is None:
            return
        self.misplaced += message.seq <= self._last_seq.get(message.conversation, 0)
        self._last_seq[message.conversation] = message.seq
        self.seen.setdefault(found[0], []).append(found[1])
