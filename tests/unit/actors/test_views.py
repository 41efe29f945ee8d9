"""The views: rows pile up coalesced, reach the store in one batch, and are read again from the journal when lost."""

from __future__ import annotations

import pytest

from hub import commands as c
from hub.errors import StoreUnavailable
from hub.ids import tenant_partition
from hub.ports import ConversationQuery
from hub.render import message_from_json
from hub.storage.memory import MemoryCheckpoints
from tests.unit.actors.rig import (
    ANA,
    GatedStore,
    GatedViews,
    Rig,
    conversation,
    in_virtual_time,
    inbound,
    reply,
    stream,
)


@in_virtual_time
async def test_a_conversation_that_changed_often_is_written_once() -> None:
    rig = await Rig.started()
    for number in range(40):
        await rig.ask(inbound(f"a{number}"))
    await rig.host.views.flush()
    [batch] = rig.store.views.batches
    assert (len(batch.conversations), len(batch.messages), batch.upto) == (1, 40, 42)


@in_virtual_time
async def test_rows_are_in_the_lists_within_a_quarter_of_a_second() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    await rig.pass_time(0.26)
    [row] = await rig.store.views.conversations(ConversationQuery(tenant="acme"))
    assert row.id == conversation()


@in_virtual_time
async def test_who_waits_for_an_offset_does_not_wait_for_the_clock() -> None:
    rig = await Rig.started()
    done = await rig.done(inbound("a"))
    before = rig.loop.time()
    await rig.host.reach(0, done.offset)
    assert rig.loop.time() == before
    assert await rig.store.views.checkpoint(0) == done.offset


@in_virtual_time
async def test_who_waits_for_an_offset_is_told_when_the_store_cannot() -> None:
    rig = await Rig.started()
    done = await rig.done(inbound("a"))
    rig.store.views.writes.verdicts = ["refuse"]
    with pytest.raises(StoreUnavailable):
        await rig.host.reach(0, done.offset)
    await rig.host.reach(0, done.offset)


@in_virtual_time
async def test_a_refused_batch_is_read_again_from_the_journal() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    rig.store.views.writes.verdicts = ["refuse", "refuse"]
    await rig.host.views.flush()
    await rig.ask(inbound("b"))
    await rig.pass_time(1)
    assert len(await rig.store.views.messages(conversation(), before=None, after=None, limit=9)) == 2
    assert await rig.store.views.checkpoint(0) == await rig.store.journal.head(0)


@in_virtual_time
async def test_more_rows_than_the_store_takes_are_forgotten_and_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.readers.views.PENDING_MAX_ROWS", 5)
    rig = await Rig.started()
    for number in range(20):
        await rig.ask(inbound(f"a{number}", f"tel:+{number}"))
    await rig.host.views.flush()
    assert len(await rig.store.views.conversations(ConversationQuery(tenant="acme", limit=99))) == 20


@in_virtual_time
async def test_lost_views_are_rebuilt_from_the_journal() -> None:
    rig = await Rig.started()
    await rig.ask(inbound("a", name="Eva"))
    await rig.ask(reply("one"))
    await rig.ask(c.PutSetting(kind="channel", id="wa", document=b"{}", by=ANA))
    await rig.pass_time(3)
    before = await rig.store.views.message(conversation(), 2)
    await rig.host.close()
    store = GatedStore()
    store.journal, store.views = rig.store.journal, GatedViews()
    store.checkpoints = MemoryCheckpoints(store.journal)
    later = await Rig.started(store)
    assert await store.views.message(conversation(), 2) == before
    document = await store.documents.get("channel", "wa")
    assert document is not None and document.body == b"{}"
    assert await store.views.checkpoint(0) == await store.journal.head(0)
    await later.done(inbound("a"))


@in_virtual_time
async def test_rebuilt_statuses_of_forgotten_messages_come_from_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.conversation.OUTBOUND_MAX_MESSAGES", 1)
    rig = await Rig.started()
    await rig.ask(inbound("a"))
    for name in ("one", "two", "three"):
        await rig.ask(reply(name))
        await rig.pass_time(1)
    rig.store.views = GatedViews()
    later = await Rig.started(rig.store)
    messages = await later.store.views.messages(conversation(), before=None, after=1, limit=9)
    told = [(m.status, m.external_id) for m in (message_from_json(row.body) for row in messages)]
    assert told == [("sent", "ext-1"), ("sent", "ext-2"), ("sent", "ext-3")]


@in_virtual_time
async def test_a_renamed_customer_is_renamed_in_every_list() -> None:
    rig = await Rig.started()
    await rig.begin(inbound("a", name="Eva"), inbound("a", channel="sms"))
    command = c.UpdateCustomer(name="Eva María")
    await rig.host.submit([c.Invocation("acme", stream(), command)])
    await rig.host.views.flush()
    rows = await rig.store.views.conversations(ConversationQuery(tenant="acme", text="eva maría"))
    assert len(rows) == 2


@in_virtual_time
async def test_a_partition_that_goes_away_during_a_flush_does_not_end_the_flushing() -> None:
    rig = await Rig.started(GatedStore(2))
    here = [next(n for n in range(60) if tenant_partition(f"t{n}", 2) == partition) for partition in (0, 1)]
    for number in here:
        await rig.host.submit([invocation(number, "a")])
    rig.store.views.writes.shut()
    flush = rig.loop.create_task(rig.host.views.flush())
    await rig.store.views.writes.reached(1)
    for partition in list(rig.host.partitions.values()):
        partition.fenced()
    await rig.store.views.writes.open()
    await flush
    await rig.host.open([0, 1])
    await rig.host.submit([invocation(here[0], "b")])
    await rig.pass_time(1)
    assert await rig.store.views.checkpoint(0) == await rig.store.journal.head(0)


def invocation(tenant: int, external_id: str) -> c.Invocation:
    return c.Invocation(f"t{tenant}", stream("tel:+1", f"t{tenant}", partitions=2), inbound(external_id))
