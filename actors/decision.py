"""What a turn's decide step returns."""

from __future__ import annotations

import msgspec

from hub.events import Event


class Decision(msgspec.Struct):
    """Events to journal (none where nothing changes), and what the caller is to be shown.

    `message` and `conversation` name what the answer is about. `duplicate` says that the command had been
    taken before and this is the first one's outcome.
    """

    events: list[Event] = []
    conversation: str | None = None
    message: str | None = None
    duplicate: bool = False
    revision: int = 0
