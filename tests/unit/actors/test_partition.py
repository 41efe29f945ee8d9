"""A partition: turns at once, answers when durable, and nothing left over of what was not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors import customer
from hub import commands as c
from hub.commands import Done, Refused
from hub.errors import Unavailable
from tests.unit.actors.rig import (
    GatedStore,
    Rig,
    conversation,
    in_virtual_time,
    inbound,
    reply,
    stream,
    update,
)


@in_virtual_time
async def test_an_answer_waits_for_its_commit() -> None:
    rig = await Rig.started()
    rig.store.journal.appends.shut()
    call = rig.begin(inbound("a"))
    await rig.store.journal.appends.reached(1)
    assert not call.done()
    await rig.store.journal.appends.open()
    [answer] = await call
    assert isinstance(answer, Done)
    assert answer.offset == await rig.store.journal.head(0) == 3


@in_virtual_time
async def test_turns_of_the_next_batch_run_while_one_commits() -> None:
    """And join one single append, however many there are."""
    rig = await Rig.started()
    appends = rig.store.journal.appends
    appends.shut()
    first = rig.begin(inbound("a"))
    await appends.reached(1)
    rest = [rig.begin(inbound(f"b{n}")) for n in range(20)]
    await rig.idle()
    assert rig.partition.activations[stream()].image.conversations[1].seq == 21
    assert appends.calls == 1
    await appends.open()
    await first
    for call in rest:
        await call
    assert appends.calls == 2


@in_virtual_time
async def test_commands_of_one_tick_share_one_commit() -> None:
    rig = await Rig.started()
    await rig.begin(*(inbound("a", f"tel:+{n}") for n in range(50)))
    assert rig.store.journal.appends.calls == 1


@in_virtual_time
async def test_a_read_waits_for_the_batch_it_depends_on() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    rig.store.journal.appends.shut()
    rig.begin(inbound("b"))
    await rig.store.journal.appends.reached(2)
    read = rig.begin(c.GetConversation(conversation=conversation()))
    await rig.idle()
    assert not read.done()
    await rig.store.journal.appends.open()
    [answer] = await read
    assert b'"seq":2' in answer.conversation  # type: ignore[union-attr]


@in_virtual_time
async def test_a_repeat_waits_for_the_first_one() -> None:
    rig = await Rig.started()
    rig.store.journal.appends.shut()
    first = rig.begin(inbound("a"))
    await rig.store.journal.appends.reached(1)
    again = rig.begin(inbound("a"))
    await rig.idle()
    assert not again.done()
    await rig.store.journal.appends.open()
    [one], [two] = await first, await again
    assert isinstance(one, Done) and isinstance(two, Done)
    assert (one.message_id, two.duplicate) == (two.message_id, True)


@in_virtual_time
async def test_a_refusal_waits_for_what_it_was_judged_by() -> None:
    """A conflict with something that then never happened would be a lie."""
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    rig.store.journal.appends.shut()
    rig.store.journal.appends.verdicts = ["refuse"]
    rig.begin(inbound("b"))
    await rig.store.journal.appends.reached(2)
    stale = rig.begin(reply("one", if_seq=1))
    await rig.idle()
    assert not stale.done()
    await rig.store.journal.appends.open()
    [answer] = await stale
    assert isinstance(answer, Refused)
    assert answer.code == "store_unavailable"


@in_virtual_time
async def test_an_answer_about_durable_state_does_not_wait_for_others() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    rig.store.journal.appends.shut()
    rig.begin(inbound("a", "tel:+2"))
    await rig.store.journal.appends.reached(2)
    assert (await rig.done(c.GetConversation(conversation=conversation()))).offset == 3


# --- commits that fail --------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_failed_commit_takes_everything_after_it_along() -> None:
    rig = await Rig.started()
    appends = rig.store.journal.appends
    appends.shut()
    appends.verdicts = ["refuse"]
    first = rig.begin(inbound("a"))
    await appends.reached(1)
    second = rig.begin(inbound("b"))
    await rig.idle()
    await appends.open()
    for call in (first, second):
        [answer] = await call
        assert isinstance(answer, Refused)
        assert answer.code == "store_unavailable"
    assert await rig.store.journal.head(0) == 0
    await rig.partition_is_back()
    assert (await rig.done(inbound("b"))).message_id == f"msg_{conversation()[4:]}-1"


@in_virtual_time
async def test_a_write_that_landed_after_all_is_found_and_told_to_everybody() -> None:
    rig = await Rig.started()
    rig.attend(["acme"])
    rig.store.journal.appends.verdicts = ["lose"]
    assert await rig.refused(inbound("a")) == "store_unavailable"
    await rig.partition_is_back()
    again = await rig.done(inbound("a"))
    assert again.duplicate
    assert [item.type for feed in rig.feeds for item in feed.items] == ["conversation.opened", "message.received"]


@in_virtual_time
async def test_the_epoch_rises_before_anything_new_is_written() -> None:
    """So that a write still under way cannot land behind our back."""
    rig = await Rig.started()
    before = rig.store.journal.epoch(0)
    rig.store.journal.appends.verdicts = ["refuse"]
    await rig.ask(inbound("a"))
    await rig.partition_is_back()
    assert rig.store.journal.epoch(0) == before + 1 == rig.partition.epoch


@in_virtual_time
async def test_a_partition_that_recovers_takes_no_commands() -> None:
    rig = await Rig.started()
    rig.store.journal.appends.verdicts = ["refuse"]
    rig.store.journal.acquires.shut()
    await rig.ask(inbound("a"))
    assert await rig.refused(inbound("a")) == "unavailable"
    await rig.store.journal.acquires.open()
    await rig.partition_is_back()
    await rig.done(inbound("a"))


@in_virtual_time
async def test_while_the_store_is_down_callers_are_told_so_and_do_not_wait() -> None:
    rig = await Rig.started()
    rig.store.journal.appends.verdicts = ["refuse"]
    rig.store.journal.acquires.verdicts = ["refuse"] * 3
    assert await rig.refused(inbound("a")) == "store_unavailable"
    await rig.idle()
    assert await rig.refused(inbound("b")) == "store_unavailable"
    await rig.partition_is_back()
    await rig.done(inbound("b"))


@in_virtual_time
async def test_a_store_that_hangs_while_the_partition_recovers_is_down_too() -> None:
    rig = await Rig.started()
    rig.store.journal.appends.verdicts = ["refuse"]
    rig.store.journal.acquires.shut()
    assert await rig.refused(inbound("a")) == "store_unavailable"
    assert await rig.refused(inbound("b")) == "unavailable"
    await rig.pass_time(1)
    assert await rig.refused(inbound("b")) == "store_unavailable"
    await rig.store.journal.acquires.open()
    await rig.partition_is_back()
    await rig.done(inbound("b"))


@in_virtual_time
async def test_who_waits_for_a_stream_is_told_that_the_store_is_down() -> None:
    rig = await Rig.started()
    await rig.done(inbound("a"))
    rig.store.journal.loads.shut()
    waiting = rig.begin(inbound("b", "tel:+2"))
    await rig.store.journal.loads.reached(2)
    rig.store.journal.appends.verdicts = ["refuse"]
    rig.store.journal.acquires.verdicts = ["refuse"] * 3
    assert await rig.refused(inbound("c")) == "store_unavailable"
    [answer] = await waiting
    assert answer.code == "store_unavailable"  # type: ignore[union-attr]
    await rig.partition_is_back()
    again = [rig.begin(inbound("b", "tel:+2")), rig.begin(inbound("d", "tel:+3"))]
    await rig.idle()
    await rig.store.journal.loads.open()
    for call in again:
        [answer] = await call
        assert not answer.duplicate  # type: ignore[union-attr]
    assert rig.store.journal.loads.calls == 3


@in_virtual_time
async def test_a_partition_that_is_being_given_up_does_not_take_commands_again_when_it_has_recovered() -> None:
    rig = await Rig.started()
    appends = rig.store.journal.appends
    appends.shut()
    appends.verdicts = ["refuse"]
    rig.begin(inbound("a"))
    await appends.reached(1)
    rig.partition.retire()
    await appends.open()
    await rig.pass_time(1)
    assert rig.partition.phase.value == "moving"
    assert await rig.refused(inbound("b")) == "unavailable"


@in_virtual_time
async def test_commands_that_waited_for_a_load_do_not_run_while_the_partition_recovers() -> None:
    """Their turns would number events from an offset that is about to be corrected."""
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    rig.store.journal.loads.shut()
    waiting = rig.begin(inbound("a", "tel:+2"))
    await rig.store.journal.loads.reached(2)
    rig.store.journal.appends.verdicts = ["lose"]
    rig.store.journal.acquires.shut()
    await rig.ask(inbound("b"))
    await rig.store.journal.loads.open()
    [answer] = await waiting
    assert isinstance(answer, Refused)
    assert answer.code == "unavailable"
    await rig.store.journal.acquires.open()
    await rig.partition_is_back()
    assert (await rig.done(inbound("a", "tel:+2"))).offset == 7


@in_virtual_time
async def test_nothing_is_loaded_while_a_write_may_still_land() -> None:
    """What was read too early would miss it, and the next turn would number its message twice."""
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    rig.store.journal.appends.verdicts = ["lose"]
    rig.store.journal.acquires.shut()
    await rig.ask(inbound("b"))
    loads = rig.store.journal.loads.calls
    reader = rig.loop.create_task(rig.partition.ensure(stream(), "acme"))
    await rig.idle()
    assert rig.store.journal.loads.calls == loads
    await rig.store.journal.acquires.open()
    assert (await reader).image.conversations[1].seq == 2
    await rig.partition_is_back()
    assert (await rig.done(inbound("c"))).message_id == f"msg_{conversation()[4:]}-3"


@in_virtual_time
async def test_an_owner_that_was_replaced_writes_nothing_and_says_so() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    await rig.store.journal.acquire(0)
    assert await rig.refused(inbound("b")) == "unavailable"
    assert (rig.lost, rig.host.partitions) == ([0], {})
    assert await rig.store.journal.head(0) == 3


@in_virtual_time
async def test_an_owner_that_was_replaced_while_it_recovers_gives_up() -> None:
    rig = await Rig.started()
    rig.store.journal.appends.verdicts = ["refuse"]
    rig.store.journal.acquires.shut()
    await rig.ask(inbound("a"))
    await rig.store.journal.acquires.reached(2)
    rig.store.journal._logs[0].epoch += 1
    await rig.store.journal.acquires.open()
    await rig.idle()
    assert rig.lost == [0]


@in_virtual_time
async def test_a_store_that_breaks_its_contract_is_an_unknown_outcome_and_no_disaster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = await Rig.started()

    async def broken(appends: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(rig.store.journal, "append", broken)
        assert await rig.refused(inbound("a")) == "store_unavailable"
    await rig.partition_is_back()
    await rig.done(inbound("a"))


@in_virtual_time
async def test_an_append_without_end_is_given_up() -> None:
    rig = await Rig.started()
    rig.store.journal.appends.shut()
    assert await rig.refused(inbound("a")) == "store_unavailable"
    await rig.store.journal.appends.open()
    await rig.partition_is_back()
    await rig.done(inbound("a"))


# --- activations --------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_full_mailbox_refuses_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.activation.MAILBOX_MAX_COMMANDS", 2)
    rig = await Rig.started()
    rig.store.journal.loads.shut()
    call = rig.begin(*(inbound(name) for name in "abc"))
    await rig.store.journal.loads.reached(1)
    await rig.store.journal.loads.open()
    answers = await call
    assert [getattr(answer, "code", "done") for answer in answers] == ["done", "done", "overloaded"]


@in_virtual_time
async def test_a_journal_that_cannot_keep_up_refuses_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.partition.PENDING_MAX_EVENTS", 4)
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    rig.store.journal.appends.shut()
    rig.begin(inbound("b"))
    await rig.store.journal.appends.reached(2)
    call = rig.begin(*(inbound(f"c{n}") for n in range(6)))
    await rig.store.journal.appends.open()
    codes = [getattr(answer, "code", "done") for answer in await call]
    assert codes == ["done"] * 4 + ["overloaded"] * 2


@in_virtual_time
async def test_commands_wait_in_order_while_their_stream_is_loaded() -> None:
    rig = await Rig.started()
    rig.store.journal.loads.shut()
    call = rig.begin(inbound("a"), reply("one"), inbound("b"))
    await rig.store.journal.loads.open()
    answers = await call
    assert [answer.message_id[-1] for answer in answers] == ["1", "2", "3"]  # type: ignore[union-attr, index]


@in_virtual_time
async def test_a_stream_that_cannot_be_loaded_is_tried_again_with_the_next_command() -> None:
    rig = await Rig.started()
    rig.store.journal.loads.verdicts = ["refuse"]
    assert await rig.refused(inbound("a")) == "store_unavailable"
    assert rig.partition.activations == {}
    await rig.done(inbound("a"))


@in_virtual_time
async def test_a_loader_survives_what_no_store_should_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = await Rig.started()

    async def broken(partition: int, streams: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(rig.store.journal, "load", broken)
        assert await rig.refused(inbound("a")) == "internal"
    await rig.done(inbound("a"))


@in_virtual_time
async def test_streams_that_arrive_during_a_load_share_the_next_one() -> None:
    rig = await Rig.started()
    rig.store.journal.loads.shut()
    first = rig.begin(inbound("a"))
    await rig.store.journal.loads.reached(1)
    rest = [rig.begin(inbound("a", f"tel:+9{n}")) for n in range(10)]
    await rig.store.journal.loads.open()
    for call in (first, *rest):
        await call
    assert rig.store.journal.loads.calls == 2


@in_virtual_time
async def test_a_passivated_stream_comes_back_as_it_was() -> None:
    rig = await Rig.started()
    await rig.begin(inbound("a", name="Eva"), reply("one"))
    await rig.idle()
    live = msgspec.to_builtins(rig.partition.activations[stream()].image)
    snapshots = rig.partition.passivate(idle_since=float("inf"), keep_max=0)
    await rig.store.snapshots.save(0, rig.partition.epoch, snapshots)
    assert rig.partition.activations == {}
    [stored] = await rig.store.journal.load(0, [stream()])
    assert stored.snapshot is not None
    assert stored.records == []
    activation = await rig.partition.ensure(stream(), "acme")
    assert msgspec.to_builtins(activation.image) == live


@in_virtual_time
async def test_what_is_not_durable_yet_is_neither_passivated_nor_snapshotted() -> None:
    rig = await Rig.started()
    rig.store.journal.appends.shut()
    rig.begin(inbound("a"))
    await rig.store.journal.appends.reached(1)
    assert rig.partition.passivate(idle_since=float("inf"), keep_max=0) == []
    assert stream() in rig.partition.activations


@in_virtual_time
async def test_over_the_bound_the_longest_unused_goes_first() -> None:
    rig = await Rig.started()
    for identity in ("tel:+1", "tel:+2", "tel:+3"):
        await rig.ask(inbound("a", identity))
        await rig.pass_time(0.01)
    await rig.ask(c.GetConversation(conversation=conversation("tel:+1")))
    rig.partition.passivate(idle_since=0, keep_max=2)
    assert sorted(rig.partition.activations) == sorted([stream("tel:+1"), stream("tel:+3")])


@in_virtual_time
async def test_a_turn_that_dies_half_way_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it recorded before is safe, what it changed is forgotten, and others never notice."""
    rig = await Rig.started()
    rig.store.journal.appends.shut()
    safe = rig.begin(inbound("a"))
    await rig.store.journal.appends.reached(1)
    apply = customer.apply

    def poisoned(image: Any, event: Any, at: int) -> None:
        apply(image, event, at)
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(customer, "apply", poisoned)
        assert await rig.refused(inbound("b")) == "internal"
    again = rig.begin(inbound("b"))
    await rig.idle()
    assert not again.done(), "its stream must not be loaded before the first message is in the journal"
    await rig.store.journal.appends.open()
    [first], [second] = await safe, await again
    assert [first.message_id[-1], second.message_id[-1]] == ["1", "2"]  # type: ignore[union-attr, index]


