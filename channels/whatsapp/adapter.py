"""The WhatsApp adapter: inbound and outbound as one."""

from __future__ import annotations

from collections.abc import Mapping

from channels.adapter import Address, Delivery, Outcome, Outgoing, Request
from channels.whatsapp import inbound, outbound
from hub.errors import InvalidFields
from hub.settings import Channel

PHONE_MIN_DIGITS = 6
PHONE_MAX_DIGITS = 15


class WhatsAppAdapter:
    kind = "whatsapp"
    idempotent = False
    local = False

    def challenge(self, channel: Channel, query: Mapping[str, str]) -> str:
        return inbound.challenge(channel, query)

    def verify(self, channel: Channel, headers: Mapping[str, str], body: bytes) -> None:
        inbound.verify(channel, headers, body)

    def parse(self, channel: Channel, body: bytes, now: int) -> Delivery:
        return inbound.parse(channel, body, now)

    def address(self, channel: Channel, to: str) -> Address:
        digits = to.translate({ord(c): None for c in "+ -()."})
        if not (digits.isascii() and digits.isdigit() and PHONE_MIN_DIGITS <= len(digits) <= PHONE_MAX_DIGITS):
            raise InvalidFields(fields={"to": "takes an international phone number such as +584120000000"})
        return Address(f"tel:+{digits}", digits)

    def request(self, channel: Channel, outgoing: Outgoing, base_url: str) -> Request:
        return outbound.request(channel, outgoing, base_url)

    def outcome(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        return outbound.outcome(status, headers, body)
