"""The publisher: one call in flight for each gateway, gaps that show, and no queue without a bound."""

from __future__ import annotations

import pytest

from hub import commands as c
from tests.unit.actors.rig import ANA, Rig, in_virtual_time, inbound, stream


def types(rig: Rig) -> list[str]:
    return [item.type for feed in rig.feeds for item in feed.items]


@in_virtual_time
async def test_committed_events_reach_a_gateway_that_cares() -> None:
    rig = await Rig.started()
    rig.attend(["acme"])
    await rig.ask(inbound("a"))
    await rig.idle()
    assert types(rig) == ["conversation.opened", "message.received"]
    assert (rig.feeds[-1].after, rig.feeds[-1].upto) == (0, 3)


@in_virtual_time
async def test_nothing_is_published_before_it_is_durable() -> None:
    rig = await Rig.started()
    rig.attend(["acme"])
    rig.store.journal.appends.shut()
    call = rig.begin(inbound("a"))
    await rig.store.journal.appends.reached(1)
    await rig.idle()
    assert types(rig) == []
    await rig.store.journal.appends.open()
    await call


@in_virtual_time
async def test_events_of_other_tenants_only_move_the_offset() -> None:
    rig = await Rig.started()
    rig.attend(["blue"])
    await rig.ask(inbound("a"))
    await rig.idle()
    assert types(rig) == []
    assert rig.feeds[-1].upto == 3


@in_virtual_time
async def test_tenants_of_one_batch_come_in_the_order_of_the_journal() -> None:
    rig = await Rig.started()
    rig.attend(["acme", "blue"])
    both = [
        c.Invocation("acme", stream(), inbound("a")),
        c.Invocation("blue", stream(tenant="blue"), inbound("a")),
        c.Invocation("acme", stream(), inbound("b")),
    ]
    await rig.host.submit(both)
    await rig.idle()
    offsets = [item.offset for feed in rig.feeds for item in feed.items]
    assert offsets == sorted(offsets)
    assert len(offsets) == 5


@in_virtual_time
async def test_what_is_committed_during_a_call_goes_into_the_next_one() -> None:
    rig = await Rig.started()
    rig.attend(["acme"])
    await rig.idle()
    rig.feeds.clear()
    rig.subscriber.shut()
    for name in "abcde":
        await rig.ask(inbound(name))
    await rig.subscriber.open()
    await rig.idle()
    assert len(rig.feeds) == 2
    assert rig.feeds[0].upto == rig.feeds[1].after


@in_virtual_time
async def test_a_gateway_that_cannot_keep_up_sees_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.readers.publisher.OUTBOX_MAX_PUBLICATIONS", 3)
    rig = await Rig.started()
    rig.attend(["acme"])
    await rig.idle()
    rig.subscriber.shut()
    for number in range(9):
        await rig.ask(inbound(f"a{number}"))
    await rig.subscriber.open()
    await rig.idle()
    *_, first, second = rig.feeds
    assert second.after > first.upto
    assert second.upto == await rig.store.journal.head(0)
    missed = await rig.host.replay(0, "acme", first.upto, second.after)
    assert [item.offset for item in missed] == list(range(first.upto + 1, second.after + 1))


@in_virtual_time
async def test_a_gateway_that_hangs_is_dropped_and_learns_what_it_missed_when_it_returns() -> None:
    """At once: not when the next thing happens, which may be tomorrow."""
    rig = await Rig.started()
    rig.attend(["acme"])
    await rig.idle()
    rig.subscriber.shut()
    await rig.ask(inbound("a"))
    await rig.pass_time(11)
    await rig.subscriber.open()
    rig.feeds.clear()
    rig.attend(["acme"])
    await rig.idle()
    [feed] = rig.feeds
    assert (feed.after, feed.upto, feed.items) == (3, 3, [])


@in_virtual_time
async def test_a_partition_that_comes_back_shows_what_was_committed_elsewhere() -> None:
    one = await Rig.started()
    one.attend(["acme"])
    await one.ask(inbound("a"))
    two = Rig(one.store, name="two")
    two.host.start()
    await two.host.open([0])
    await two.ask(inbound("b"))
    await one.idle()
    one.feeds.clear()
    await one.host.open([0])
    await one.idle()
    [feed] = one.feeds
    assert (feed.after, feed.upto, feed.items) == (4, 4, [])


@in_virtual_time
async def test_feeds_that_do_not_meet_are_never_made_into_one() -> None:
    one = await Rig.started()
    one.attend(["acme"])
    await one.idle()
    one.subscriber.shut()
    await one.ask(inbound("a"))
    await one.idle()
    await one.ask(inbound("b"))
    two = Rig(one.store, name="two")
    two.host.start()
    await two.host.open([0])
    await two.ask(inbound("c"))
    await one.host.open([0])
    await one.ask(inbound("d"))
    await one.subscriber.open()
    await one.idle()
    told = {item.offset for feed in one.feeds for item in feed.items}
    claimed = {offset for feed in one.feeds for offset in range(feed.after + 1, feed.upto + 1)}
    assert 5 not in told
    assert 5 not in claimed


@in_virtual_time
async def test_a_changed_setting_is_told_to_every_gateway() -> None:
    rig = await Rig.started()
    rig.attend([])
    await rig.ask(c.PutSetting(kind="channel", id="wa", document=b"{}", by=ANA))
    await rig.idle()
    [notice] = [notice for feed in rig.feeds for notice in feed.settings]
    assert (notice.tenant, notice.kind, notice.id) == ("acme", "channel", "wa")


@in_virtual_time
async def test_repeating_an_interest_changes_nothing() -> None:
    rig = await Rig.started()
    for _ in range(5):
        rig.attend(["acme"])
    await rig.ask(inbound("a"))
    await rig.idle()
    assert types(rig) == ["conversation.opened", "message.received"]
