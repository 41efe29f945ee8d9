"""The wire between a gateway and a shard: one TCP connection, length-prefixed frames, both ways. Ray-free.

Ray names the processes, places and restarts them; this carries the messages. A Ray call costs both sides about
3 ms of CPU on a small machine, most of it in threads handing over to each other, which a batch of twenty commands
cannot pay for; a frame costs 0.1 ms. One connection keeps the order, so feeds never overtake each other.

    frame      length (4 bytes, big endian), kind (1 byte), payload
    N nonce    shard → gateway, as soon as it connects: 16 random bytes
    H hello    gateway → shard: proof over the shard's nonce, a nonce of its own, the gateway's name
    W welcome  shard → gateway: proof over the gateway's nonce
    C commands gateway → shard: number (4 bytes), list[Invocation]
    A answers  shard → gateway: number (4 bytes), list[Answer]
    F feeds    shard → gateway: list[Feed]

A proof is an HMAC under a key both sides derive from the installation's secret, which itself never crosses: whoever
listens in, or takes a shard's old port, learns and gains nothing by it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
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
NONCE_BYTES = PROOF_BYTES = 16
STRANGERS_FRAME_MAX_BYTES = 512
NONCE, HELLO, WELCOME, COMMANDS, ANSWERS, FEEDS = b"NHWCAF"


class Disconnected(Exception):
    """The other side is gone; what was under way may or may not have happened."""


def proof(secret: bytes, of: str, nonce: bytes, gateway: str) -> bytes:
    """That a side (`of`: "gateway" or "shard") knows the secret. The gateway's name is part of what is proven."""
    told = b"\0".join((of.encode(), nonce, gateway.encode()))
    return hmac.digest(secret, told, hashlib.sha256)[:PROOF_BYTES]


class Frames(asyncio.Protocol):
    """Cuts a byte stream into frames, small ones until the other side has proven itself."""

    def __init__(self) -> None:
        self.frame_max_bytes = STRANGERS_FRAME_MAX_BYTES
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
            if length > self.frame_max_bytes:
                self.drop(f"a frame of {length} bytes is too large")
                return
            end = at + _HEAD.size + length
            if len(buffer) < end:
                break
            self.frame(kind, bytes(memoryview(buffer)[at + _HEAD.size : end]))
            if self.transport is None or self.transport.is_closing():
                return
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
        self._nonce = os.urandom(NONCE_BYTES)
        self.gateway: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.write(NONCE, self._nonce)

    def frame(self, kind: int, payload: bytes) -> None:
        if self.gateway is None:
            self._hello(kind, payload)
        elif kind == COMMANDS:
            task = asyncio.get_running_loop().create_task(self._answer(payload))
            self._listener.tasks.add(task)
            task.add_done_callback(self._listener.tasks.discard)

    def _hello(self, kind: int, payload: bytes) -> None:
        proven, nonce = payload[:PROOF_BYTES], payload[PROOF_BYTES : PROOF_BYTES + NONCE_BYTES]
        gateway = payload[PROOF_BYTES + NONCE_BYTES :].decode(errors="replace")
        secret = self._listener.secret
        if kind != HELLO or not hmac.compare_digest(proven, proof(secret, "gateway", self._nonce, gateway)):
            self.drop("it does not know the secret")
            return
        self.gateway = gateway
        self.frame_max_bytes = FRAME_MAX_BYTES
        self._listener.gateways[gateway] = self
        self.write(WELCOME, proof(secret, "shard", nonce, gateway))

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
        self.secret = secret
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

    def __init__(self, secret: bytes, gateway: str, on_feeds: Callable[[bytes], None]) -> None:
        super().__init__()
        self._secret = secret
        self._gateway = gateway
        self._nonce = os.urandom(NONCE_BYTES)
        self._welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_feeds = on_feeds
        self._waiting: dict[int, asyncio.Future[list[Answer]]] = {}
        self._number = 0

    @classmethod
    async def connect(
        cls, host: str, port: int, *, secret: bytes, gateway: str, on_feeds: Callable[[bytes], None]
    ) -> GatewaySide:
        """Return once each side has proven itself to the other. Raises OSError, TimeoutError or Disconnected."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, side = await loop.create_connection(lambda: cls(secret, gateway, on_feeds), host, port)
            try:
                await side._welcome
            except BaseException:
                side.drop("no shard of ours")
                raise
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
        if not self._welcome.done():
            self._introduce(kind, payload)
            return
        if kind == FEEDS:
            self._on_feeds(payload)
            return
        [number] = _NUMBER.unpack_from(payload)
        waiting = self._waiting.get(number)
        if kind == ANSWERS and waiting is not None and not waiting.done():
            waiting.set_result(decode_answers(memoryview(payload)[_NUMBER.size :]))

    def _introduce(self, kind: int, payload: bytes) -> None:
        if kind == NONCE:
            self.write(
                HELLO, proof(self._secret, "gateway", payload, self._gateway), self._nonce, self._gateway.encode()
            )
        elif kind == WELCOME and hmac.compare_digest(payload, proof(self._secret, "shard", self._nonce, self._gateway)):
            self.frame_max_bytes = FRAME_MAX_BYTES
            self._welcome.set_result(None)
        else:
            self.drop("it does not know the secret")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._welcome.done():
            self._welcome.set_exception(Disconnected())
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Disconnected())
