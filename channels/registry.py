"""The kinds of channels there are, and their adapters."""

from __future__ import annotations

from channels.adapter import Adapter
from channels.api.adapter import ApiAdapter
from channels.webchat.adapter import WebchatAdapter
from channels.whatsapp.adapter import WhatsAppAdapter
from hub.errors import InvalidFields, NotFound

ADAPTERS: dict[str, Adapter] = {
    adapter.kind: adapter for adapter in (WhatsAppAdapter(), WebchatAdapter(), ApiAdapter())
}
# Kinds that tenants may have channels of, though nothing speaks to their providers yet.
PLANNED = frozenset({"telegram", "email", "sms"})


def adapter_for(kind: str) -> Adapter:
    """Raises NotFound for a kind that has no adapter yet, InvalidFields for one that does not exist."""
    adapter = ADAPTERS.get(kind)
    if adapter is not None:
        return adapter
    if kind in PLANNED:
        raise NotFound(f"channels of kind {kind} cannot send or receive yet")
    raise InvalidFields(fields={"kind": f"{kind[:40]!r} is not a kind of channel; takes {', '.join(sorted(ADAPTERS))}"})
