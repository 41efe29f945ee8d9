"""`/webhooks/{channel}`: providers call here. Verify, parse, route; 200 only once everything is durable.

Whatever went wrong after the signature was found good answers 5xx or 429, so that the provider delivers
again: the dedupe window makes the second delivery harmless.
"""

from __future__ import annotations

import asyncio
import time
from urllib.parse import parse_qsl

from api.asgi import ClientGone, Receive, Scope, Send, read_body, respond, respond_problem
from api.context import Gateway, problem_of
from channels.registry import adapter_for
from hub.commands import Refused
from hub.errors import from_code

WEBHOOK_MAX_BYTES = 3 * 1024 * 1024


async def webhook(gateway: Gateway, channel_id: str, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        if scope["method"] == "GET":
            await _challenge(gateway, channel_id, scope, send)
        else:
            await _deliver(gateway, channel_id, scope, receive, send)
    except ClientGone:
        return
    except Exception as error:
        problem = problem_of(error)
        gateway.metrics.refused.labels(problem.code).inc()
        await respond_problem(send, problem)


async def _challenge(gateway: Gateway, channel_id: str, scope: Scope, send: Send) -> None:
    channel = await gateway.channel(channel_id)
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    answer = adapter_for(channel.kind).challenge(channel, query)
    await respond(send, 200, answer.encode(), b"text/plain; charset=utf-8")


async def _deliver(gateway: Gateway, channel_id: str, scope: Scope, receive: Receive, send: Send) -> None:
    began = time.perf_counter()
    channel = await gateway.channel(channel_id)
    late = gateway.admission.late(channel.tenant)
    if late is not None:
        raise late
    body = await read_body(receive, WEBHOOK_MAX_BYTES)
    adapter = adapter_for(channel.kind)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    adapter.verify(channel, headers, body)
    delivery = adapter.parse(channel, body, gateway.clock.now())
    tenant = channel.tenant
    futures = [
        gateway.receive(tenant, gateway.stream_of_identity(tenant, item.identity), item.command)
        for item in delivery.items
    ]
    refusals = []
    for answer in await asyncio.gather(*futures):
        if isinstance(answer, Refused):
            refusals.append(from_code(answer.code, answer.detail, answer.retry_after_s))
        else:
            gateway.accept(answer)
    for error in refusals:
        if error.retryable:
            raise error
    _observe(gateway, len(delivery.items), began)
    await respond(send, 200, b'{"received":%d}' % len(delivery.items))


def _observe(gateway: Gateway, count: int, began: float) -> None:
    gateway.metrics.inbound.labels("webhook").inc(count)
    gateway.metrics.ack_seconds.labels("webhook").observe(time.perf_counter() - began)
