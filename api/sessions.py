"""A session: one WebSocket, with a bounded queue of frames on their way out.

Frames are queued without waiting; a pump writes them. A session that cannot keep up is closed with the
resume code rather than slowing anybody else or losing frames silently.
"""

from __future__ import annotations

import asyncio
from collections import deque

from api.asgi import Send

QUEUE_MAX_FRAMES = 20_000
QUEUE_MAX_CHARS = 16 * 1024 * 1024
# Of all sessions of this gateway together: many that are a little slow must not fill the memory either.
QUEUES_MAX_CHARS = 256 * 1024 * 1024
FINISH_TIMEOUT_S = 2.0
# One that is too slow to be told anything needs longer to be told so, and holds no more than a frame meanwhile.
SLOW_FINISH_TIMEOUT_S = 30.0

UNAUTHENTICATED = 4401
FORBIDDEN = 4403
TOO_SLOW = 4408
GOING_AWAY = 4409
TOO_MANY_REQUESTS = 4429
PROTOCOL_ERROR = 1008


class Backlog:
    """What all sessions of this process have queued."""

    __slots__ = ("chars", "sessions")

    def __init__(self) -> None:
        self.chars = 0
        self.sessions = 0
        """Those that have anything queued."""

    def too_much(self, mine: int) -> bool:
        """Whether there is too much of it, and a session with `mine` characters has at least the average."""
        return self.chars > QUEUES_MAX_CHARS and mine * self.sessions >= self.chars


OF_THIS_PROCESS = Backlog()


class Session:
    __slots__ = ("_backlog", "_chars", "_close", "_pump_task", "_queue", "_send", "closed")

    def __init__(self, send: Send, backlog: Backlog = OF_THIS_PROCESS) -> None:
        self._send = send
        self._backlog = backlog
        self._queue: deque[str] = deque()
        self._chars = 0
        self._pump_task: asyncio.Task[None] | None = None
        self._close: tuple[int, str] | None = None
        self.closed = False

    def write(self, frame: str) -> None:
        """Queue a text frame. Too slow a session is closed instead."""
        if self.closed:
            return
        if len(self._queue) >= QUEUE_MAX_FRAMES or self._chars > QUEUE_MAX_CHARS or self._backlog.too_much(self._chars):
            self.close(TOO_SLOW, "too slow; resume from your last position")
            return
        self._queue.append(frame)
        self._count(len(frame), 1)
        self._pump_soon()

    def close(self, code: int, reason: str) -> None:
        """Close after what is queued; a slow session's queue is dropped, for it resumes from its position."""
        if self.closed:
            return
        self.closed = True
        if code == TOO_SLOW:
            self._forget_queue()
        self._close = (code, reason)
        self._pump_soon()

    def _pump_soon(self) -> None:
        if self._pump_task is None:
            self._pump_task = asyncio.get_running_loop().create_task(self._pump())

    async def finish(self) -> None:
        """The connection's work is over: let what is queued, a close above all, still go out."""
        self.closed = True
        if self._pump_task is not None:
            slow = self._close is not None and self._close[0] == TOO_SLOW
            await asyncio.wait([self._pump_task], timeout=SLOW_FINISH_TIMEOUT_S if slow else FINISH_TIMEOUT_S)

    async def _pump(self) -> None:
        try:
            while self._queue:
                frame = self._queue.popleft()
                self._count(-len(frame), -1)
                await self._send({"type": "websocket.send", "text": frame})
            if self._close is not None:
                code, reason = self._close
                self._close = None
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except Exception:
            # The socket is gone; its reader notices by itself.
            self.closed = True
            self._forget_queue()
        finally:
            self._pump_task = None

    def _count(self, chars: int, frames: int) -> None:
        backlog, waiting = self._backlog, len(self._queue)
        if waiting == (1 if frames > 0 else 0):
            backlog.sessions += frames
        self._chars += chars
        backlog.chars += chars

    def _forget_queue(self) -> None:
        if self._queue:
            self._queue.clear()
            self._backlog.sessions -= 1
        self._backlog.chars -= self._chars
        self._chars = 0
