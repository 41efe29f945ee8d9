"""The courier: every queued message reaches an end, and none goes out twice without the provider's word."""

from __future__ import annotations

import asyncio

from actors.readers.courier import ATTEMPTS_MAX_COUNT
from channels.adapter import Outcome
from hub import commands as c
from hub.model import Message
from hub.render import message_from_json
from tests.unit.actors.rig import Provider, Rig, conversation, in_virtual_time, inbound, reply


async def message(rig: Rig, seq: int = 2) -> Message:
    await rig.host.views.flush()
    body = await rig.store.views.message(conversation(), seq)
    assert body is not None
    return message_from_json(body)


async def talking(provider: Provider | None = None) -> Rig:
    rig = await Rig.started(provider=provider)
    await rig.ask(inbound("a"))
    return rig


@in_virtual_time
async def test_a_reply_goes_out_and_learns_its_external_id() -> None:
    rig = await talking()
    await rig.ask(reply("one"))
    await rig.pass_time(1)
    assert [(o.message, o.address, o.text) for o in rig.provider.sent] == [
        (f"msg_{conversation()[4:]}-2", "+1", "Buenas")
    ]
    sent = await message(rig)
    assert (sent.status, sent.external_id) == ("sent", "ext-1")


@in_virtual_time
async def test_it_is_written_down_before_the_provider_is_called() -> None:
    rig = await talking()
    rig.provider.answers.shut()
    await rig.ask(reply("one"))
    await rig.provider.answers.reached(1)
    assert (await rig.store.events())[-1] == "delivery.started"


@in_virtual_time
async def test_a_clear_no_is_tried_again_later_and_at_last_given_up() -> None:
    rig = await talking()
    rig.provider.outcomes = [Outcome("retry", code="busy")] * 99
    await rig.ask(reply("one"))
    await rig.pass_time(600)
    assert len(rig.provider.sent) == ATTEMPTS_MAX_COUNT
    failed = await message(rig)
    assert failed.error is not None
    assert (failed.status, failed.error.code) == ("failed", "busy")


@in_virtual_time
async def test_the_providers_own_hint_says_how_long_to_wait() -> None:
    rig = await talking()
    rig.provider.outcomes = [Outcome("retry", retry_after_s=30)]
    await rig.ask(reply("one"))
    await rig.pass_time(29)
    assert len(rig.provider.sent) == 1
    await rig.pass_time(2)
    assert len(rig.provider.sent) == 2


@in_virtual_time
async def test_an_unknown_outcome_is_uncertain_where_the_provider_takes_no_key() -> None:
    rig = await talking()
    rig.provider.outcomes = [Outcome("unknown")]
    await rig.ask(reply("one"))
    await rig.pass_time(600)
    assert len(rig.provider.sent) == 1
    assert (await message(rig)).status == "uncertain"


@in_virtual_time
async def test_an_unknown_outcome_is_asked_again_where_the_provider_takes_a_key() -> None:
    rig = await talking(Provider(idempotent=True))
    rig.provider.outcomes = [Outcome("unknown")]
    await rig.ask(reply("one"))
    await rig.pass_time(10)
    assert [(o.message, o.attempt) for o in rig.provider.sent] == [
        (f"msg_{conversation()[4:]}-2", 1),
        (f"msg_{conversation()[4:]}-2", 2),
    ]
    assert (await message(rig)).status == "sent"


@in_virtual_time
async def test_messages_of_one_conversation_leave_in_their_order() -> None:
    rig = await talking()
    rig.provider.outcomes = [Outcome("retry"), Outcome("retry")]
    for name in ("one", "two", "three"):
        await rig.ask(reply(name))
    await rig.pass_time(30)
    assert [o.message[-1] for o in rig.provider.sent] == ["2", "2", "2", "3", "4"]


