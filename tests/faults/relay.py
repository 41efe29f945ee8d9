"""A door from a test network to a server that listens on this machine's loopback address only."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES = 64 * 1024
START_TIMEOUT_S = 5.0


class Relay:
    """In a thread of its own, since those who need it start before any event loop does."""

    def __init__(self, host: str, target: str) -> None:
        """`target` is a URL of the loopback address; `url` is the same one through `host`."""
        parts = urlsplit(target)
        self._host = host
        self._target = (parts.hostname or "127.0.0.1", parts.port or 0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        opening = asyncio.run_coroutine_threadsafe(self._open(), self._loop)
        self._server, port = opening.result(START_TIMEOUT_S)
        user = f"{parts.username}@" if parts.username else ""
        self.url = urlunsplit(parts._replace(netloc=f"{user}{host}:{port}"))

    async def _open(self) -> tuple[asyncio.Server, int]:
        server = await asyncio.start_server(self._serve, self._host, 0)
        return server, int(server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, inner_writer))
                both.create_task(_pump(inner_reader, writer))
        writer.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT_S)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    writer.close()
