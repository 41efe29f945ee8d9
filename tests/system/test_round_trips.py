"""A customer's message in, live in an agent's socket; the agent's answer out, and its story back."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import secrets
from typing import Any

import httpx

from tests.hub_process import (
    HubProcess,
    agent_stream,
    client,
    connected,
    deliver,
    signed,
    whatsapp_payload,
    whatsapp_text,
)


def fresh_phone() -> str:
    return f"58412{random.randrange(10**7):07d}"


async def messages_of(http: httpx.AsyncClient, conversation: str) -> list[dict[str, Any]]:
    answer = await http.get(f"/v1/conversations/{conversation}/messages", params={"limit": 200})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def test_a_whatsapp_message_reaches_the_agent_and_the_reply_comes_back_as_read(hub: HubProcess) -> None:
    async with client(hub) as http, agent_stream(hub) as stream:
        phone = fresh_phone()
        body = whatsapp_payload(whatsapp_text(phone, f"wamid.{phone}", "Hola, ¿está abierto?"))
        assert (await deliver(http, body)).status_code == 200
        event = (await stream.event("message.received"))["event"]
        assert event["message"]["text"] == "Hola, ¿está abierto?"
        assert event["conversation"]["customer"]["name"] == "Kerry Fisher"
        conversation = event["conversation"]["id"]
        await stream.send(type="send", id="7", conversation=conversation, client_id="r1", text="Sí, hasta las 6")
        ack = await stream.until("ack", id="7")
        assert ack["message"]["kind"] == "outbound"
        statuses = []
        while "read" not in statuses:
            statuses.append((await stream.event("message.status"))["event"]["message"]["status"])
        assert statuses == ["sent", "delivered", "read"]
        assert [m["status"] for m in await messages_of(http, conversation)] == [None, "read"]


async def test_fifty_parallel_first_messages_open_one_conversation_however_often_they_are_delivered(
    hub: HubProcess,
) -> None:
    phone = fresh_phone()
    bodies = [whatsapp_payload(whatsapp_text(phone, f"wamid.{phone}.{n}", f"mensaje {n}")) for n in range(50)]
    deliveries = bodies * 3
    random.Random(7).shuffle(deliveries)
    async with client(hub) as http:
        answers = await asyncio.gather(*(deliver(http, body) for body in deliveries))
        assert {answer.status_code for answer in answers} == {200}
        found = (await http.get("/v1/conversations", params={"q": phone})).json()["items"]
        assert len(found) == 1
        assert len({item["customer"]["id"] for item in found}) == 1
        messages = await messages_of(http, found[0]["id"])
        assert [message["seq"] for message in messages] == list(range(1, 51))
        assert len({message["external_id"] for message in messages}) == 50
        assert found[0]["seq"] == 50 and found[0]["unread"] == 50


async def test_a_web_visitor_and_an_agent_talk(hub: HubProcess) -> None:
    async with agent_stream(hub) as stream, connected(f"{hub.ws}/v1/chat/demo-web") as chat:
        await chat.send(type="hello", visitor=None, name="Lucía")
        welcome = await chat.until("welcome")
        assert welcome["messages"] == [] and welcome["conversation"] is None
        await chat.send(type="message", client_id="a1", text="¿Tienen talla M?")
        ack = await chat.until("ack", client_id="a1")
        conversation = ack["message"]["conversation"]
        while (await stream.event("message.received"))["event"]["conversation"]["id"] != conversation:
            pass
        await stream.send(type="typing", conversation=conversation, on=True)
        assert (await chat.until("typing"))["on"] is True
        await stream.send(type="send", id="1", conversation=conversation, client_id=secrets.token_hex(4), text="Sí")
        answer = await chat.until("message")
        assert answer["message"]["text"] == "Sí"
        await chat.send(type="read", seq=answer["message"]["seq"])
        while (await stream.event("message.status"))["event"]["message"]["status"] != "read":
            pass


async def test_a_returning_visitor_gets_the_history_and_never_a_note(hub: HubProcess) -> None:
    async with client(hub) as http:
        async with connected(f"{hub.ws}/v1/chat/demo-web") as chat:
            await chat.send(type="hello", visitor=None)
            token = (await chat.until("welcome"))["token"]
            await chat.send(type="message", client_id="a1", text="primero")
            conversation = (await chat.until("ack"))["message"]["conversation"]
        url = f"/v1/conversations/{conversation}/messages"
        assert (await http.post(url, json={"text": "cliente difícil", "kind": "note"})).status_code == 201
        assert (await http.post(url, json={"text": "buenas"})).status_code == 201
        async with connected(f"{hub.ws}/v1/chat/demo-web") as chat:
            await chat.send(type="hello", visitor=None, token=token)
            welcome = await chat.until("welcome")
            assert [message["text"] for message in welcome["messages"]] == ["primero", "buenas"]
            await chat.send(type="message", client_id="a1", text="primero")
            assert (await chat.until("ack"))["message"]["seq"] == 1


async def test_a_visitor_without_its_token_and_an_identity_without_its_hmac_get_nothing(hub: HubProcess) -> None:
    for hello in (
        {"visitor": "somebody"},
        {"visitor": None, "token": "somebody.forged"},
        {"visitor": None, "identity": {"id": "42", "hmac": "00"}},
    ):
        async with connected(f"{hub.ws}/v1/chat/demo-web") as chat:
            await chat.send(type="hello", **hello)
            assert (await chat.next())["type"] == "error"
            assert await chat.close_code() == 4401


async def test_a_signed_identity_is_the_same_customer_on_every_device(hub: HubProcess) -> None:
    id = secrets.token_hex(6)
    identity = {"id": id, "hmac": hmac.new(b"demo-secret", id.encode(), hashlib.sha256).hexdigest()}
    async with connected(f"{hub.ws}/v1/chat/demo-web") as phone:
        await phone.send(type="hello", visitor=None, identity=identity)
        await phone.until("welcome")
        await phone.send(type="message", client_id="x", text="desde el teléfono")
        await phone.until("ack")
    async with connected(f"{hub.ws}/v1/chat/demo-web") as laptop:
        await laptop.send(type="hello", visitor=None, identity=identity)
        welcome = await laptop.until("welcome")
        assert [message["text"] for message in welcome["messages"]] == ["desde el teléfono"]


async def test_an_api_client_hands_over_a_list_and_gets_a_result_for_each_item(hub: HubProcess) -> None:
    mark = secrets.token_hex(4)
    items = [
        {"external_id": f"{mark}1", "from": mark, "text": "uno"},
        {"external_id": f"{mark}2", "from": mark, "text": 2},
        {"external_id": f"{mark}1", "from": mark, "text": "uno otra vez"},
    ]
    async with client(hub) as http:
        answer = await http.post("/v1/channels/demo-api/inbound", json=items)
        assert answer.status_code == 200
        results = answer.json()["items"]
        assert [result["status"] for result in results] == ["accepted", "refused", "duplicate"]
        assert results[2]["message"] == results[0]["message"]
        assert list(results[1]["errors"]) == ["items[1].text"]


async def test_statuses_that_overtake_our_own_knowledge_are_kept_until_it_comes(hub: HubProcess) -> None:
    """A provider's status for an unknown id is answered 200 and changes nothing else."""
    status = {"id": "wamid.unknown", "status": "read", "timestamp": "1700000000", "recipient_id": fresh_phone()}
    value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": "10001"}, "statuses": [status]}
    body = httpx.Request(
        "POST",
        "http://x",
        json={"object": "whatsapp_business_account", "entry": [{"changes": [{"field": "messages", "value": value}]}]},
    ).content
    async with client(hub) as http:
        answer = await http.post("/webhooks/demo-whatsapp", content=body, headers=signed(body))
        assert answer.status_code == 200, answer.text


