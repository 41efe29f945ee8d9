"""One hub with two gateways and a Redis: what they share, and that nothing fails when Redis does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.hub_process import (
    KEY,
    Frames,
    HubProcess,
    agent_stream,
    client,
    deliver,
    one_client_for_each_gateway,
    running_hub,
    whatsapp_payload,
    whatsapp_text,
)
from tests.servers.redis import RedisServer, running_redis

WITHIN_S = 10.0
STREAMS_COUNT = 40


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HubProcess, RedisServer]]:
    folder = tmp_path_factory.mktemp("two") / "data"
    with running_redis() as server, running_hub(folder, HUB_GATEWAYS="2", HUB_REDIS=server.url) as hub:
        yield hub, server


async def streams_at_both(stack: contextlib.AsyncExitStack, hub: HubProcess, token: str) -> list[Frames]:
    """So many that one gateway alone has them all once in 2^39 runs."""
    return [await stack.enter_async_context(agent_stream(hub, token)) for _ in range(STREAMS_COUNT)]


async def sign_in(http: httpx.AsyncClient) -> dict[str, Any]:
    form = {"grant_type": "password", "username": "ana@demo.test", "password": "demo"}
    return dict((await http.post("/v1/auth/token", data=form)).json())


async def conversation_of(hub: HubProcess, phone: str) -> str:
    async with client(hub) as http:
        answer = await deliver(http, whatsapp_payload(whatsapp_text(phone, f"wamid.{phone}", "hola")))
        assert answer.status_code == 200
        return str((await http.get("/v1/conversations", params={"q": phone})).json()["items"][0]["id"])


async def shared_state(gateways: list[httpx.AsyncClient], prefix: str) -> None:
    """Return once both gateways are ready and say so of what they share."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        answers = [await http.get("/readyz") for http in gateways]
        assert [answer.status_code for answer in answers] == [200, 200]
        if all(answer.json()["shared"].startswith(prefix) for answer in answers):
            return
        assert time.monotonic() < deadline, answers[0].text
        await asyncio.sleep(0.05)


async def test_typing_is_seen_and_a_sign_out_holds_at_both_gateways(shared: tuple[HubProcess, RedisServer]) -> None:
    hub, _ = shared
    conversation = await conversation_of(hub, "584120000001")
    async with one_client_for_each_gateway(hub) as gateways, contextlib.AsyncExitStack() as stack:
        tokens = await sign_in(gateways[0])
        bearer = {"authorization": f"Bearer {tokens['access_token']}"}
        streams = await streams_at_both(stack, hub, tokens["access_token"])
        counts = [(await http.get("/v1/status", headers=KEY)).json()["sessions"] for http in gateways]
        assert all(counts) and sum(counts) >= len(streams)
        await streams[0].send(type="typing", conversation=conversation, on=True)
        seen = await asyncio.gather(*(stream.until("typing", conversation=conversation) for stream in streams[1:]))
        assert {frame["by"]["id"] for frame in seen} == {"agt_ana"}
        for http in gateways:
            agents = (await http.get("/v1/agents", headers=bearer)).json()["items"]
            assert {agent["id"]: agent["online"] for agent in agents}["agt_ana"] is True
        answer = await gateways[0].post("/v1/auth/revoke", data={"token": tokens["refresh_token"]})
        assert (answer.status_code, answer.content) == (200, b"")
        began = time.monotonic()
        assert {await stream.close_code() for stream in streams} == {4401}
        assert time.monotonic() - began < 2
        for http in gateways:
            assert (await http.get("/v1/me", headers=bearer)).status_code == 401
        again = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        assert (await gateways[1].post("/v1/auth/token", data=again)).status_code == 401


async def test_while_redis_is_dead_everything_goes_on_and_both_gateways_say_so(
    shared: tuple[HubProcess, RedisServer],
) -> None:
    hub, server = shared
    async with one_client_for_each_gateway(hub) as gateways, agent_stream(hub) as stream:
        await shared_state(gateways, "ok")
        server.kill()
        for http in gateways:
            assert (await http.get("/v1/me", headers=KEY)).status_code == 200
        conversation = await conversation_of(hub, "584120000002")
        while (await stream.event("message.received"))["event"]["conversation"]["id"] != conversation:
            pass
        await shared_state(gateways, "degraded: redis does not answer since 20")
        for http in gateways:
            figures = (await http.get("/metrics")).text
            assert "\nhub_shared_up 0.0\n" in figures
        tokens = await sign_in(gateways[0])
        bearer = {"authorization": f"Bearer {tokens['access_token']}"}
        assert (await gateways[0].post("/v1/auth/revoke", data={"token": tokens["access_token"]})).status_code == 200
        assert [(await http.get("/v1/me", headers=bearer)).status_code for http in gateways] == [401, 401]
        server.start()
        await shared_state(gateways, "ok")
