"""Who a web visitor is: somebody their shop vouches for, or just the browser they came with before."""

from __future__ import annotations

import hmac

from channels.adapter import Address
from channels.webchat.frames import SignedIdentity
from hub.errors import BadSignature
from hub.settings import Channel


def visitor_identity(channel: Channel, visitor: str) -> Address:
    return Address(f"visitor:{channel.id}:{visitor}", visitor)


def verified_identity(channel: Channel, identity: SignedIdentity) -> Address:
    """Raises BadSignature where the shop's secret did not sign this id."""
    secret = channel.secrets.get("identity_secret", "")
    expected = hmac.digest(secret.encode(), identity.id.encode("utf-8", "replace"), "sha256").hex()
    if not secret or not hmac.compare_digest(expected.encode(), identity.hmac.lower().encode("utf-8", "replace")):
        raise BadSignature("the identity's HMAC does not match; sign its id with the channel's identity secret")
    return Address(f"webid:{channel.id}:{identity.id}", identity.id)
