"""The WhatsApp adapter: everything a delivery holds becomes a command, whatever its shape."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.adapter import Outgoing
from channels.registry import adapter_for
from channels.whatsapp import inbound, outbound
from hub.commands import ReceiveMessage, RecordReceipt
from hub.errors import BadSignature, Forbidden, HubError, InvalidFields, MalformedBody, NotFound
from hub.settings import Channel

CHANNEL = Channel(
    id="wa", tenant="t", kind="whatsapp", name="WhatsApp", settings={"phone_number_id": "10001"},
    secrets={"app_secret": "s3cret", "verify_token": "verify", "access_token": "token"},
)  # fmt: skip
NOW = 1_790_000_000_000
OURS = "msg_0000000000000000000-1-7"


def payload(messages: list[Any] = [], statuses: list[Any] = [], **value: Any) -> dict[str, Any]:  # noqa: B006
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550001", "phone_number_id": "10001"},
        "contacts": [{"profile": {"name": "Kerry"}, "wa_id": "16505551234"}],
        "messages": messages,
        "statuses": statuses,
    } | value
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}],
    }


def message(type: str, id: str = "wamid.1", **body: Any) -> dict[str, Any]:
    return {"from": "16505551234", "id": id, "timestamp": "1700000000", "type": type} | body


def parsed(document: Any) -> list[Any]:
    return [item.command for item in inbound.parse(CHANNEL, json.dumps(document).encode(), NOW).items]


@pytest.mark.parametrize(
    ("sent", "text", "attachment", "unsupported"),
    [
        (message("text", text={"body": "hola"}), "hola", None, None),
        (message("image", image={"id": "m1", "caption": "mira", "mime_type": "image/jpeg"}), "mira", "image", None),
        (message("audio", audio={"id": "m2", "voice": True}), "", "voice", None),
        (message("document", document={"id": "m3", "filename": "a.pdf"}), "", "document", None),
        (message("button", button={"text": "Sí"}), "Sí", None, None),
        (message("interactive", interactive={"list_reply": {"id": "1", "title": "Talla M"}}), "Talla M", None, None),
        (message("reaction", reaction={"message_id": "x", "emoji": "👍"}), "👍", None, None),
        (message("location", location={"latitude": 10.5, "longitude": -66.9, "name": "Casa"}), "📍 Casa (10.5, -66.9)", None, None),
        (message("hologram"), "", None, "hologram"),
        (message("text", text="not an object"), "", None, "text"),
        (message("text", text={"body": 7}), "", None, "text"),
    ],
)  # fmt: skip
def test_every_type_is_shown_or_kept(sent: Any, text: str, attachment: str | None, unsupported: str | None) -> None:
    [command] = parsed(payload([sent]))
    assert (command.text, command.unsupported) == (text, unsupported)
    assert [a.kind for a in command.attachments] == ([attachment] if attachment else [])
    assert (command.identity, command.external_id, command.name) == ("tel:+16505551234", "wamid.1", "Kerry")


def test_every_entry_change_message_and_status_is_looped_over() -> None:
    status = {"id": "wamid.s", "status": "read", "recipient_id": "1", "biz_opaque_callback_data": OURS}
    one = payload([message("text", f"wamid.{n}", text={"body": "x"}) for n in range(3)], [status, status])
    both = one | {"entry": one["entry"] * 2}
    both["entry"].append({"changes": [{"field": "account_update", "value": {}}]})
    found = inbound.parse(CHANNEL, json.dumps(both).encode(), NOW)
    assert [type(item.command) for item in found.items] == [ReceiveMessage] * 3 + [RecordReceipt] * 2 + [
        ReceiveMessage
    ] * 3 + [RecordReceipt] * 2
    assert found.ignored == 1


def test_a_receipt_knows_our_id_the_providers_and_its_error() -> None:
    errors = [{"code": 131047, "title": "Re-engagement", "error_data": {"details": "24 hours have passed"}}]
    [receipt] = parsed(
        payload(
            statuses=[
                {"id": "w", "status": "failed", "recipient_id": "58", "timestamp": "1700000000", "errors": errors}
            ]
        )
    )
    assert (receipt.status, receipt.external_id, receipt.message) == ("failed", "w", None)
    assert (receipt.error.code, receipt.error.detail) == ("131047", "24 hours have passed")
    for odd in ("deleted", "warning", ""):
        assert parsed(payload(statuses=[{"id": "w", "status": odd, "recipient_id": "58"}])) == []


def test_a_hidden_phone_leaves_the_business_scoped_id() -> None:
    hidden = {"user_id": "US.1349", "id": "wamid.u", "type": "text", "text": {"body": "x"}}
    contacts = [{"profile": {"name": "@kerry"}, "user_id": "US.1349"}]
    [command] = parsed(payload([hidden], contacts=contacts))
    assert (command.identity, command.name) == ("wa:US.1349", "@kerry")


def test_another_numbers_traffic_is_ignored() -> None:
    other = payload([message("text", text={"body": "x"})], metadata={"phone_number_id": "2"})
    found = inbound.parse(CHANNEL, json.dumps(other).encode(), NOW)
    assert (found.items, found.ignored) == ([], 1)


def test_a_message_without_id_or_sender_is_refused_by_its_path() -> None:
    for broken in ({"type": "text"}, {"id": "x", "type": "text"}, {"id": 7, "from": "1"}):
        with pytest.raises(InvalidFields) as refused:
            parsed(payload([message("text", text={"body": "ok"}), broken]))
        assert next(iter(refused.value.fields)).startswith("entry[0].changes[0].value.messages[1]")


@pytest.mark.parametrize("stamp", ["-1", "1e9", "٣", "", None, 10**30, "9" * 400])
def test_absurd_timestamps_are_no_timestamps(stamp: Any) -> None:
    [command] = parsed(payload([message("text", text={"body": "x"}) | {"timestamp": stamp}]))
    assert command.sent_at is None


def test_text_nobody_can_store_is_cleaned() -> None:
    [command] = parsed(payload([message("text", text={"body": "a\0b" + "x" * 9000})]))
    assert command.text.startswith("abxx") and len(command.text) == 8192


def test_signatures() -> None:
    body = b"{}"
    good = "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    inbound.verify(CHANNEL, {"x-hub-signature-256": good}, body)
    for bad in ("", "sha256=", good.upper(), good[:-1], "sha1=" + good[7:], "ñ"):
        with pytest.raises(BadSignature):
            inbound.verify(CHANNEL, {"x-hub-signature-256": bad}, body)
    with pytest.raises(BadSignature):
        inbound.verify(Channel(id="x", tenant="t", kind="whatsapp", name=""), {"x-hub-signature-256": good}, body)


def test_verification_needs_the_right_token() -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "verify", "hub.challenge": "42"}
    assert inbound.challenge(CHANNEL, query) == "42"
    for change in ({"hub.verify_token": "x"}, {"hub.mode": "unsubscribe"}, {"hub.verify_token": ""}):
        with pytest.raises(Forbidden):
            inbound.challenge(CHANNEL, query | change)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_our_own_errors(body: bytes) -> None:
    with pytest.raises((MalformedBody, InvalidFields)):
        inbound.parse(CHANNEL, body, NOW)


@settings(max_examples=300)
@given(st.data())
def test_no_mutation_of_a_valid_delivery_raises_anything_but_our_own_errors(data: st.DataObject) -> None:
    """Replace any one node anywhere: the others still arrive, or the whole is refused by name."""
    status = {"id": "w", "status": "sent", "recipient_id": "58", "timestamp": "1", "errors": [{"code": 1}]}
    document = copy.deepcopy(
        payload([message("text", text={"body": "x"}), message("image", "wamid.2", image={"id": "m"})], [status])
    )
    node: Any = document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            node[key] = data.draw(json_values)
            break
        node = node[key]
    body = json.dumps(document).encode("utf-8", "surrogatepass")
    try:
        found = inbound.parse(CHANNEL, body, NOW)
    except (MalformedBody, InvalidFields):
        return
    for item in found.items:
        assert item.identity and (item.command.external_id is not None)
        item.command.external_id.encode()


@pytest.mark.parametrize("depth", [500, 100_000])
def test_deep_nesting_is_malformed_and_not_a_crash(depth: int) -> None:
    for body in (b"[" * depth, b'{"object":"x","entry":' + b"[" * depth + b"]" * depth + b"}"):
        with pytest.raises((MalformedBody, InvalidFields)):
            inbound.parse(CHANNEL, body, NOW)


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (200, {"messages": [{"id": "wamid.9"}]}, "sent", ""),
        (200, {"messages": []}, "unknown", "unreadable_answer"),
        (200, "<html>", "unknown", "unreadable_answer"),
        (429, {"error": {"code": 80007}}, "retry", "80007"),
        (400, {"error": {"code": 130429, "message": "throughput"}}, "retry", "130429"),
        (400, {"error": {"code": 131056}}, "retry", "131056"),
        (503, "", "retry", "http_503"),
        (500, "", "unknown", "http_500"),
        (401, {"error": {"code": 190}}, "failed", "190"),
        (400, {"error": {"code": 131047}}, "failed", "131047"),
        (404, "", "failed", "http_404"),
    ],
)
def test_what_the_providers_answer_means(status: int, body: Any, kind: str, code: str) -> None:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    found = outbound.outcome(status, {"retry-after": "7"}, raw)
    assert (found.kind, found.code) == (kind, code)
    assert found.retry_after_s == (7.0 if kind == "retry" else None)


@given(st.integers(100, 599), st.binary(max_size=60))
def test_no_answer_of_a_provider_raises(status: int, body: bytes) -> None:
    assert outbound.outcome(status, {}, body).kind in ("sent", "retry", "failed", "unknown")


def test_the_request_carries_our_id_and_never_more_than_the_provider_takes() -> None:
    request = outbound.request(CHANNEL, Outgoing(OURS, "58412", "x" * 9000, 1), "http://provider")
    body = json.loads(request.body)
    assert request.url == "http://provider/v21.0/10001/messages"
    assert body["biz_opaque_callback_data"] == OURS and len(body["text"]["body"]) == 4096


def test_kinds() -> None:
    assert adapter_for("whatsapp").idempotent is False
    with pytest.raises(NotFound):
        adapter_for("telegram")
    with pytest.raises(InvalidFields):
        adapter_for("pigeon")
    address = adapter_for("whatsapp").address(CHANNEL, "+58 (412) 000-00.00")
    assert (address.identity, address.address) == ("tel:+584120000000", "584120000000")
    for wrong in ("", "12", "x" * 12, "+" + "9" * 30, "٣٣٣٣٣٣٣"):
        with pytest.raises(InvalidFields):
            adapter_for("whatsapp").address(CHANNEL, wrong)
    with pytest.raises(HubError):
        adapter_for("web").address(CHANNEL, "x")