@in_virtual_time
async def test_a_later_poisoning_does_not_forget_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a", "tel:+2"))
    rig.store.journal.appends.shut()
    first = rig.begin(inbound("a"))
    await rig.store.journal.appends.reached(2)

    def poisoned(image: Any, event: Any, at: int) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(customer, "apply", poisoned)
        await rig.refused(inbound("b"))
        await rig.refused(inbound("b", "tel:+2"))
    again = rig.begin(inbound("b"))
    await rig.idle()
    await rig.store.journal.appends.open()
    await first
    [answer] = await again
    assert answer.message_id == f"msg_{conversation()[4:]}-2"  # type: ignore[union-attr]


# --- tenants ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_another_tenant_finds_nothing() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    for command in (c.GetConversation(conversation=conversation()), update(status="resolved"), reply("one")):
        assert await rig.refused(command, tenant="blue") == "not_found"
    rig.partition.passivate(idle_since=float("inf"), keep_max=0)
    assert await rig.refused(c.GetConversation(conversation=conversation()), tenant="blue") == "not_found"
    await rig.done(c.GetConversation(conversation=conversation()))


@in_virtual_time
async def test_asking_for_a_stream_before_its_owner_does_not_lock_the_owner_out() -> None:
    rig = await Rig.started()
    asked = [c.Invocation("blue", stream(), c.GetCustomer())]
    [answer] = await rig.host.submit(asked)
    assert isinstance(answer, Refused)
    await rig.done(inbound("a"))
    [answer] = await rig.host.submit(asked)
    assert isinstance(answer, Refused)


