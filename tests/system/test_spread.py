"""A tenant that lives in partitions of two shards: for everybody outside it is one tenant."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from hub.ids import customer_of, stream_partition
from tests.hub_process import HubProcess, agent_stream, client, deliver, running_hub, whatsapp_payload, whatsapp_text

CUSTOMERS = 60


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with running_hub(tmp_path_factory.mktemp("spread") / "data", HUB_SHARDS="2") as hub:
        yield hub


async def say(http: httpx.AsyncClient, mark: str, *, text: str) -> list[dict[str, Any]]:
    """One message of each of many customers, in one request."""
    items = [{"external_id": f"{mark}-{n}-{text}", "from": f"{mark}-{n}", "text": text} for n in range(CUSTOMERS)]
    answer = await http.post("/v1/channels/demo-api/inbound", json=items)
    results: list[dict[str, Any]] = answer.json()["items"]
    assert {result["status"] for result in results} == {"accepted"}
    return results


def partition_of(conversation: str) -> int:
    return stream_partition(customer_of(conversation) or "", 16)


@pytest.mark.timeout(120)
async def test_fifty_first_messages_at_once_open_one_conversation(hub: HubProcess) -> None:
    sender = f"58{secrets.randbelow(10**10):010}"
    async with client(hub) as http:
        payloads = [whatsapp_payload(whatsapp_text(sender, f"wamid.{sender}.{n}", f"hola {n}")) for n in range(50)]
        answers = await asyncio.gather(*(deliver(http, payload) for payload in payloads))
        assert {answer.status_code for answer in answers} == {200}
        found = (await http.get("/v1/customers", params={"q": sender})).json()["items"]
        assert len(found) == 1
        conversations = (await http.get("/v1/conversations", params={"customer": found[0]["id"]})).json()["items"]
        assert len(conversations) == 1
        path = f"/v1/conversations/{conversations[0]['id']}/messages"
        messages = (await http.get(path, params={"limit": 200})).json()["items"]
        assert [message["seq"] for message in messages] == list(range(1, 51))
        assert len({message["text"] for message in messages}) == 50


@pytest.mark.timeout(120)
async def test_customers_live_on_both_shards_and_every_list_shows_them_all(hub: HubProcess) -> None:
    mark = secrets.token_hex(4)
    async with client(hub) as http:
        results = await say(http, mark, text="hola")
        assert len({partition_of(result["conversation"]) for result in results}) == 8
        # Read at once: what this gateway has acknowledged is in its lists, whichever partition took it.
        page = (await http.get("/v1/conversations", params={"q": mark, "limit": 200})).json()
        assert {item["id"] for item in page["items"]} == {result["conversation"] for result in results}
        shards = (await http.get("/v1/status")).json()["shards"]
        assert len(shards) == 2
        assert all(figures["activations"] >= CUSTOMERS // 8 for figures in shards.values()), shards
        # Whoever follows from the list's position gets what comes after it, from everywhere.
        later = await say(http, mark, text="otra vez")
        async with agent_stream(hub, position=page["position"]) as stream:
            assert stream.subscribed["recovered"] is True
            told = [(await stream.event("message.received"))["event"]["message"]["id"] for _ in later]
        assert sorted(told) == sorted(result["message"] for result in later)


@pytest.mark.timeout(120)
async def test_a_stream_resumes_after_any_event_over_both_shards(hub: HubProcess) -> None:
    mark = secrets.token_hex(4)
    async with client(hub) as http, agent_stream(hub) as live:
        results = await say(http, mark, text="hola") + await say(http, mark, text="sigo aquí")
        frames = [await live.event("message.received") for _ in results]
    ids = [frame["event"]["message"]["id"] for frame in frames]
    assert sorted(ids) == sorted(result["message"] for result in results)
    for index in (-1, 0, 17, CUSTOMERS, len(frames) - 2):
        position = live.subscribed["position"] if index < 0 else frames[index]["position"]
        async with agent_stream(hub, position=position) as again:
            assert again.subscribed["recovered"] is True
            rest = [(await again.event("message.received"))["event"]["message"]["id"] for _ in ids[index + 1 :]]
        assert sorted(rest) == sorted(ids[index + 1 :])
        for sender in range(CUSTOMERS):
            both = (results[sender]["message"], results[CUSTOMERS + sender]["message"])
            assert [id for id in rest if id in both] == [id for id in ids[index + 1 :] if id in both]


@pytest.mark.timeout(120)
def test_a_flood_over_both_shards_loses_doubles_and_disorders_nothing(hub: HubProcess) -> None:
    command = [sys.executable, "-m", "bench.flood", "--url", hub.url, "--rate", "2000", "--seconds", "5"]
    done = subprocess.run([*command, "--conversations", "300"], capture_output=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    report = json.loads(done.stdout)
    assert report["truth"] == "ok" and report["journal"] == report["offered"] == report["delivered"] == 10_000
    assert report["lost"] == report["doubled"] == report["out_of_order"] == 0
