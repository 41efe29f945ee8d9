"""Whatever comes in: a clear problem document, nothing lost, nothing half-written, no traceback."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.hub_process import HubProcess, agent_stream, client, connected, deliver, signed, whatsapp_payload

INBOUND = "/v1/channels/demo-api/inbound"


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code and problem["status"] == status and problem["detail"]
    assert "Traceback" not in answer.text
    return problem


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b"", b"null", b'"text"', b"[[[]]]", b"NaN"])
async def test_bodies_that_are_no_messages(hub: HubProcess, body: bytes) -> None:
    async with client(hub) as http:
        for url, headers in ((INBOUND, {}), ("/webhooks/demo-whatsapp", signed(body))):
            answer = await http.post(url, content=body, headers=headers)
            assert answer.status_code in (400, 422) or answer.json().get("items"), (url, answer.text)
            assert "Traceback" not in answer.text


async def test_a_wrong_signature_is_401_and_writes_nothing(hub: HubProcess) -> None:
    body = whatsapp_payload({"from": "584120001111", "id": "wamid.x", "type": "text", "text": {"body": "x"}})
    async with client(hub) as http:
        assert_problem(
            await http.post("/webhooks/demo-whatsapp", content=body, headers=signed(body, "wrong")),
            401,
            "bad_signature",
        )
        assert_problem(await http.post("/webhooks/demo-whatsapp", content=body), 401, "bad_signature")
        assert (await http.get("/v1/conversations", params={"q": "584120001111"})).json()["items"] == []


async def test_unknown_addresses_are_404(hub: HubProcess) -> None:
    async with client(hub) as http:
        assert_problem(await http.post("/webhooks/nope", content=b"{}"), 404, "not_found")
        assert_problem(await http.post("/v1/channels/nope/inbound", content=b"{}"), 404, "not_found")
        assert_problem(await http.get("/v1/conversations/nope"), 404, "not_found")
        assert_problem(await http.get("/v1/conversations/cnv_zzzzzzzzzzzzzzzzzzz-1"), 404, "not_found")
        assert_problem(await http.get("/v1/customers/cus_0000000000000000000"), 404, "not_found")
        assert_problem(await http.get("/no/such/page"), 404, "not_found")


async def test_an_oversized_body_is_413(hub: HubProcess) -> None:
    async with client(hub) as http:
        assert_problem(await http.post(INBOUND, content=b" " * (6 * 1024 * 1024)), 413, "body_too_large")
        big = b" " * (4 * 1024 * 1024)
        assert_problem(
            await http.post("/webhooks/demo-whatsapp", content=big, headers=signed(big)), 413, "body_too_large"
        )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"external_id": 7}, "external_id"),
        ({"from": None}, "from"),
        ({"text": ["x"]}, "text"),
        ({"text": "   "}, "text"),
        ({"name": 1}, "name"),
        ({"sent_at": "yesterday"}, "sent_at"),
        ({"sent_at": "9999-12-31T23:59:59Z"}, "sent_at"),
        ({"text": "x" * 9000}, "text"),
        ({"external_id": ""}, "external_id"),
    ],
)
async def test_a_wrong_field_is_422_and_named(hub: HubProcess, change: dict[str, Any], field: str) -> None:
    item = {"external_id": "e1", "from": "f1", "text": "hola"} | change
    async with client(hub) as http:
        problem = assert_problem(await http.post(INBOUND, json=item), 422, "invalid_fields")
        assert [error["field"] for error in problem["errors"]] == [field]


async def test_bad_rest_bodies_name_each_field(hub: HubProcess) -> None:
    async with client(hub) as http:
        answer = await http.post("/v1/conversations", json={"channel": 1, "text": "", "surprise": True})
        problem = assert_problem(answer, 422, "invalid_fields")
        assert {error["field"] for error in problem["errors"]} == {"channel", "text", "surprise"}
        assert_problem(
            await http.post("/v1/conversations", content=b"{", headers={"content-type": "application/json"}),
            400,
            "malformed_body",
        )
        item = {"external_id": "patch", "from": "patch", "text": "x"}
        conversation = (await http.post(INBOUND, json=item)).json()["conversation"]
        for change in (
            {"status": "gone"},
            {"priority": 1},
            {"snoozed_until": "soon"},
            {"assignee": "agt_nobody"},
            {"labels": "x"},
        ):
            answer = await http.patch(f"/v1/conversations/{conversation}", json=change)
            assert_problem(answer, 422, "invalid_fields")


async def test_unknown_message_types_are_kept_as_unsupported(hub: HubProcess) -> None:
    message = {"from": "584129998877", "id": "wamid.odd", "timestamp": "1", "type": "hologram", "hologram": {"x": 1}}
    async with client(hub) as http, agent_stream(hub) as stream:
        assert (await deliver(http, whatsapp_payload(message))).status_code == 200
        shown = (await stream.event("message.received"))["event"]["message"]
        assert shown["unsupported"] == "hologram" and shown["text"] == ""


async def test_absurd_timestamps_do_not_reorder_anything(hub: HubProcess) -> None:
    async with client(hub) as http:
        for n, stamp in enumerate(["-5", "99999999999999", "soon", None, 0]):
            message = {
                "from": "584127770000",
                "id": f"wamid.t{n}",
                "timestamp": stamp,
                "type": "text",
                "text": {"body": "x"},
            }
            assert (await deliver(http, whatsapp_payload(message))).status_code == 200
        [found] = (await http.get("/v1/conversations", params={"q": "584127770000"})).json()["items"]
        assert found["created_at"].startswith("20") and found["seq"] == 5


async def test_nobody_gets_in_without_a_credential(hub: HubProcess) -> None:
    async with httpx.AsyncClient(base_url=hub.url, trust_env=False) as http:
        for path in ("/v1/me", "/v1/conversations", "/v1/channels", "/v1/customers"):
            assert_problem(await http.get(path), 401, "unauthenticated")
        assert_problem(await http.get("/v1/me", headers={"authorization": "Bearer a.b.c"}), 401, "unauthenticated")
        wrong = {"grant_type": "password", "username": "ana@demo.test", "password": "no"}
        assert_problem(await http.post("/v1/auth/token", data=wrong), 401, "unauthenticated")
    async with connected(f"{hub.ws}/v1/stream") as stream:
        await stream.send(type="auth", token="nope")
        assert await stream.close_code() == 4401
    async with connected(f"{hub.ws}/v1/stream") as stream:
        await stream.send(type="subscribe", topic="inbox", position=None)
        assert await stream.close_code() == 4401


async def test_bad_frames_get_an_error_and_the_socket_lives_on(hub: HubProcess) -> None:
    async with agent_stream(hub) as stream:
        for bad in ("{", "[]", '{"type":"dance"}', '{"type":"send","id":"1"}', '{"type":"subscribe","topic":"all"}'):
            await stream._connection.send(bad)
            assert (await stream.until("error"))["code"] in ("malformed_body", "invalid_fields")
        await stream.send(type="ping")
        await stream.until("pong")
    async with connected(f"{hub.ws}/v1/chat/demo-web") as chat:
        await chat.send(type="hello", visitor=None)
        await chat.until("welcome")
        for bad in (
            "{",
            '{"type":"message","client_id":"","text":"x"}',
            '{"type":"message","client_id":"1","text":" "}',
        ):
            await chat._connection.send(bad)
            assert (await chat.until("error"))["code"] in ("malformed_body", "invalid_fields")
        await chat.send(type="ping")
        await chat.until("pong")


async def test_verification_echoes_only_for_the_right_token(hub: HubProcess) -> None:
    async with client(hub) as http:
        query = {"hub.mode": "subscribe", "hub.verify_token": "demo-verify", "hub.challenge": "1158201444"}
        answer = await http.get("/webhooks/demo-whatsapp", params=query)
        assert (answer.status_code, answer.text) == (200, "1158201444")
        assert_problem(
            await http.get("/webhooks/demo-whatsapp", params=query | {"hub.verify_token": "x"}), 403, "forbidden"
        )


async def test_secrets_never_come_out(hub: HubProcess) -> None:
    async with client(hub) as http:
        text = (await http.get("/v1/channels")).text
        assert "demo-secret" not in text and "demo-verify" not in text
        assert json.loads(text)["items"]
        made = (await http.post("/v1/api-keys", json={"name": "k", "scopes": ["inbound"]})).json()
        listed = (await http.get("/v1/api-keys")).text
        assert made["key"] not in listed
        async with client(hub, made["key"]) as limited:
            assert_problem(await limited.get("/v1/conversations"), 403, "forbidden")
        assert (await http.delete(f"/v1/api-keys/{made['id']}")).status_code == 204
        async with client(hub, made["key"]) as revoked:
            assert_problem(await revoked.get("/v1/me"), 401, "unauthenticated")
