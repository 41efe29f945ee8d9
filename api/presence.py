"""Presence: who is typing, who is looking, who is online. Told at once, forgotten soon, never journaled.

What happens here is told to this gateway's sessions directly, and to the other gateways' by a notice, which may be lost.
The roster keeps who is where for those who come later; every entry expires, so a gateway that dies leaves no ghosts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

from api.sessions import Session
from hub.model import Author
from hub.shared import Shared

TYPING_S = 5.0
VIEWING_S = ONLINE_S = 30.0
RENEW_EVERY_S = 10.0
RENEW_BATCH_SESSIONS = 200
RENEW_PAUSE_S = 0.05
SAME_WITHIN_S = 1.0
SAID_MAX_COUNT = 10_000


class Follower(Protocol):
    """A session's interest in a topic; a `Subscription` is one."""

    session: Session
    topic: str


class Followers(Protocol):
    """Who follows what, at this gateway; the `Fanout` knows."""

    def followers(self, tenant: str, topic: str) -> Sequence[Follower]: ...


class Sign(msgspec.Struct, array_like=True):
    """What somebody does in a conversation. `stream`: the customer who is to see it too."""

    type: Literal["typing", "viewing"]
    conversation: str
    on: bool
    by: Author
    stream: str | None = None


class Entry(msgspec.Struct, array_like=True):
    """How somebody stands in the roster of a conversation."""

    type: Literal["typing", "viewing"]
    by: Author
    gateway: str


class Attendance:
    """An agent's session, and the conversation it has open."""

    __slots__ = ("by", "tenant", "viewing")

    def __init__(self, tenant: str, by: Author) -> None:
        self.tenant = tenant
        self.by = by
        self.viewing: str | None = None


