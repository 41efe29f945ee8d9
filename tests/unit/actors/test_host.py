"""The host: owns partitions, fires timers, and gives everything up cleanly."""

from __future__ import annotations

import pytest

from hub import commands as c
from hub.commands import Done
from tests.unit.actors.rig import GatedStore, Rig, conversation, in_virtual_time, inbound, update


@in_virtual_time
async def test_a_snooze_ends_within_a_second_of_being_due() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    await rig.ask(update(snoozed_until=rig.now_ms + 5_000))
    await rig.pass_time(4.99)
    assert rig.host.timers_fired == 0
    await rig.pass_time(1)
    assert (await rig.store.events()).count("conversation.updated") == 2
    await rig.pass_time(60)
    assert rig.host.timers_fired == 1


@in_virtual_time
async def test_a_snooze_that_fell_due_while_nobody_was_there_ends_at_once() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    await rig.ask(update(snoozed_until=rig.now_ms + 5_000))
    await rig.host.close()
    await rig.pass_time(3600)
    later = await Rig.started(rig.store)
    await later.pass_time(0.1)
    assert later.host.timers_fired == 1


@in_virtual_time
async def test_a_timer_that_the_store_refuses_is_tried_again() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    await rig.ask(update(snoozed_until=rig.now_ms + 1_000))
    rig.store.journal.appends.verdicts = ["refuse", "refuse"]
    await rig.pass_time(5)
    assert (await rig.store.events()).count("conversation.updated") == 2


@in_virtual_time
async def test_a_snooze_moved_while_its_timer_was_refused_keeps_its_new_time() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    await rig.ask(update(snoozed_until=rig.now_ms + 1_000))
    rig.store.journal.appends.shut()
    rig.store.journal.appends.verdicts = ["lose"]
    await rig.pass_time(0.9995)
    moved = rig.begin(update(snoozed_until=rig.now_ms + 10_000))
    await rig.pass_time(0.5)
    await rig.store.journal.appends.open()
    await moved
    await rig.pass_time(5)
    assert rig.host.partitions[0].activations
    assert (await rig.done(c.GetConversation(conversation=conversation()))).conversation.count(b'"snoozed"') == 1
    await rig.pass_time(6)
    assert b'"open"' in (await rig.done(c.GetConversation(conversation=conversation()))).conversation


@in_virtual_time
async def test_timers_that_are_due_do_not_spin_while_their_partition_recovers() -> None:
    """The virtual loop raises where time does not pass."""
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    await rig.ask(update(snoozed_until=rig.now_ms + 1_000))
    rig.store.journal.acquires.shut()
    rig.store.journal.appends.verdicts = ["refuse"]
    await rig.ask(inbound("b", "tel:+2"))
    await rig.pass_time(5)
    await rig.store.journal.acquires.open()
    await rig.partition_is_back()
    await rig.pass_time(1)
    assert rig.host.timers_fired == 1


# --- owning -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_partition_that_is_not_here_is_refused_for_now() -> None:
    rig = Rig()
    rig.host.start()
    assert await rig.refused(inbound("a")) == "unavailable"


@in_virtual_time
async def test_a_released_partition_leaves_nothing_to_catch_up_with() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    await rig.host.release([0])
    assert await rig.store.views.checkpoint(0) == await rig.store.journal.head(0)
    assert (await rig.store.checkpoints.load("courier", 0)).offset == await rig.store.journal.head(0)
    assert rig.store.journal.snapshots
    assert rig.lost == []
    assert await rig.refused(inbound("a")) == "unavailable"


@in_virtual_time
async def test_two_hosts_hand_a_partition_over_and_nothing_is_lost_or_doubled() -> None:
    one = await Rig.started()
    first = await one.done(inbound("a"))
    two = Rig(one.store, name="two")
    two.host.start()
    await two.host.open([0])
    again = await two.done(inbound("a"))
    assert (again.duplicate, again.message_id) == (True, first.message_id)
    assert await one.refused(inbound("b")) == "unavailable"
    assert one.lost == [0]


@in_virtual_time
async def test_opening_what_is_held_already_forgets_what_is_in_memory() -> None:
    """It went to another shard and came back: what this one remembers may be old."""
    one = await Rig.started()
    await one.ask(inbound("a"))
    two = Rig(one.store, name="two")
    two.host.start()
    await two.host.open([0])
    await two.done(inbound("b"))
    await one.host.open([0])
    assert (await one.done(inbound("b"))).duplicate
    assert one.lost == []


@in_virtual_time
async def test_opening_twice_at_once_ends_with_one_working_owner() -> None:
    """Side by side they would fence each other for ever."""
    rig = Rig()
    rig.host.start()
    openings = [rig.loop.create_task(rig.host.open([0])) for _ in range(3)]
    for opening in openings:
        await opening
    assert isinstance(await rig.ask(inbound("a")), Done)
    assert rig.lost == []


@in_virtual_time
async def test_a_partition_is_opened_however_long_the_store_needs() -> None:
    store = GatedStore()
    store.journal.acquires.verdicts = ["refuse", "lose", "refuse"]
    store.views.writes.verdicts = ["refuse"]
    rig = await Rig.started(store)
    await rig.done(inbound("a"))


@in_virtual_time
async def test_while_a_partition_cannot_be_opened_callers_are_told_that_the_store_is_down() -> None:
    store = GatedStore()
    store.journal.acquires.verdicts = ["refuse"] * 3
    rig = Rig(store)
    opening = rig.loop.create_task(rig.host.open([0]))
    rig.host.start()
    await rig.idle()
    assert await rig.refused(inbound("a")) == "store_unavailable"
    await opening
    await rig.done(inbound("a"))


@in_virtual_time
async def test_closing_is_not_held_up_for_ever_by_a_store_that_hangs() -> None:
    rig = await Rig.started()
    rig.store.journal.appends.shut()
    call = rig.begin(inbound("a"))
    await rig.store.journal.appends.reached(1)
    await rig.host.close()
    [answer] = await call
    assert getattr(answer, "code", "") in ("unavailable", "store_unavailable")
    assert rig.host.partitions == {}


@in_virtual_time
async def test_idle_streams_are_passivated_with_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.host.PASSIVATE_AFTER_MS", 5_000)
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    await rig.pass_time(30)
    assert rig.partition.activations == {}
    assert len(rig.store.journal.snapshots) == 1


# --- replaying ----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_position_this_journal_never_reached_is_refused() -> None:
    rig = await Rig.started()
    with pytest.raises(Exception, match="not in this journal"):
        await rig.host.replay(0, "acme", 0, 99)


@in_virtual_time
async def test_more_than_can_be_replayed_is_refused_and_never_told_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.host.REPLAY_MAX_EVENTS", 2)
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    with pytest.raises(Exception, match="events behind"):
        await rig.host.replay(0, "acme", 0, 3)