@in_virtual_time
async def test_a_slow_conversation_does_not_hold_up_another() -> None:
    rig = await talking()
    await rig.ask(inbound("a", "tel:+2"))
    rig.provider.outcomes = [Outcome("retry", retry_after_s=60)]
    await rig.ask(reply("one"))
    await rig.idle()
    await rig.ask(reply("one", "tel:+2"))
    await rig.pass_time(1)
    assert [o.address for o in rig.provider.sent] == ["+1", "+2"]


@in_virtual_time
async def test_a_message_that_was_settled_meanwhile_is_not_sent() -> None:
    rig = await talking()
    rig.provider.outcomes = [Outcome("retry", retry_after_s=5)]
    await rig.ask(reply("one"))
    await rig.pass_time(1)
    await rig.ask(c.CustomerRead(conversation=conversation(), seq=2))
    await rig.pass_time(60)
    assert len(rig.provider.sent) == 1


@in_virtual_time
async def test_what_leaves_through_our_own_sockets_is_sent_when_it_is_durable() -> None:
    rig = await talking(Provider(local=True))
    await rig.ask(reply("one"))
    await rig.pass_time(1)
    assert rig.provider.sent == []
    assert (await message(rig)).status == "sent"


# --- after a crash ------------------------------------------------------------------------------------------------


async def crash_and_restart(rig: Rig, provider: Provider) -> Rig:
    """Nothing is saved, nothing is finished: the next host finds only what the store has."""
    mine = asyncio.current_task()
    for task in asyncio.all_tasks():
        if task is not mine:
            task.cancel()
    await rig.idle()
    return await Rig.started(rig.store, provider)


@in_virtual_time
async def test_a_call_that_a_crash_interrupted_leaves_its_message_uncertain() -> None:
    rig = await talking()
    rig.provider.answers.shut()
    await rig.ask(reply("one"))
    await rig.provider.answers.reached(1)
    later = await crash_and_restart(rig, Provider())
    await later.pass_time(60)
    assert later.provider.sent == []
    assert (await message(later)).status == "uncertain"


@in_virtual_time
async def test_a_call_that_a_crash_interrupted_is_made_again_where_the_provider_takes_a_key() -> None:
    rig = await talking(Provider(idempotent=True))
    rig.provider.answers.shut()
    await rig.ask(reply("one"))
    await rig.provider.answers.reached(1)
    later = await crash_and_restart(rig, Provider(idempotent=True))
    await later.pass_time(60)
    assert [o.attempt for o in later.provider.sent] == [2]
    assert (await message(later)).status == "sent"


@in_virtual_time
async def test_what_was_queued_before_a_crash_goes_out_after_it_in_order() -> None:
    rig = await talking()
    rig.provider.outcomes = [Outcome("retry", retry_after_s=60)]
    for name in ("one", "two"):
        await rig.ask(reply(name))
    await rig.pass_time(1)
    later = await crash_and_restart(rig, Provider())
    await later.pass_time(10)
    assert [o.message[-1] for o in later.provider.sent] == ["2", "3"]


@in_virtual_time
async def test_a_provider_that_raises_is_an_unknown_outcome() -> None:
    class Raising(Provider):
        async def send(self, channel: str, kind: str, outgoing: object) -> Outcome:
            self.sent.append(outgoing)  # type: ignore[arg-type]
            raise ZeroDivisionError

    rig = await talking(Raising())
    await rig.ask(reply("one"))
    await rig.pass_time(600)
    assert len(rig.provider.sent) == 1
    assert (await message(rig)).status == "uncertain"


@in_virtual_time
async def test_the_checkpoint_stays_before_what_is_still_in_hand() -> None:
    rig = await talking()
    rig.provider.outcomes = [Outcome("retry", retry_after_s=60)]
    await rig.ask(reply("one"))
    await rig.pass_time(10)
    assert (await rig.store.checkpoints.load("courier", 0)).offset == 3
    await rig.pass_time(60)
    assert (await rig.store.checkpoints.load("courier", 0)).offset == await rig.store.journal.head(0)
