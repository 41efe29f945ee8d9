"""The host: owns partitions, fires timers, and gives everything up cleanly."""

from __future__ import annotations

import pytest

from actors.host import RELEASE_TIMEOUT_S
from hub import commands as c
from hub.commands import Done
from hub.ports import StoredRecord
from tests.unit.actors.rig import GatedStore, Provider, Rig, conversation, in_virtual_time, inbound, reply, update


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


# --- giving up ----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_release_refuses_what_is_new_and_keeps_what_was_decided() -> None:
    rig = await Rig.started()
    rig.store.journal.appends.shut()
    decided = rig.begin(inbound("a"))
    await rig.store.journal.appends.reached(1)
    release = rig.loop.create_task(rig.released([0]))
    await rig.idle()
    assert await rig.refused(inbound("b")) == "unavailable"
    assert not release.done()
    await rig.store.journal.appends.open()
    await release
    [answer] = await decided
    assert isinstance(answer, Done)
    assert await rig.store.journal.head(0) == answer.offset
    assert (rig.host.partitions, rig.host.wanted, rig.lost) == ({}, set(), [])


@in_virtual_time
async def test_a_release_waits_for_the_send_under_way_and_takes_commands_meanwhile() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    rig.provider.answers.shut()
    await rig.ask(reply("one"))
    await rig.provider.answers.reached(1)
    release = rig.loop.create_task(rig.released([0]))
    await rig.idle()
    await rig.done(reply("two"))
    await rig.provider.answers.open()
    await release
    assert [sent.message[-1] for sent in rig.provider.sent] == ["2"]
    later = await Rig.started(rig.store, Provider())
    await later.pass_time(1)
    assert [sent.message[-1] for sent in later.provider.sent] == ["3"]
    events = await rig.store.events()
    assert events.count("delivery.started") == events.count("message.status") == 2


@in_virtual_time
async def test_a_send_that_lasts_too_long_is_left_behind_and_told_as_uncertain() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    rig.provider.answers.shut()
    await rig.ask(reply("one"))
    await rig.provider.answers.reached(1)
    began = rig.loop.time()
    await rig.host.release([0])
    assert rig.loop.time() - began <= RELEASE_TIMEOUT_S
    later = await Rig.started(rig.store, Provider())
    await later.pass_time(10)
    assert later.provider.sent == []
    await later.host.views.flush()
    body = await later.store.views.message(conversation(), 2)
    assert body is not None
    assert b'"uncertain"' in body


@in_virtual_time
async def test_a_release_that_the_store_holds_up_ends_all_the_same() -> None:
    """A partition that is neither here nor there would be nobody's."""
    rig = await Rig.started()
    rig.store.journal.appends.shut()
    call = rig.begin(inbound("a"))
    await rig.store.journal.appends.reached(1)
    began = rig.loop.time()
    await rig.host.release([0])
    assert rig.loop.time() - began <= RELEASE_TIMEOUT_S + 1
    [answer] = await call
    assert getattr(answer, "code", "done") in ("unavailable", "store_unavailable")
    assert rig.host.partitions == {}


@in_virtual_time
async def test_one_release_that_is_held_up_does_not_hold_up_another() -> None:
    rig = await Rig.started(GatedStore(2))
    rig.host.partitions[0]._open.records.append(StoredRecord(1, "cus_x", b""))  # never committed: nobody is woken
    releases = [rig.loop.create_task(rig.released([number])) for number in (0, 1)]
    await rig.pass_time(1)
    assert [release.done() for release in releases] == [False, True]
    await releases[0]
    assert rig.host.partitions == {}


@in_virtual_time
async def test_a_partition_that_was_lost_while_it_was_released_sends_again_when_it_is_back() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    lost = rig.partition
    await rig.store.journal.acquire(0)
    assert await rig.refused(inbound("b")) == "unavailable"
    await rig.host.courier.finish(lost)
    await rig.host.open([0])
    await rig.ask(reply("one"))
    await rig.pass_time(1)
    assert len(rig.provider.sent) == 1


@in_virtual_time
async def test_what_is_abandoned_while_it_opens_is_closed_again() -> None:
    store = GatedStore()
    rig = Rig(store)
    rig.host.start()
    store.journal.acquires.shut()
    opening = rig.loop.create_task(rig.host.open([0]))
    await store.journal.acquires.reached(1)
    rig.host.abandon([0])
    await store.journal.acquires.open()
    await opening
    assert (rig.host.partitions, rig.host.wanted, rig.lost) == ({}, set(), [])
    assert await rig.refused(inbound("a")) == "unavailable"


