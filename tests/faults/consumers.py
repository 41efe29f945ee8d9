"""Slow consumers: sockets that stop reading while more and more is due to them."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from types import TracebackType

import websockets
from websockets.asyncio.client import ClientConnection

AGENTS = 3
CUSTOMERS = 1
WRITES = 3_000
WRITES_AT_ONCE = 25
WRITE_EVERY_S = 0.1
TOO_SLOW = 4408
READ_TIMEOUT_S = 20.0
OVERWHELM_TIMEOUT_S = 60.0
SMALL_BUFFER_BYTES = 16 * 1024
LONG_TEXT = "y" * 8000


class SlowConsumers:
    """Agents that follow an inbox and customers that write, none of whom reads what comes back."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = urls
        self._sockets: list[ClientConnection] = []

    async def __aenter__(self) -> SlowConsumers:
        url = self._urls[0]
        for _ in range(AGENTS):
            agent = await _unread(url, "/v1/stream")
            await agent.send(json.dumps({"type": "auth", "token": "demo-key"}))
            await agent.send(json.dumps({"type": "subscribe", "topic": "inbox", "position": None}))
            self._sockets.append(agent)
        for _ in range(CUSTOMERS):
            customer = await _unread(url, "/v1/chat/demo-web")
            await customer.send(json.dumps({"type": "hello", "visitor": None, "name": "Slow"}))
            self._sockets.append(customer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        for connection in self._sockets:
            connection.transport.abort()

    async def overwhelm(self) -> None:
        """What the customers write, and are told of, is more than a session's queue may hold; the agents see all of it."""
        async with asyncio.timeout(OVERWHELM_TIMEOUT_S):
            await asyncio.gather(*(_write(customer) for customer in self._sockets[AGENTS:]))

    async def expect_told(self) -> None:
        """Each was closed with the code that says: too slow, resume. Raises AssertionError."""
        codes = await asyncio.gather(*(_drained(connection) for connection in self._sockets))
        assert set(codes) == {TOO_SLOW}, f"slow consumers were closed with {codes}, not with {TOO_SLOW}"


async def _unread(url: str, path: str) -> ClientConnection:
    """A connection with small buffers: what it does not read soon waits at the sender's."""
    host, _, port = url.removeprefix("http://").partition(":")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
    await asyncio.get_running_loop().run_in_executor(None, raw.connect, (host, int(port)))
    target = url.replace("http", "ws", 1) + path
    return await websockets.connect(
        target, sock=raw, compression=None, max_queue=1, ping_interval=None, proxy=None, max_size=2**26
    )


async def _write(customer: ClientConnection) -> None:
    """Each message is acknowledged with all of its text."""
    name = secrets.token_hex(6)
    try:
        for n in range(WRITES):
            await customer.send(json.dumps({"type": "message", "client_id": f"{name}-{n}", "text": LONG_TEXT}))
            if n % WRITES_AT_ONCE == 0:  # gently: it is not the flood that others are to feel
                await asyncio.sleep(WRITE_EVERY_S)
    except websockets.ConnectionClosed:
        return


async def _drained(connection: ClientConnection) -> int | None:
    """Read to the end; the code it was closed with."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            while True:
                await connection.recv()
    except websockets.ConnectionClosed:
        return connection.close_code
    except TimeoutError:
        return None