class Presence:
    def __init__(
        self, gateway: str, fanout: Followers, shared: Shared, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._gateway = gateway
        self._fanout = fanout
        self._shared = shared
        self._now = now
        self._attendances: set[Attendance] = set()
        self._followed: dict[str, int] = {}
        self._said: dict[tuple[str, str, str], tuple[bool, float]] = {}

    # --- coming and going -----------------------------------------------------------------------------------------

    def arrive(self, tenant: str, by: Author) -> Attendance:
        """An agent's session begins: online until `leave`."""
        attendance = Attendance(tenant, by)
        self._attendances.add(attendance)
        self.follow(tenant)
        self._renew(attendance)
        return attendance

    def leave(self, attendance: Attendance) -> None:
        self._attendances.discard(attendance)
        self.unfollow(attendance.tenant)
        if attendance.viewing is not None:
            self.look_away(attendance, attendance.viewing)
        tenant, by = attendance.tenant, attendance.by
        if not any(other.tenant == tenant and other.by.id == by.id for other in self._attendances):
            self._shared.roster.leave(_online(tenant), f"{by.id}@{self._gateway}")

    def follow(self, tenant: str) -> None:
        """A session of the tenant begins here: hear what the tenant's sessions elsewhere do."""
        self._followed[tenant] = self._followed.get(tenant, 0) + 1
        if self._followed[tenant] == 1:
            self._shared.notices.follow(_topic(tenant), lambda notice: self._heard(tenant, notice))

    def unfollow(self, tenant: str) -> None:
        self._followed[tenant] -= 1
        if not self._followed[tenant]:
            del self._followed[tenant]
            self._shared.notices.unfollow(_topic(tenant))

    async def run(self) -> None:
        """Renew what lasts longer than an entry, a few sessions at a time."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            for n, attendance in enumerate(list(self._attendances), 1):
                if attendance in self._attendances:
                    self._renew(attendance)
                if n % RENEW_BATCH_SESSIONS == 0:
                    await asyncio.sleep(RENEW_PAUSE_S)

    def _renew(self, attendance: Attendance) -> None:
        tenant, by = attendance.tenant, attendance.by
        if by.type == "agent":
            self._shared.roster.enter(_online(tenant), f"{by.id}@{self._gateway}", ONLINE_S)
        if attendance.viewing is not None:
            self._shared.roster.enter(_place(tenant, attendance.viewing), self._entry("viewing", by), VIEWING_S)

    # --- doing something ------------------------------------------------------------------------------------------

    def typing(
        self, tenant: str, conversation: str, *, on: bool, by: Author, but: Session | None, stream: str | None = None
    ) -> None:
        """With `stream`, its customer sees it too. Saying the same again within a second says nothing."""
        if self._is_repeat("typing", conversation, by, on):
            return
        place, entry = _place(tenant, conversation), self._entry("typing", by)
        if not on:
            self._shared.roster.leave(place, entry)
        elif by.type != "customer":
            self._shared.roster.enter(place, entry, TYPING_S)
        self._say(tenant, Sign("typing", conversation, on, by, stream), but)

    def view(self, attendance: Attendance, conversation: str, *, but: Session | None) -> None:
        """The session has this conversation open now, and no other."""
        if attendance.viewing not in (None, conversation):
            self.look_away(attendance, attendance.viewing or "")
        attendance.viewing = conversation
        if self._is_repeat("viewing", conversation, attendance.by, True):
            return
        self._renew(attendance)
        self._say(attendance.tenant, Sign("viewing", conversation, True, attendance.by), but)

    def look_away(self, attendance: Attendance, conversation: str) -> None:
        if attendance.viewing == conversation:
            attendance.viewing = None
            self._said.pop(("viewing", conversation, attendance.by.id or ""), None)
            self._shared.roster.leave(_place(attendance.tenant, conversation), self._entry("viewing", attendance.by))

    def _is_repeat(self, type: str, conversation: str, by: Author, on: bool) -> bool:
        now, key = self._now(), (type, conversation, by.id or "")
        said = self._said.get(key)
        if said is not None and said[0] == on and now - said[1] < SAME_WITHIN_S:
            return True
        if len(self._said) >= SAID_MAX_COUNT:
            self._said.clear()
        self._said[key] = (on, now)
        return False

    def _entry(self, type: Literal["typing", "viewing"], by: Author) -> str:
        return msgspec.json.encode(Entry(type, by, self._gateway)).decode()

    # --- telling --------------------------------------------------------------------------------------------------

    def _say(self, tenant: str, sign: Sign, but: Session | None) -> None:
        self._show(tenant, sign, but)
        self._shared.notices.tell(_topic(tenant), msgspec.msgpack.encode(sign))

    def _heard(self, tenant: str, notice: bytes) -> None:
        self._show(tenant, msgspec.msgpack.decode(notice, type=Sign), None)

    def _show(self, tenant: str, sign: Sign, but: Session | None) -> None:
        """To followers of the conversation and of the inbox that lists it, each session once, and to its customer."""
        told: set[int] = set() if but is None else {id(but)}
        groups = [
            *self._fanout.followers(tenant, f"conversation:{sign.conversation}"),
            *self._fanout.followers(tenant, "inbox"),
        ]
        for subscription in groups:
            if id(subscription.session) not in told:
                told.add(id(subscription.session))
                subscription.session.write(_frame(sign, subscription.topic))
        if sign.stream is not None:
            frame = msgspec.json.encode({"type": "typing", "on": sign.on}).decode()
            for subscription in self._fanout.followers(tenant, f"stream:{sign.stream}"):
                subscription.session.write(frame)

    # --- asking ---------------------------------------------------------------------------------------------------

    async def frames_of(self, tenant: str, conversation: str, *, but: str) -> list[str]:
        """What somebody who opens a conversation is told of the others there; `but`: their own id."""
        found = await self._shared.roster.present(_place(tenant, conversation))
        entries = [msgspec.json.decode(text, type=Entry) for text in found]
        signs = {(e.type, e.by.id): Sign(e.type, conversation, True, e.by) for e in entries if e.by.id != but}
        return [_frame(sign, f"conversation:{conversation}") for sign in signs.values()]

    async def online(self, tenant: str) -> set[str]:
        """The agents who have a session open, on any gateway."""
        return {entry.partition("@")[0] for entry in await self._shared.roster.present(_online(tenant))}


def _frame(sign: Sign, topic: str) -> str:
    what: dict[str, object] = {"type": sign.type, "conversation": sign.conversation}
    if sign.type == "typing":
        what["on"] = sign.on
    return msgspec.json.encode({**what, "by": sign.by, "topic": topic}).decode()


def _place(tenant: str, conversation: str) -> str:
    return f"{tenant}/{conversation}"


def _online(tenant: str) -> str:
    return f"{tenant}/online"


def _topic(tenant: str) -> str:
    return f"presence:{tenant}"
