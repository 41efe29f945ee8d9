"""What an adapter is: the shape every kind of provider is fitted into.

An adapter keeps no state. Everything it needs is in the channel it is handed; everything it learns
is in the commands it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from hub.commands import ReceiveMessage, RecordReceipt
from hub.errors import NotFound
from hub.settings import Channel


class Inbound(msgspec.Struct):
    """One thing a provider told us. `identity` is the canonical form of the customer's address, which routes it."""

    identity: str
    command: ReceiveMessage | RecordReceipt


class Delivery(msgspec.Struct, frozen=True):
    """One webhook request, parsed. `ignored` counts well-formed entries that concern nobody (account news and such)."""

    items: list[Inbound]
    ignored: int = 0


class Address(msgspec.Struct, frozen=True):
    """`identity` names the customer, `address` is what the provider wants to be told."""

    identity: str
    address: str


class Outgoing(msgspec.Struct, frozen=True):
    """A message to be handed to a provider. `message` is our id of it and the idempotency key where one is taken."""

    message: str
    address: str
    text: str
    attempt: int


class Request(msgspec.Struct, frozen=True):
    """An HTTP request to a provider."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


class Outcome(msgspec.Struct, frozen=True):
    """What a provider answered.

    sent       it took the message; `external_id` is its name for it
    retry      it did not take it, and may later (`retry_after_s` is its own hint, else None)
    failed     it will never take it; `code` and `detail` say why
    unknown    it may have taken it: the connection broke or timed out after the request was out
    """

    kind: Literal["sent", "retry", "failed", "unknown"]
    external_id: str | None = None
    code: str = ""
    detail: str = ""
    retry_after_s: float | None = None


class Adapter(Protocol):
    """One kind of provider."""

    kind: str
    idempotent: bool
    """Does the provider drop a second send of the same `Outgoing.message`?"""

    local: bool
    """Do its outbound messages leave through our own sockets? Then there is no provider to call."""

    def challenge(self, channel: Channel, query: Mapping[str, str]) -> str:
        """The answer to the provider's GET verification. Raises Forbidden or NotFound."""
        ...

    def verify(self, channel: Channel, headers: Mapping[str, str], body: bytes) -> None:
        """Raises BadSignature unless the raw body was signed with the channel's secret. Header names are lower case."""
        ...

    def parse(self, channel: Channel, body: bytes, now: int) -> Delivery:
        """Every message and status in the body, in order. Raises MalformedBody or InvalidFields, nothing else."""
        ...

    def address(self, channel: Channel, to: str) -> Address:
        """What an agent typed as destination. Raises InvalidFields."""
        ...

    def request(self, channel: Channel, outgoing: Outgoing, base_url: str) -> Request:
        """The request that sends it. `base_url` is the provider's, or what overrides it."""
        ...

    def outcome(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """What the provider's answer means. Never raises."""
        ...


class Unsendable:
    """For adapters with no provider behind them: nothing is verified, nothing is requested."""

    idempotent = True
    local = True

    def challenge(self, channel: Channel, query: Mapping[str, str]) -> str:
        raise NotFound(f"channel {channel.id} takes no webhooks")

    def verify(self, channel: Channel, headers: Mapping[str, str], body: bytes) -> None:
        raise NotFound(f"channel {channel.id} takes no webhooks")

    def parse(self, channel: Channel, body: bytes, now: int) -> Delivery:
        raise NotFound(f"channel {channel.id} takes no webhooks")

    def request(self, channel: Channel, outgoing: Outgoing, base_url: str) -> Request:
        raise NotFound(f"channel {channel.id} has no provider")

    def outcome(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        return Outcome("failed", code="no_provider")