async def test_tenants_see_nothing_of_each_other(hub: HubProcess) -> None:
    async with client(hub) as http, client(hub, "demo2-key") as other, agent_stream(hub, "demo2-key") as stream:
        mark = secrets.token_hex(4)
        item = {"external_id": mark, "from": mark, "text": "secreto"}
        conversation = (await http.post("/v1/channels/demo-api/inbound", json=item)).json()["conversation"]
        assert (await other.get(f"/v1/conversations/{conversation}")).status_code == 404
        assert (await other.get(f"/v1/conversations/{conversation}/messages")).status_code == 404
        assert (await other.patch(f"/v1/conversations/{conversation}", json={"status": "resolved"})).status_code == 404
        assert (await other.post("/v1/channels/demo-api/inbound", json=item)).status_code == 404
        assert (await other.get("/v1/conversations", params={"q": mark})).json()["items"] == []
        await stream.send(type="subscribe", topic=f"conversation:{conversation}", position=None)
        assert (await stream.until("error"))["code"] == "not_found"


async def test_the_same_client_id_is_the_same_message_and_a_stale_reply_is_refused(hub: HubProcess) -> None:
    async with client(hub) as http:
        mark = secrets.token_hex(4)
        item = {"external_id": mark, "from": mark, "text": "hola"}
        conversation = (await http.post("/v1/channels/demo-api/inbound", json=item)).json()["conversation"]
        url = f"/v1/conversations/{conversation}/messages"
        first = await http.post(url, json={"text": "buenas", "client_id": "c1"})
        again = await http.post(url, json={"text": "buenas", "client_id": "c1"})
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["id"] == again.json()["id"]
        await http.post("/v1/channels/demo-api/inbound", json=item | {"external_id": f"{mark}b"})
        stale = await http.post(url, json={"text": "tarde", "if_seq": 1})
        assert stale.status_code == 409 and stale.json()["code"] == "stale_reply"