@in_virtual_time
async def test_what_was_abandoned_is_not_taken_from_its_new_owner() -> None:
    """Not even by a second try, or one that waited for the first."""
    store = GatedStore()
    rig = Rig(store)
    rig.host.start()
    store.journal.acquires.verdicts = ["refuse"]
    store.journal.acquires.shut()
    openings = [rig.loop.create_task(rig.host.open([0])) for _ in range(2)]
    await store.journal.acquires.reached(1)
    rig.host.abandon([0])
    await store.journal.acquires.open()
    for opening in openings:
        await opening
    assert (store.journal.acquires.calls, store.journal.epoch(0)) == (1, 0)


@in_virtual_time
async def test_a_release_of_what_is_just_opening_ends_when_it_is_closed() -> None:
    """Or our own taking of it would come after its new owner's, and fence them."""
    store = GatedStore()
    rig = Rig(store)
    rig.host.start()
    store.journal.acquires.shut()
    opening = rig.loop.create_task(rig.host.open([0]))
    await store.journal.acquires.reached(1)
    release = rig.loop.create_task(rig.released([0]))
    await rig.idle()
    assert not release.done()
    await store.journal.acquires.open()
    await release
    epoch = store.journal.epoch(0)
    await opening
    await rig.pass_time(5)
    assert (rig.host.partitions, store.journal.epoch(0)) == ({}, epoch)


@in_virtual_time
async def test_what_is_wanted_again_right_after_its_release_was_asked_for_is_open_in_the_end() -> None:
    """As a shard hears it that was stopped for a while: all at once."""
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    release = rig.host.release([0])
    rig.host.abandon([0])
    rig.host.wanted.add(0)
    opening = rig.loop.create_task(rig.host.open([0]))
    await release
    await opening
    assert isinstance(await rig.ask(inbound("b")), Done)
    assert (rig.host.wanted, rig.lost) == ({0}, [])


# --- a store that is down -----------------------------------------------------------------------------------------


@in_virtual_time
async def test_while_the_store_keeps_a_partition_from_opening_callers_are_told_so_at_once() -> None:
    store = GatedStore()
    store.journal.acquires.verdicts = ["refuse"] * 6
    rig = Rig(store)
    rig.host.start()
    opening = rig.loop.create_task(rig.host.open([0]))
    await rig.idle()
    began = rig.loop.time()
    assert await rig.refused(inbound("a")) == "store_unavailable"
    assert rig.loop.time() == began
    await opening
    await rig.done(inbound("a"))


@in_virtual_time
async def test_while_the_store_keeps_a_partition_from_recovering_callers_are_told_so_at_once() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    rig.store.journal.appends.verdicts = ["refuse"]
    rig.store.journal.acquires.verdicts = ["refuse"] * 6
    assert await rig.refused(inbound("b")) == "store_unavailable"
    await rig.idle()
    began = rig.loop.time()
    assert await rig.refused(inbound("b")) == "store_unavailable"
    assert rig.loop.time() == began
    await rig.partition_is_back()
    await rig.done(inbound("b"))
    assert rig.lost == []


@in_virtual_time
async def test_whoever_does_not_own_a_partition_any_more_does_not_speak_for_its_store() -> None:
    store = GatedStore()
    store.journal.acquires.verdicts = ["refuse"] * 6
    rig = Rig(store)
    rig.host.start()
    opening = rig.loop.create_task(rig.host.open([0]))
    await rig.idle()
    rig.host.abandon([0])
    assert await rig.refused(inbound("a")) == "unavailable"
    await opening


@in_virtual_time
async def test_a_defect_while_opening_is_not_the_end_of_it() -> None:
    """As long as a partition is ours, nobody else will open it."""
    store = GatedStore()
    timers, defects = store.views.timers, [ZeroDivisionError(), ZeroDivisionError()]

    async def broken(partition: int) -> list[tuple[str, int]]:
        if defects:
            raise defects.pop()
        return await timers(partition)

    store.views.timers = broken  # type: ignore[method-assign]
    rig = await Rig.started(store)
    await rig.done(inbound("a"))


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
