"""Those who write: well-behaved clients, each with one message in flight, repeated under its name until acknowledged.

So whatever the hub does, the order in which a writer's messages were meant is known, and a message in the wrong
place is the hub's fault and not the client's.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import random
import time
from typing import Any
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import ClientConnection

from bench.peers.http import answer, request
from bench.words import text
from tests.faults.record import DISCONNECTED, NO_ANSWER, Record

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 0.25
PING_EVERY_S = 5.0
CLOSE_TIMEOUT_S = 0.5
APP_SECRET = b"demo-secret"


class Writer:
    """`urls`: the gateways; any of them will do. `patience_s`: after that long without an answer it tries another."""

    what = ""
    tenant = "demo"

    def __init__(
        self, number: int, *, run: str, urls: list[str], record: Record, patience_s: float, pause_s: float
    ) -> None:
        self.number = number
        self.acked = 0
        """Messages 0 … acked-1 have been acknowledged, in that order."""
        self._run = run
        self._urls = urls
        self._at = number
        self._record = record
        self._patience_s = patience_s
        self._pause_s = pause_s

    async def write(self, stop: asyncio.Event) -> None:
        """Until `stop`; what was begun is finished."""
        await asyncio.sleep(random.random() * self._pause_s)
        while not stop.is_set():
            await self._until_acked(self.acked)
            self.acked += 1
            await asyncio.sleep(self._pause_s)
        await self.disconnect()

    async def _until_acked(self, n: int) -> None:
        first_attempt_at, delay_s = time.monotonic(), RETRY_FIRST_S
        while True:
            began = time.monotonic()
            refusal = await self._try(n)
            self._record.waited(time.monotonic() - began, refusal, self.what)
            if refusal is None:
                self._record.acked(first_attempt_at)
                return
            await asyncio.sleep(delay_s * (0.5 + random.random()))
            delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def _try(self, n: int) -> str | None:
        """None where it was acknowledged, or the code of what came instead."""
        try:
            async with asyncio.timeout(self._patience_s):
                return await self.attempt(n)
        except TimeoutError:
            refusal = NO_ANSWER
        except (OSError, EOFError, ValueError, websockets.WebSocketException) as error:
            refusal = _told(error)
        await self.disconnect()
        self._at += 1
        return refusal

    def url(self) -> str:
        """The gateway it uses; the next one after one that failed."""
        return self._urls[self._at % len(self._urls)]

    async def attempt(self, n: int) -> str | None:
        raise NotImplementedError

    async def disconnect(self) -> None:
        raise NotImplementedError


def _told(error: Exception) -> str:
    """A closing code that says what it means is an answer; anything else is a broken connection."""
    code = error.rcvd.code if isinstance(error, websockets.ConnectionClosed) and error.rcvd is not None else 0
    return {4401: "unauthenticated", 4403: "forbidden", 4408: "too_slow", 4409: "going_away"}.get(code, DISCONNECTED)


class ChatWriter(Writer):
    """A visitor of a web chat, who comes back with its token to whichever gateway answers."""

    what = "web chat"

    def __init__(self, number: int, *, tenant: str, **parts: Any) -> None:
        super().__init__(number, **parts)
        self.tenant = tenant
        self._token: str | None = None
        self._socket: ClientConnection | None = None

    async def attempt(self, n: int) -> str | None:
        if self._socket is None:
            refusal = await self._connect()
            if refusal is not None:
                await self.disconnect()
                return refusal
        assert self._socket is not None
        name = f"{self._run}-{self.number}-{n}"
        words = text(self._run, self.number, n)
        await self._socket.send(json.dumps({"type": "message", "client_id": name, "text": words}))
        while True:
            frame = json.loads(await self._socket.recv())
            if frame.get("client_id") == name and frame["type"] in ("ack", "error"):
                return None if frame["type"] == "ack" else str(frame["code"])

    async def _connect(self) -> str | None:
        self._socket = await connect(self.url() + f"/v1/chat/{self.tenant}-web")
        hello = {"type": "hello", "token": self._token, "name": f"Visitor {self.number}"}
        await self._socket.send(json.dumps(hello))
        frame = json.loads(await self._socket.recv())
        if frame["type"] != "welcome":
            return str(frame["code"])
        self._token = frame["token"]
        return None

    async def disconnect(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()


async def connect(url: str) -> ClientConnection:
    return await websockets.connect(
        url.replace("http", "ws", 1),
        compression=None,
        max_size=2**26,
        proxy=None,
        ping_interval=PING_EVERY_S,
        ping_timeout=PING_EVERY_S,
        close_timeout=CLOSE_TIMEOUT_S,
        open_timeout=None,
    )


class HttpWriter(Writer):
    """One keep-alive connection. Subclasses say what a message looks like as a request."""

    def __init__(self, number: int, **parts: Any) -> None:
        super().__init__(number, **parts)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def attempt(self, n: int) -> str | None:
        if self._streams is not None and self._streams[0].at_eof():
            await self.disconnect()  # closed in good order, after an answer
        if self._streams is None:
            parts = urlsplit(self.url())
            self._streams = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
        reader, writer = self._streams
        writer.write(self.request(n, text(self._run, self.number, n)))
        status, body = await answer(reader)
        return None if status in (200, 201) else str(json.loads(body).get("code", f"http_{status}"))

    def request(self, n: int, words: str) -> bytes:
        raise NotImplementedError

    def post(self, path: str, headers: dict[str, str], body: object) -> bytes:
        encoded = json.dumps(body, ensure_ascii=False).encode()
        if "X-API-Key" not in headers:
            signature = hmac.digest(APP_SECRET, encoded, "sha256").hex()
            headers = {**headers, "X-Hub-Signature-256": f"sha256={signature}"}
        return request("POST", path, "hub", {"Content-Type": "application/json", **headers}, encoded)

    async def disconnect(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].transport.abort()


class ApiWriter(HttpWriter):
    """An API client that brings its own channel."""

    what = "API inbound"

    def request(self, n: int, words: str) -> bytes:
        who = f"{self._run}-{self.number}"
        item = {"external_id": f"{who}-{n}", "from": who, "text": words}
        return self.post("/v1/channels/demo-api/inbound", {"X-API-Key": "demo-key"}, item)


class WebhookWriter(HttpWriter):
    """WhatsApp, which delivers a webhook again until it is answered with 200."""

    what = "webhook"

    def request(self, n: int, words: str) -> bytes:
        sender = _phone(self._run, self.number)
        message = {"from": sender, "id": f"wamid.{self._run}-{self.number}-{n}", "timestamp": str(int(time.time()))}
        value = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15550001", "phone_number_id": "10001"},
            "contacts": [{"profile": {"name": f"Customer {self.number}"}, "wa_id": sender}],
            "messages": [{**message, "type": "text", "text": {"body": words}}],
        }
        entry = {"id": "1", "changes": [{"value": value, "field": "messages"}]}
        return self.post("/webhooks/demo-whatsapp", {}, {"object": "whatsapp_business_account", "entry": [entry]})


class ReplyWriter(HttpWriter):
    """The other direction: an agent's program writes to a customer, through the provider."""

    what = "outbound"

    def request(self, n: int, words: str) -> bytes:
        body = {"channel": "demo-whatsapp", "to": "+" + _phone(self._run, self.number), "text": words}
        body["client_id"] = f"{self._run}-{self.number}-{n}"
        return self.post("/v1/conversations", {"X-API-Key": "demo-key"}, body)


def _phone(run: str, number: int) -> str:
    return f"58{int(run, 36) % 10**6:06d}{number:04d}"
