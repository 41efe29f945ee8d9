"""The bare ASGI of the hot paths: read a bounded body, answer bytes, answer a problem document (RFC 9457)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from hub.errors import BodyTooLarge, HubError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_MAX_BYTES = 5 * 1024 * 1024
JSON = b"application/json"
PROBLEM = b"application/problem+json"


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


async def read_body(receive: Receive, limit: int = BODY_MAX_BYTES) -> bytes:
    """The raw body. Raises BodyTooLarge as soon as it is, not after reading it all."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if message["type"] == "http.disconnect":
            raise ClientGone
        _check(len(body), limit)
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        _check(size, limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    _check(size, limit)
    return b"".join(parts)


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise BodyTooLarge(f"the body is larger than {limit} bytes")


async def respond(
    send: Send, status: int, body: bytes, content_type: bytes = JSON, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    base = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": base + (headers or [])})
    await send({"type": "http.response.body", "body": body})


def problem_body(error: HubError) -> bytes:
    document: dict[str, Any] = {
        "type": f"about:blank#{error.code}",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
    }
    if error.fields:
        document["errors"] = [{"field": field, "detail": detail} for field, detail in error.fields.items()]
    return msgspec.json.encode(document)


def problem_headers(error: HubError) -> list[tuple[bytes, bytes]]:
    headers = []
    if error.retry_after_s > 0:
        headers.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


async def respond_problem(send: Send, error: HubError) -> None:
    await respond(send, error.status, problem_body(error), PROBLEM, problem_headers(error))
