"""What every route needs: the gateway, the principal, JSON and pages."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Header, Query, Request, Response

from api.auth import Principal
from api.context import Gateway
from hub.config import is_loopback
from hub.errors import InvalidFields, Unauthenticated

PAGE_DEFAULT = 50
PAGE_MAX = 200


def gateway(request: Request) -> Gateway:
    found: Gateway = request.app.state.gateway
    return found


async def principal(request: Request, gateway: Annotated[Gateway, Depends(gateway)]) -> Principal:
    """Who asks. Raises Unauthenticated, RateLimited."""
    header = request.headers.get("authorization", "")
    scheme, _, token = header.partition(" ")
    credential = request.headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else None)
    if credential is None:
        raise Unauthenticated()
    who = await gateway.auth.authenticate(credential)
    if not (gateway.config.demo and _is_local(request)):
        await gateway.limits.take(f"{who.type}:{who.id}")
    return who


def _is_local(request: Request) -> bool:
    return request.client is not None and is_loopback(request.client.host)


Services = Annotated[Gateway, Depends(gateway)]
Who = Annotated[Principal, Depends(principal)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="how many at most")]
Cursor = Annotated[str | None, Query(max_length=512, description="`next_cursor` of the page before")]
IdempotencyKey = Annotated[str | None, Header(max_length=128, min_length=1)]


def raw(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def json(value: Any, status: int = 200) -> Response:
    return raw(msgspec.json.encode(value), status)


def page(items: Sequence[bytes], next_cursor: str | None, *, position: str | None = None) -> Response:
    """A list of things that are JSON already. `position`: subscribe from there and nothing since is missing."""
    end = {"next_cursor": next_cursor} if position is None else {"next_cursor": next_cursor, "position": position}
    return raw(b'{"items":[' + b",".join(items) + b"]," + msgspec.json.encode(end)[1:])


def write_cursor(updated_at: int, id: str) -> str:
    return base64.urlsafe_b64encode(f"{updated_at}:{id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> tuple[int, str] | None:
    """Raises InvalidFields."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, _, id = base64.urlsafe_b64decode(padded.encode()).decode().partition(":")
        return int(at), id
    except (ValueError, UnicodeError):
        raise InvalidFields(fields={"cursor": "is not a cursor of this list"}) from None


def fresh_client_id() -> str:
    """Names a message its sender did not name, so that our own retries stay one message."""
    return f"hub-{secrets.token_hex(12)}"
