"""`POST /v1/channels/{id}/inbound`: API clients hand over messages, up to 500 at a time. Bare ASGI.

Each item gets its own result, in order, durable when answered. A repeat gets its first result again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from api.asgi import ClientGone, Receive, Scope, Send, read_body, respond, respond_problem
from api.context import Gateway, problem_of
from channels.adapter import Inbound
from channels.api.inbound import parse
from hub.commands import Answer, Refused
from hub.config import is_loopback
from hub.errors import HubError, NotFound, Unauthenticated, from_code

_encode = msgspec.json.Encoder().encode


class Result(msgspec.Struct, omit_defaults=True):
    external_id: str | None
    status: str
    message: str | None = None
    conversation: str | None = None
    code: str | None = None
    detail: str | None = None
    errors: dict[str, str] | None = None


async def inbound(gateway: Gateway, channel_id: str, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await _take(gateway, channel_id, scope, receive, send)
    except ClientGone:
        return
    except Exception as error:
        problem = problem_of(error)
        gateway.metrics.refused.labels(problem.code).inc()
        await respond_problem(send, problem)


async def _take(gateway: Gateway, channel_id: str, scope: Scope, receive: Receive, send: Send) -> None:
    began = time.perf_counter()
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    who = await gateway.auth.authenticate(credential(headers))
    who.require("inbound")
    client = scope.get("client")
    if not (gateway.config.demo and client and is_loopback(client[0])):
        await gateway.limits.take(f"{who.type}:{who.id}")
    late = gateway.admission.late(who.tenant)
    if late is not None:
        raise late
    body = await read_body(receive)
    channel = await gateway.own_channel(who.tenant, channel_id)
    if channel.kind != "api":
        raise NotFound(f"channel {channel.id} is of kind {channel.kind}; only kind api takes inbound messages here")
    items, listed = parse(channel, body)
    results = await _submit(gateway, who.tenant, items)
    taken = sum(result.status == "accepted" for result in results)
    gateway.metrics.inbound.labels("api").inc(taken)
    gateway.metrics.ack_seconds.labels("api").observe(time.perf_counter() - began)
    if not listed:
        await _respond_one(send, results[0], items[0])
        return
    await respond(send, 200, b'{"items":' + _encode(results) + b"}")


def credential(headers: Mapping[bytes, str]) -> str:
    """The key or token of a request. Raises Unauthenticated where there is none."""
    key = headers.get(b"x-api-key")
    if key:
        return key
    scheme, _, token = headers.get(b"authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated()
    return token.strip()


async def _submit(gateway: Gateway, tenant: str, items: list[Inbound | HubError]) -> list[Result]:
    futures: list[asyncio.Future[Answer] | None] = [
        gateway.receive(tenant, gateway.stream_of_identity(tenant, item.identity), item.command)
        if isinstance(item, Inbound)
        else None
        for item in items
    ]
    results = []
    for item, future in zip(items, futures, strict=True):
        if isinstance(item, HubError) or future is None:
            error: Any = item
            results.append(Result(None, "refused", code=error.code, detail=error.detail, errors=error.fields))
            continue
        results.append(_result(gateway, item.command.external_id, await future))
    return results


def _result(gateway: Gateway, external_id: str | None, answer: Answer) -> Result:
    if isinstance(answer, Refused):
        return Result(external_id, "refused", code=answer.code, detail=answer.detail)
    done = gateway.accept(answer)
    status = "duplicate" if done.duplicate else "accepted"
    return Result(external_id, status, done.message_id, done.conversation_id)


async def _respond_one(send: Send, result: Result, item: Inbound | HubError) -> None:
    if isinstance(item, HubError):
        raise item
    if result.status == "refused":
        raise from_code(result.code or "internal", result.detail or "")
    await respond(send, 200 if result.status == "duplicate" else 201, _encode(result))
