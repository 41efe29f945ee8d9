"""The web chat adapter: everything travels through our own sockets (`api/chat.py`)."""

from __future__ import annotations

from channels.adapter import Address, Unsendable
from hub.errors import InvalidFields
from hub.settings import Channel


class WebchatAdapter(Unsendable):
    kind = "web"

    def address(self, channel: Channel, to: str) -> Address:
        raise InvalidFields(fields={"to": "a web chat is opened by the customer; answer in their conversation"})
