"""Replaying the journal shows a conversation as it was answered at the time."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.replay import Past, has, replay, stream_of
from hub import commands as c
from hub.render import customer_json
from tests.unit.actors.rig import KEYRING, Provider, Rig, conversation, in_virtual_time, inbound, reply, stream, update


async def past(rig: Rig, until: int | None = None) -> Past:
    return await replay(rig.store, KEYRING, stream(), until)


def plain(shown: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shown.items() if name != "messages"}


@in_virtual_time
async def test_every_moment_is_shown_as_it_was_answered() -> None:
    rig = await Rig.started(provider=Provider(local=True))
    commands: list[c.AnyCommand] = [
        inbound("1", name="Juan"),
        inbound("2", text="¿Hay alguien?"),
        update(assignee="ana", priority="high", labels=["vip"]),
        reply("r1"),
        update(status="resolved"),
        inbound("3", text="Gracias"),
    ]
    moments = []
    for command in commands:
        done = await rig.done(command)
        await rig.pass_time(1)
        live = await rig.done(c.GetConversation(conversation=conversation()))
        assert done.conversation
        moments.append((rig.now_ms, msgspec.json.decode(live.conversation)))
        await rig.pass_time(1)
    for until, live_then in moments:
        [shown] = (await past(rig, until)).shown()["conversations"]
        assert plain(shown) == live_then
    texts = [message["text"] for message in shown["messages"]]
    assert texts == ["Hola", "¿Hay alguien?", "Buenas", "Gracias"]
    assert [message["seq"] for message in shown["messages"]] == [1, 2, 3, 4]


@in_virtual_time
async def test_messages_have_the_status_they_had_then() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("1"))
    rig.provider.answers.shut()
    await rig.ask(reply("r1"))
    await rig.idle()
    queued_at = rig.now_ms
    await rig.pass_time(5)
    await rig.provider.answers.open()
    await rig.pass_time(1)
    then, now = await past(rig, queued_at), await past(rig)
    assert (then.messages[conversation()][2].status, now.messages[conversation()][2].status) == ("queued", "sent")
    assert now.messages[conversation()][2].external_id == "ext-1"


@in_virtual_time
async def test_what_was_erased_is_shown_as_erased() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("1", name="Juan", text="un secreto"))
    await rig.store.journal.erase_key(stream())
    shown = (await past(rig)).shown()
    [message] = shown["conversations"][0]["messages"]
    assert message["erased"] is True and message["text"] == "" and shown["customer"]["name"] is None
    assert b"Juan" not in customer_json((await past(rig)).image)
    assert (await past(rig)).sealed_away


@in_virtual_time
async def test_what_was_not_there_yet_is_not_shown() -> None:
    rig = await Rig.started()
    before = rig.now_ms
    await rig.pass_time(1)
    await rig.ask(inbound("1"))
    assert not has(await past(rig, before), conversation())
    assert has(await past(rig), conversation()) and has(await past(rig), stream())
    assert not has(await past(rig), conversation(ordinal=2))
    elsewhere = await replay(rig.store, KEYRING, "cus_00g0000000000000000", None)
    assert not has(elsewhere, elsewhere.stream)


def test_only_customers_and_conversations_have_a_past() -> None:
    assert stream_of(conversation()) == stream_of(stream()) == stream()
    assert stream_of("msg_x") is stream_of("") is stream_of("ten_acme") is None