async def test_a_position_resumes_without_a_gap(hub: HubProcess) -> None:
    async with client(hub) as http:
        async with agent_stream(hub) as stream:
            position = stream.subscribed["position"]
        mark = secrets.token_hex(4)
        for n in range(5):
            item = {"external_id": f"{mark}{n}", "from": mark, "text": f"{mark} {n}"}
            assert (await http.post("/v1/channels/demo-api/inbound", json=item)).status_code == 201
        async with agent_stream(hub, position=position) as stream:
            assert stream.subscribed["recovered"] is True
            seen: list[int] = []
            while len(seen) < 5:
                message = (await stream.event("message.received"))["event"]["message"]
                if message["text"].startswith(mark):
                    seen.append(message["seq"])
            assert seen == [1, 2, 3, 4, 5]
        for never in ("999-1", f"{position.partition('-')[0]}-{10**9}"):
            async with agent_stream(hub, position=never) as stream:
                assert stream.subscribed["recovered"] is False


async def test_a_list_and_the_stream_fit_together_without_a_gap(hub: HubProcess) -> None:
    """Whoever loads a list and subscribes from its position sees each message in one of the two."""
    mark = secrets.token_hex(4)
    async with client(hub) as http:

        async def write() -> None:
            for n in range(60):
                item = {"external_id": f"{mark}{n}", "from": f"{mark}{n}", "text": f"{mark} {n}"}
                assert (await http.post("/v1/channels/demo-api/inbound", json=item)).status_code == 201

        writing = asyncio.create_task(write())
        while not writing.done():
            listed = (await http.get("/v1/conversations", params={"q": mark, "limit": 100})).json()
            async with agent_stream(hub, position=listed["position"]) as stream:
                assert stream.subscribed["recovered"] is True
                # Its own message marks the end of what this subscription has to show.
                end = {"external_id": secrets.token_hex(4), "from": mark, "text": "end"}
                last = (await http.post("/v1/channels/demo-api/inbound", json=end)).json()["message"]
                known = {item["last_message"]["text"] for item in listed["items"]}
                while (message := (await stream.event("message.received"))["event"]["message"])["id"] != last:
                    known.add(message["text"])
                numbers = sorted(int(text.split()[1]) for text in known if text.startswith(mark))
                assert numbers == list(range(len(numbers)))
        await writing


async def test_a_snooze_ends_by_itself_and_a_customer_reopens(hub: HubProcess) -> None:
    async with client(hub) as http, agent_stream(hub) as stream:
        mark = secrets.token_hex(4)
        item = {"external_id": mark, "from": mark, "text": "hola"}
        conversation = (await http.post("/v1/channels/demo-api/inbound", json=item)).json()["conversation"]
        resolved = await http.patch(f"/v1/conversations/{conversation}", json={"status": "resolved"})
        assert resolved.json()["status"] == "resolved"
        again = await http.post("/v1/channels/demo-api/inbound", json=item | {"external_id": f"{mark}b"})
        assert again.json()["conversation"] == conversation
        assert (await http.get(f"/v1/conversations/{conversation}")).json()["status"] == "open"
        from datetime import UTC, datetime, timedelta

        until = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        snoozed = await http.patch(f"/v1/conversations/{conversation}", json={"snoozed_until": until})
        assert snoozed.json()["status"] == "snoozed"
        while True:
            event = (await stream.event("conversation.updated"))["event"]["conversation"]
            if event["id"] == conversation and event["status"] == "open":
                break
