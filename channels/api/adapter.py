"""The `api` adapter: inbound has its own door, outbound is read from the stream."""

from __future__ import annotations

from channels.adapter import Address, Unsendable
from channels.api.inbound import identity_of
from channels.json import clean
from hub.errors import InvalidFields
from hub.settings import Channel


class ApiAdapter(Unsendable):
    kind = "api"

    def address(self, channel: Channel, to: str) -> Address:
        sender = clean(to, 256)
        if not sender.strip():
            raise InvalidFields(fields={"to": "must not be empty"})
        return Address(identity_of(channel, sender), sender)
