"""The wire between a gateway and a shard: one TCP connection, length-prefixed frames, both ways. Ray-free.

Ray names the processes, places and restarts them; this carries the messages. A Ray call costs both sides about
3 ms of CPU on a small machine, most of it in threads handing over to each other, which a batch of twenty commands
cannot pay for; a frame costs 0.1 ms. One connection keeps the order, so feeds never overtake each other.

    frame      length (4 bytes, big endian), kind (1 byte), payload
    H hello    gateway → shard: secret, NUL, the gateway's name
    C commands gateway → shard: number (4 bytes), list[Invocation]
    A answers  shard → gateway: number (4 bytes), list[Answer]
    F feeds    shard → gateway: list[Feed]
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import struct
from collections.abc import Awaitable, Callable
from typing import cast

from hub.codec import decode_answers, decode_invocations, encode
from hub.commands import Answer, Invocation

log = logging.getLogger("hub.wire")

FRAME_MAX_BYTES = 64 * 1024 * 1024
FEEDS_BUFFER_MAX_BYTES = 64 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0
_HEAD = struct.Struct(">IB")
_NUMBER = struct.Struct(">I")
HELLO, COMMANDS, ANSWERS, FEEDS = b"HCAF"


class Disconnected(Exception):
    """The other side is gone; what was under way may or may not have happened."""


class Frames(asyncio.Protocol):
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not of the class, but of its kind

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= _HEAD.size:
            length, kind = _HEAD.unpack_from(buffer, at)
            if length > FRAME_MAX_BYTES:
                self.drop("a frame is too large")
                return
            end = at + _HEAD.size + length
            if len(buffer) < end:
                break
            self.frame(kind, bytes(memoryview(buffer)[at + _HEAD.size : end]))
            at = end
        if at:
            del buffer[:at]

    def frame(self, kind: int, payload: bytes) -> None:
        raise NotImplementedError

    def write(self, kind: int, *parts: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            raise Disconnected
        self.transport.writelines([_HEAD.pack(sum(map(len, parts)), kind), *parts])

    def drop(self, why: str) -> None:
        log.warning("dropping a connection: %s", why)
        if self.transport is not None:
            self.transport.abort()


class ShardSide(Frames):
    """A gateway's connection, as the shard sees it."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener
        self.gateway: str | None = None

    def frame(self, kind: int, payload: bytes) -> None:
        if self.gateway is None:
            secret, _, name = payload.partition(b"\0")
            if kind != HELLO or not hmac.compare_digest(secret, self._listener.secret):
                self.drop("it did not know the secret")
                return
            self.gateway = name.decode()
            self._listener.gateways[self.gateway] = self
        elif kind == COMMANDS:
            task = asyncio.get_running_loop().create_task(self._answer(payload))
            self._listener.tasks.add(task)
            task.add_done_callback(self._listener.tasks.discard)

    async def _answer(self, payload: bytes) -> None:
        answers = await self._listener.submit(decode_invocations(memoryview(payload)[_NUMBER.size :]))
        try:
            self.write(ANSWERS, payload[: _NUMBER.size], encode(answers))
        except Disconnected:
            log.info("%s left before its answers", self.gateway)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.gateway is not None and self._listener.gateways.get(self.gateway) is self:
            del self._listener.gateways[self.gateway]


class Listener:
    """Where gateways connect to a shard."""

    def __init__(self, secret: bytes, submit: Callable[[list[Invocation]], Awaitable[list[Answer]]]) -> None:
        self.secret = secret.hex().encode()
        self.submit = submit
        self.gateways: dict[str, ShardSide] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str) -> int:
        """Listen on a free port of `host`, and return it."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ShardSide(self), host, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def send_feeds(self, gateway: str, feeds: bytes) -> None:
        """Raises Disconnected where the gateway is not connected, or too far behind to be worth queueing for."""
        side = self.gateways.get(gateway)
        if side is None or side.transport is None:
            raise Disconnected
        if side.transport.get_write_buffer_size() > FEEDS_BUFFER_MAX_BYTES:
            raise Disconnected
        side.write(FEEDS, feeds)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for side in list(self.gateways.values()):
            if side.transport is not None:
                side.transport.close()


class GatewaySide(Frames):
    """A connection to a shard, as the gateway sees it."""

    def __init__(self, on_feeds: Callable[[bytes], None]) -> None:
        super().__init__()
        self._on_feeds = on_feeds
        self._waiting: dict[int, asyncio.Future[list[Answer]]] = {}
        self._number = 0

    @classmethod
    async def connect(
        cls, host: str, port: int, *, secret: bytes, gateway: str, on_feeds: Callable[[bytes], None]
    ) -> GatewaySide:
        """Raises OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, side = await loop.create_connection(lambda: cls(on_feeds), host, port)
        side.write(HELLO, secret.hex().encode(), b"\0", gateway.encode())
        return side

    @property
    def open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    async def submit(self, invocations: list[Invocation]) -> list[Answer]:
        """Raises Disconnected."""
        self._number = (self._number + 1) % 2**32
        number = self._number
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self.write(COMMANDS, _NUMBER.pack(number), encode(invocations))
            return await future
        finally:
            self._waiting.pop(number, None)

    def frame(self, kind: int, payload: bytes) -> None:
        if kind == FEEDS:
            self._on_feeds(payload)
            return
        [number] = _NUMBER.unpack_from(payload)
        waiting = self._waiting.get(number)
        if kind == ANSWERS and waiting is not None and not waiting.done():
            waiting.set_result(decode_answers(memoryview(payload)[_NUMBER.size :]))

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Disconnected())
