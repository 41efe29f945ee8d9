"""The provider at the other end: a Cloud API in this process, which outlives whatever is done to the hub."""

from __future__ import annotations

import asyncio
import contextlib
import json
from urllib.parse import urlsplit

from bench.peers.http import answer, request
from bench.words import find
from channels.loopback.whatsapp import LoopbackWhatsApp

CALLBACK_TIMEOUT_S = 5.0
CALLBACKS_MAX_AT_ONCE = 16


class Provider:
    """`received[writer]` are the numbers of that writer's messages, as they came."""

    def __init__(self, mark: str, urls: list[str]) -> None:
        self.received: dict[int, list[int]] = {}
        self.url = ""
        self._mark = mark
        self._urls = urls
        self._api = LoopbackWhatsApp(app_secret="demo-secret", post=self._post)
        self._at = 0
        self._slots = asyncio.Semaphore(CALLBACKS_MAX_AT_ONCE)
        self._idle: dict[str, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {}
        self._server: asyncio.Server | None = None

    async def open(self, port: int, host: str = "127.0.0.1") -> None:
        self._server = await asyncio.start_server(self._serve, host, port)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for streams in (streams for kept in self._idle.values() for streams in kept):
            streams[1].transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                at = head.index(b"content-length:") + 15
                body = await reader.readexactly(int(head[at : head.index(b"\r", at)]))
                self._note(json.loads(body)["text"]["body"])
                status, answer = self._api.take("10001", body)
                lines = (
                    f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
                )
                writer.write(lines.encode() + answer)
        writer.close()

    def _note(self, text: str) -> None:
        found = find(text, self._mark)
        if found is not None:
            self.received.setdefault(found[0], []).append(found[1])

    async def _post(self, body: bytes, headers: dict[str, str]) -> int:
        """Few connections, kept alive: a gateway that does not answer must not cost this process its time."""
        async with self._slots:
            url = self._urls[self._at % len(self._urls)]
            kept = self._idle.setdefault(url, [])
            streams = kept.pop() if kept else None
            try:
                async with asyncio.timeout(CALLBACK_TIMEOUT_S):
                    if streams is None:
                        parts = urlsplit(url)
                        streams = await asyncio.open_connection(parts.hostname, parts.port)
                    streams[1].write(request("POST", "/webhooks/demo-whatsapp", "hub", headers, body))
                    status, _ = await answer(streams[0])
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self._at += 1
                if streams is not None:
                    streams[1].transport.abort()
                raise OSError(str(error)) from error
            kept.append(streams)
            return status
