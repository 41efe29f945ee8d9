"""Presence: who is typing, who is looking. Told at once, forgotten soon, never journaled."""

from __future__ import annotations

import msgspec

from api.fanout import Fanout, Subscription
from api.sessions import Session
from hub.model import Author


class Presence:
    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout

    def typing(self, tenant: str, conversation: str, *, on: bool, by: Author, but: Session | None) -> None:
        self._tell(tenant, conversation, {"type": "typing", "conversation": conversation, "on": on, "by": by}, but)

    def viewing(self, tenant: str, conversation: str, *, by: Author, but: Session | None) -> None:
        self._tell(tenant, conversation, {"type": "viewing", "conversation": conversation, "by": by}, but)

    def customer_sees_typing(self, tenant: str, stream: str, *, on: bool) -> None:
        frame = msgspec.json.encode({"type": "typing", "on": on}).decode()
        for subscription in self._fanout.followers(tenant, f"stream:{stream}"):
            subscription.session.write(frame)

    def _tell(self, tenant: str, conversation: str, what: dict[str, object], but: Session | None) -> None:
        """Followers of the conversation, and the inbox that lists it, each session once."""
        told: set[int] = set() if but is None else {id(but)}
        groups: list[Subscription] = [
            *self._fanout.followers(tenant, f"conversation:{conversation}"),
            *self._fanout.followers(tenant, "inbox"),
        ]
        for subscription in groups:
            if id(subscription.session) in told:
                continue
            told.add(id(subscription.session))
            frame = msgspec.json.encode({**what, "topic": subscription.topic})
            subscription.session.write(frame.decode())
