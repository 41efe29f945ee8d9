"""What browsers and API clients send: taken as it is, or refused by the name of the field."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.adapter import Inbound
from channels.api import inbound as api
from channels.webchat import frames
from channels.webchat.identity import verified_identity
from hub.errors import BadSignature, HubError, InvalidFields, MalformedBody
from hub.settings import Channel

CHANNEL = Channel(id="ch", tenant="t", kind="web", name="", secrets={"identity_secret": "s"})
GOOD = {"external_id": "1", "from": "ana", "text": "hola"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("frame", "error", "field"),
    [
        ("{", MalformedBody, None),
        ("[" * 50_000, InvalidFields, "body"),
        ("x" * 70_000, MalformedBody, None),
        ("{}", InvalidFields, "body"),
        ('{"type":"sing"}', InvalidFields, "type"),
        ('{"type":"message","client_id":"","text":"x"}', InvalidFields, "client_id"),
        ('{"type":"message","client_id":"1","text":"  "}', InvalidFields, "text"),
        ('{"type":"message","client_id":"1","text":"\\u0000"}', InvalidFields, "text"),
        ('{"type":"message","client_id":1,"text":"x"}', InvalidFields, "client_id"),
        ('{"type":"read","seq":-1}', InvalidFields, "seq"),
        ('{"type":"hello","identity":{"id":"1"}}', InvalidFields, "identity"),
    ],
)
def test_bad_frames(frame: str, error: type[HubError], field: str | None) -> None:
    with pytest.raises(error) as refused:
        frames.parse(frame)
    if field is not None:
        assert list(refused.value.fields) == [field]


@given(st.text(max_size=100) | json_values.map(json.dumps))
def test_no_frame_raises_anything_but_our_own_errors(text: str) -> None:
    with pytest.raises(HubError):
        frames.parse(text)


@given(json_values, st.sampled_from(["client_id", "text", "type", "visitor", "token", "name", "identity", "seq", "on"]))
def test_no_field_of_a_frame_raises_anything_but_our_own_errors(value: Any, field: str) -> None:
    for type in ("hello", "message", "typing", "read"):
        frame = {"type": type, "client_id": "1", "text": "x", "seq": 1} | {field: value}
        try:
            frames.parse(json.dumps(frame))
        except HubError as error:
            assert error.detail


def test_an_identity_needs_its_hmac() -> None:
    good = hmac.new(b"s", b"42", hashlib.sha256).hexdigest()
    assert verified_identity(CHANNEL, frames.SignedIdentity("42", good)).identity == "webid:ch:42"
    for bad in ("", good[:-1], "0" * 64, "ñ"):
        with pytest.raises(BadSignature):
            verified_identity(CHANNEL, frames.SignedIdentity("42", bad))
    unconfigured = Channel(id="x", tenant="t", kind="web", name="")
    with pytest.raises(BadSignature):
        verified_identity(unconfigured, frames.SignedIdentity("42", hmac.new(b"", b"42", hashlib.sha256).hexdigest()))


def results(body: Any) -> list[Inbound | HubError]:
    return api.parse(CHANNEL, json.dumps(body).encode())[0]


def test_good_items_survive_bad_neighbours() -> None:
    found = results([GOOD, GOOD | {"text": 5}, 7, GOOD | {"extra": 1}, GOOD | {"sent_at": "x"}, GOOD])
    assert [isinstance(item, Inbound) for item in found] == [True, False, False, False, False, True]
    fields = [next(iter(item.fields)) for item in found if isinstance(item, HubError)]
    assert fields == ["items[1].text", "items[2].body", "items[3].body", "items[4].sent_at"]


def test_the_sender_is_the_identity_and_time_is_rfc_3339() -> None:
    [item] = results(GOOD | {"sent_at": "2026-01-31T12:00:00.5-04:00", "name": "Ana"})
    assert isinstance(item, Inbound) and item.identity == "api:ch:ana"
    assert item.command.sent_at == 1769875200500  # type: ignore[union-attr]


def test_a_list_takes_five_hundred() -> None:
    assert len(results([GOOD] * 500)) == 500
    for body in ([GOOD] * 501, [1] * 501):
        with pytest.raises(InvalidFields):
            results(body)


@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_body_raises_anything_but_our_own_errors(body: bytes) -> None:
    try:
        found, _ = api.parse(CHANNEL, body)
    except (MalformedBody, InvalidFields):
        return
    assert all(isinstance(item, Inbound | HubError) for item in found)


@given(json_values, st.sampled_from(["external_id", "from", "text", "name", "attachments", "sent_at"]))
def test_no_field_of_an_item_raises_anything_but_our_own_errors(value: Any, field: str) -> None:
    for body in (GOOD | {field: value}, [GOOD, GOOD | {field: value}]):
        try:
            found = results(body)
        except HubError:
            continue
        for item in found:
            if isinstance(item, Inbound):
                item.command.text.encode()  # type: ignore[union-attr]
