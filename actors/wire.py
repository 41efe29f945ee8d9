"""The wire between processes of the hub: one TCP connection for each pair, length-prefixed frames, both ways. Ray-free.

Ray names the processes, places and restarts them; this carries the messages. A Ray call costs both sides about
3 ms of CPU on a small machine, most of it in threads handing over to each other, which a batch of twenty commands
cannot pay for; a frame costs 0.1 ms. One connection keeps the order, so feeds never overtake each other.

    frame      length (4 bytes, big endian), kind (1 byte), payload
    N nonce    listener → caller, as soon as it connects: 16 random bytes
    H hello    caller → listener: proof over the listener's nonce, a nonce of its own, the caller's name
    W welcome  listener → caller: proof over the caller's nonce, the listener's name

From then on both sides are equal, and every payload begins with a number (4 bytes): 0 where no answer is wanted,
else the answer (kind A, or E with an encoded refusal) carries it too. The kinds are listed below.

A proof is an HMAC under a key both sides derive from the installation's secret, which itself never crosses: whoever
listens in, or takes a process's old port, learns and gains nothing by it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec

from hub.codec import encode
from hub.errors import HubError, Internal, from_code

log = logging.getLogger("hub.wire")

FRAME_MAX_BYTES = 64 * 1024 * 1024
BACKLOG_MAX_BYTES = 64 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0
# A peer behind a cut cable acknowledges nothing and closes nothing: the kernel gives up for us.
UNACKNOWLEDGED_MAX_MS = 5_000
# Neither does one that nothing is said to, unless it is asked now and then.
KEEPALIVE_IDLE_S = 10
KEEPALIVE_EVERY_S = 2
KEEPALIVE_MAX_PROBES = 3
INTRODUCTION_TIMEOUT_S = 5.0
"""How long a stranger may hold a connection."""
_HEAD = struct.Struct(">IB")
_NUMBER = struct.Struct(">I")
NONCE_BYTES = PROOF_BYTES = 16
STRANGERS_FRAME_MAX_BYTES = 512
NONCE, HELLO, WELCOME, ANSWER, REFUSAL = b"NHWAE"
# gateway → shard
COMMANDS, ATTEND, REPLAY, REACH, METRICS = b"CTRUM"
# shard → gateway
FEEDS = ord("F")
# shard or gateway → directory, and what it answers or tells by itself
JOIN, BEAT, LEAVE, ROSTER = b"JBXO"
ASSIGNMENT, RELEASE = b"VL"

_refusals = msgspec.msgpack.Decoder(tuple[str, str, float])


class Disconnected(Exception):
    """The other side is gone; what was under way may or may not have happened."""


def proof(secret: bytes, of: str, nonce: bytes, name: str) -> bytes:
    """That a side (`of`: "caller" or "listener") knows the secret. Its name is part of what is proven."""
    told = b"\0".join((of.encode(), nonce, name.encode()))
    return hmac.digest(secret, told, hashlib.sha256)[:PROOF_BYTES]


Serve = Callable[["Link", int, bytes], "Awaitable[bytes] | None"]
"""What a process does with a frame (link, kind, payload). None where the kind wants no answer; frames are handed over
in their order, so what it does at once it does in order."""


class Link(asyncio.Protocol):
    """One end of a connection. `peer` is the other side's name, proven; empty until it has introduced itself."""

    def __init__(self, secret: bytes, name: str, serve: Serve) -> None:
        self.peer = ""
        self.frame_max_bytes = STRANGERS_FRAME_MAX_BYTES
        self.transport: asyncio.Transport | None = None
        self.on_lost: Callable[[Link], None] | None = None
        self._secret = secret
        self._name = name
        self._serve = serve
        self._nonce = os.urandom(NONCE_BYTES)
        self._buffer = bytearray()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # --- bytes ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not of the class, but of its kind
        raw = transport.get_extra_info("socket")
        if raw is not None:
            _notice_silence(raw)

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
            self._frame(kind, bytes(memoryview(buffer)[at + _HEAD.size : end]))
            if not self.open:
                return
            at = end
        if at:
            del buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Disconnected())
        if self.peer and self.on_lost is not None:
            self.on_lost(self)

    @property
    def open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    @property
    def backlog_bytes(self) -> int:
        """What is written and not yet taken by the other side's kernel."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def drop(self, why: str) -> None:
        log.warning("dropping a connection%s: %s", f" with {self.peer}" if self.peer else "", why)
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def _write(self, kind: int, *parts: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            raise Disconnected
        self.transport.writelines([_HEAD.pack(sum(map(len, parts)), kind), *parts])

    # --- introductions --------------------------------------------------------------------------------------------

    def _frame(self, kind: int, payload: bytes) -> None:
        if self.peer:
            self._take(kind, payload)
        else:
            self._introduce(kind, payload)

    def _introduce(self, kind: int, payload: bytes) -> None:
        raise NotImplementedError

    def _known(self, peer: str) -> None:
        self.peer = peer
        self.frame_max_bytes = FRAME_MAX_BYTES

    # --- frames ---------------------------------------------------------------------------------------------------

    def _take(self, kind: int, payload: bytes) -> None:
        try:
            [number] = _NUMBER.unpack_from(payload)
            rest = payload[_NUMBER.size :]
            if kind in (ANSWER, REFUSAL):
                self._answered(kind, number, rest)
                return
            reply = self._serve(self, kind, rest)
        except (struct.error, msgspec.MsgspecError, HubError) as error:
            self.drop(f"a frame of kind {kind} cannot be understood: {error}")
            return
        except Exception:
            log.exception("a frame of %s could not be taken", self.peer)
            self.drop(f"a frame of kind {kind} was lost on us")
            return
        if reply is not None:
            task = asyncio.get_running_loop().create_task(self._reply(number, reply))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _answered(self, kind: int, number: int, payload: bytes) -> None:
        waiting = self._waiting.get(number)
        if waiting is None or waiting.done():
            return
        if kind == ANSWER:
            waiting.set_result(payload)
        else:
            waiting.set_exception(from_code(*_refusals.decode(payload)))

    async def _reply(self, number: int, reply: Awaitable[bytes]) -> None:
        kind = ANSWER
        try:
            payload = await reply
        except HubError as error:
            kind, payload = REFUSAL, encode((error.code, error.detail, error.retry_after_s))
        except Exception:
            log.exception("a frame of %s could not be answered", self.peer)
            kind, payload = REFUSAL, encode((Internal.code, Internal.title, 1.0))
        try:
            self._write(kind, _NUMBER.pack(number), payload)
        except Disconnected:
            log.info("%s left before its answer", self.peer)

    def push(self, kind: int, payload: bytes) -> None:
        """Tell without waiting for an answer. Raises Disconnected, also where too much waits to be taken already."""
        if self.backlog_bytes > BACKLOG_MAX_BYTES:
            raise Disconnected
        self._write(kind, _NUMBER.pack(0), payload)

    async def call(self, kind: int, payload: bytes) -> bytes:
        """The answer. Raises Disconnected, or the HubError it was refused with."""
        self._number = self._number % (2**32 - 1) + 1
        number = self._number
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._write(kind, _NUMBER.pack(number), payload)
            return await future
        finally:
            self._waiting.pop(number, None)


def _notice_silence(raw: socket.socket) -> None:
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MAX_MS)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_MAX_PROBES)


class _ListenerEnd(Link):
    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.secret, listener.name, listener.serve)
        self._listener = listener
        self.on_lost = listener.on_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._listener.links[self] = None
        self._write(NONCE, self._nonce)
        self._patience = asyncio.get_running_loop().call_later(INTRODUCTION_TIMEOUT_S, self.drop, "it says nothing")

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        self._listener.links.pop(self, None)
        super().connection_lost(exc)

    def _introduce(self, kind: int, payload: bytes) -> None:
        proven, nonce = payload[:PROOF_BYTES], payload[PROOF_BYTES : PROOF_BYTES + NONCE_BYTES]
        caller = payload[PROOF_BYTES + NONCE_BYTES :].decode(errors="replace")
        expected = proof(self._secret, "caller", self._nonce, caller)
        if kind != HELLO or not caller or not hmac.compare_digest(proven, expected):
            self.drop("it does not know the secret")
            return
        self._patience.cancel()
        self._known(caller)
        self._write(WELCOME, proof(self._secret, "listener", nonce, self._name), self._name.encode())


class _CallerEnd(Link):
    def __init__(self, secret: bytes, name: str, serve: Serve) -> None:
        super().__init__(secret, name, serve)
        self.welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _introduce(self, kind: int, payload: bytes) -> None:
        if kind == NONCE:
            self._write(HELLO, proof(self._secret, "caller", payload, self._name), self._nonce, self._name.encode())
            return
        proven, peer = payload[:PROOF_BYTES], payload[PROOF_BYTES:].decode(errors="replace")
        if kind == WELCOME and hmac.compare_digest(proven, proof(self._secret, "listener", self._nonce, peer)):
            self._known(peer)
            if not self.welcome.done():  # whoever connects may have given up this moment
                self.welcome.set_result(None)
        else:
            self.drop("it does not know the secret")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(Disconnected())
            self.welcome.exception()  # whoever connects may have given up by now
        super().connection_lost(exc)


async def connect(host: str, port: int, *, secret: bytes, name: str, serve: Serve) -> Link:
    """Return once each side has proven itself to the other. Raises OSError, TimeoutError or Disconnected."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, link = await loop.create_connection(lambda: _CallerEnd(secret, name, serve), host, port)
        try:
            await link.welcome
        except BaseException:
            link.drop("nobody of ours")
            raise
    return link


class Listener:
    """Where others connect to this process. One name may be there twice: who came back, and what it left behind.

    `on_lost` is told of every link that had introduced itself.
    """

    def __init__(
        self, secret: bytes, name: str, serve: Serve, *, on_lost: Callable[[Link], None] | None = None
    ) -> None:
        self.secret = secret
        self.name = name
        self.serve = serve
        self.links: dict[Link, None] = {}
        self.on_lost = on_lost
        self._server: asyncio.Server | None = None

    async def open(self, host: str) -> int:
        """Listen on a free port of `host`, and return it."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _ListenerEnd(self), host, 0)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for link in list(self.links):
            link.close()