@in_virtual_time
async def test_a_command_nobody_can_make_sense_of_does_not_take_its_call_down() -> None:
    rig = await Rig.started()
    nonsense = c.Invocation("acme", "xyz_what", c.GetCustomer())
    bad, good = await rig.host.submit([nonsense, c.Invocation("acme", stream(), inbound("a"))])
    assert isinstance(bad, Refused)
    assert isinstance(good, Done)


@in_virtual_time
async def test_a_command_for_another_kind_of_stream_is_refused() -> None:
    rig = await Rig.started()
    [answer] = await rig.host.submit([c.Invocation("acme", "ten_acme", inbound("a"))])
    assert isinstance(answer, Refused)


# --- replay -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_replay_tells_one_tenant_what_it_missed_and_no_more() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    theirs = c.Invocation("blue", stream("tel:+1", "blue"), inbound("a"))
    await rig.host.submit([theirs])
    items = await rig.host.replay(0, "blue", 0, 6)
    assert [(item.tenant, item.type) for item in items] == [
        ("blue", "conversation.opened"),
        ("blue", "message.received"),
    ]
    assert [item.offset for item in await rig.host.replay(0, "acme", 2, 6)] == [3]


@in_virtual_time
async def test_a_replay_that_outlives_its_partition_ends() -> None:
    rig = await Rig.started()
    await rig.done(inbound("a"))
    partition = rig.partition
    rig.store.journal.loads.shut()
    waiting = rig.begin(inbound("b", "tel:+2"))
    await rig.store.journal.loads.reached(2)
    partition.close(Unavailable("moved"))
    await waiting
    with pytest.raises(Unavailable):
        await partition.replay(0, 1)


@in_virtual_time
async def test_a_replay_shows_nothing_that_may_still_be_undone() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    rig.store.journal.appends.shut()
    rig.store.journal.appends.verdicts = ["refuse"]
    rig.begin(inbound("b"))
    await rig.store.journal.appends.reached(2)
    replay = rig.loop.create_task(rig.host.replay(0, "acme", 0, 3))
    await rig.idle()
    assert not replay.done()
    await rig.store.journal.appends.open()
    with pytest.raises(Exception, match="undone"):
        await replay


@in_virtual_time
async def test_a_store_that_cannot_be_opened_is_tried_until_it_can() -> None:
    store = GatedStore()
    store.journal.acquires.verdicts = ["refuse"] * 5
    rig = await Rig.started(store)
    await rig.done(inbound("a"))
