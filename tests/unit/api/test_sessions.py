"""Sessions: a slow one is closed with the code that says resume, and all together are bounded too."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from api import sessions
from api.sessions import TOO_SLOW, Backlog, Session


class Socket:
    """Takes frames while it is open."""

    def __init__(self) -> None:
        self.sent: list[MutableMapping[str, Any]] = []
        self.open = asyncio.Event()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await self.open.wait()
        self.sent.append(message)


async def emptied(session: Session) -> None:
    async with asyncio.timeout(5):
        await session.finish()


async def test_frames_leave_in_order_and_nothing_is_left_on_the_books() -> None:
    socket, backlog = Socket(), Backlog()
    session = Session(socket.send, backlog)
    for n in range(5):
        session.write(f"frame {n}")
    assert (backlog.sessions, backlog.chars) == (1, 5 * len("frame 0"))
    socket.open.set()
    await emptied(session)
    assert [message["text"] for message in socket.sent] == [f"frame {n}" for n in range(5)]
    assert (backlog.sessions, backlog.chars) == (0, 0)


async def test_a_slow_session_is_closed_and_its_queue_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "QUEUE_MAX_FRAMES", 3)
    socket, backlog = Socket(), Backlog()
    session = Session(socket.send, backlog)
    for _ in range(10):
        session.write("x")
    assert session.closed and (backlog.sessions, backlog.chars) == (0, 0)
    socket.open.set()
    await emptied(session)
    assert socket.sent[-1] == {"type": "websocket.close", "code": TOO_SLOW, "reason": socket.sent[-1]["reason"]}


async def test_where_all_together_have_too_much_those_with_most_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "QUEUES_MAX_CHARS", 1_000)
    backlog = Backlog()
    sockets = [Socket() for _ in range(11)]
    many = [Session(socket.send, backlog) for socket in sockets]
    for session in many[:10]:
        session.write("y" * 20)
    for _ in range(100):
        many[10].write("x" * 20)
    assert many[10].closed and not any(session.closed for session in many[:10])
    assert (backlog.sessions, backlog.chars) == (10, 200)
    for socket in sockets:
        socket.open.set()
    for session in many:
        await emptied(session)
    assert (backlog.sessions, backlog.chars) == (0, 0)
