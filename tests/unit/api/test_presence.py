"""Presence at one gateway: who is told what, how often, and what those who come later are told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from api.presence import SAME_WITHIN_S, Presence
from api.sessions import Session
from hub.model import Author
from hub.shared import open_shared

ANA, LUIS = Author("agent", "agt_ana", "Ana"), Author("agent", "agt_luis", "Luis")
CUSTOMER = Author("customer", "cus_1", "Lucía")


class Seat:
    """A session that follows one topic, and what it was sent."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.frames: list[dict[str, Any]] = []
        self.session = Session(self._send)

    async def _send(self, message: Any) -> None:
        self.frames.append(json.loads(message["text"]))


class Room:
    """Everybody at the gateway."""

    def __init__(self, *seats: Seat) -> None:
        self.seats = seats
        self.now = 100.0
        shared = open_shared(None, installation="unit", per_minute=1000)
        self.presence = Presence("hub-gateway-0", self, shared, now=lambda: self.now)

    def followers(self, tenant: str, topic: str) -> list[Seat]:
        return [seat for seat in self.seats if tenant == "demo" and seat.topic == topic]

    async def told(self) -> list[list[dict[str, Any]]]:
        """What each seat was sent since the last time."""
        for _ in range(5):
            await asyncio.sleep(0)
        found = [seat.frames for seat in self.seats]
        for seat in self.seats:
            seat.frames = []
        return found


async def test_followers_of_the_conversation_and_of_the_inbox_see_it_and_the_one_who_types_does_not() -> None:
    room = Room(Seat("conversation:c1"), Seat("inbox"), Seat("conversation:c2"), Seat("inbox"), Seat("stream:s1"))
    mine = room.seats[3].session
    room.presence.typing("demo", "c1", on=True, by=ANA, but=mine, stream="s1")
    by = {"type": "agent", "id": "agt_ana", "name": "Ana"}
    seen = {"type": "typing", "conversation": "c1", "on": True, "by": by}
    expected = [[{**seen, "topic": "conversation:c1"}], [{**seen, "topic": "inbox"}], [], []]
    assert await room.told() == [*expected, [{"type": "typing", "on": True}]]
    room.presence.typing("demo2", "c1", on=True, by=LUIS, but=None)
    assert await room.told() == [[], [], [], [], []]


async def test_saying_the_same_again_within_a_second_says_nothing() -> None:
    room = Room(Seat("inbox"))

    async def type_(on: bool) -> int:
        room.presence.typing("demo", "c1", on=on, by=CUSTOMER, but=None)
        return len((await room.told())[0])

    assert [await type_(on) for on in (True, True, False, False, True)] == [1, 0, 1, 0, 1]
    room.now += SAME_WITHIN_S
    assert await type_(True) == 1


async def test_who_comes_later_is_told_who_is_there_but_not_of_themselves() -> None:
    room = Room()
    ana = room.presence.arrive("demo", ANA)
    room.presence.view(ana, "c1", but=None)
    room.presence.typing("demo", "c1", on=True, by=ANA, but=None)
    frames = [json.loads(text) for text in await room.presence.frames_of("demo", "c1", but="agt_luis")]
    assert sorted(frame["type"] for frame in frames) == ["typing", "viewing"]
    assert all(frame["by"]["id"] == "agt_ana" and frame["topic"] == "conversation:c1" for frame in frames)
    assert await room.presence.frames_of("demo", "c1", but="agt_ana") == []
    room.presence.typing("demo", "c1", on=False, by=ANA, but=None)
    room.presence.view(ana, "c2", but=None)
    assert await room.presence.frames_of("demo", "c1", but="agt_luis") == []
    assert len(await room.presence.frames_of("demo", "c2", but="agt_luis")) == 1
    room.presence.leave(ana)
    assert await room.presence.frames_of("demo", "c2", but="agt_luis") == []


async def test_an_agent_is_online_until_the_last_of_their_sessions_ends() -> None:
    room = Room()
    desk, phone = room.presence.arrive("demo", ANA), room.presence.arrive("demo", ANA)
    room.presence.arrive("demo2", LUIS)
    bot = room.presence.arrive("demo", Author("bot", "k", "Bot"))
    assert await room.presence.online("demo") == {"agt_ana"}
    room.presence.leave(desk)
    assert await room.presence.online("demo") == {"agt_ana"}
    room.presence.leave(phone)
    room.presence.leave(bot)
    assert await room.presence.online("demo") == set()
