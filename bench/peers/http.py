"""A very cheap HTTP/1.1 client: keep-alive connections, one request at a time on each, retried until it is taken."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0
ANSWER_TIMEOUT_S = 15.0


class HttpPool:
    """`connections` workers take requests from one queue. `done(token, status, body)` is called for each answer taken."""

    def __init__(self, host: str, port: int, connections: int, done: Callable[[object, int, bytes], None]) -> None:
        self._host = host
        self._port = port
        self._done = done
        self._queue: asyncio.Queue[tuple[object, bytes]] = asyncio.Queue()
        self._workers = [asyncio.create_task(self._work()) for _ in range(connections)]
        self.retries = 0

    def put(self, token: object, request: bytes) -> None:
        self._queue.put_nowait((token, request))

    async def stop(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while True:
            token, request = await self._queue.get()
            delay_s = RETRY_FIRST_S
            while True:
                try:
                    if streams is None:
                        streams = await asyncio.open_connection(self._host, self._port, limit=2**22)
                    streams[1].write(request)
                    async with asyncio.timeout(ANSWER_TIMEOUT_S):
                        status, body = await answer(streams[0])
                    if status < 500 and status != 429:
                        break
                except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError, IndexError):
                    if streams is not None:
                        streams[1].close()
                    streams = None
                self.retries += 1
                await asyncio.sleep(delay_s * (0.5 + random.random()))
                delay_s = min(delay_s * 2, RETRY_MAX_S)
            self._done(token, status, body)


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(status, body) of the next answer on a connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    lower = head.lower()
    at = lower.index(b"content-length:") + 15
    length = int(lower[at : lower.index(b"\r", at)])
    return status, await reader.readexactly(length)


def request(method: str, path: str, host: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
