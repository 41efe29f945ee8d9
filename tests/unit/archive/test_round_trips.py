"""A store goes into an archive and comes out the same, whole or as of an earlier moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.archive.blocks import ArchiveError, Block, Events, Header
from hub.archive.compare import differences, digest
from hub.archive.cut import Cut
from hub.archive.sink import Restored, StoreWriter, check_empty
from hub.archive.source import read_store
from hub.codec import decode_record
from hub.events import DeliveryStarted, SettingChanged
from hub.ports import Store
from hub.storage.memory import MemoryStore
from tests.unit.archive.made import (
    AT,
    KEYRING,
    PARTITIONS,
    Writer,
    begun,
    blocks_of_store,
    customer,
    records_of,
    sent,
    small_store,
    stream_of,
)


async def restored(*archives: list[Block], into: Store | None = None, **more: Any) -> tuple[Store, Restored]:
    store = into or MemoryStore(PARTITIONS)
    attempts_at = more.pop("attempts_at", None)
    writer = StoreWriter(store, **more)
    for blocks in archives:
        await writer.write(stream_of(blocks), newest=blocks is archives[-1])
    return store, await writer.finish(attempts_at=attempts_at)


async def same(one: Store, other: Store) -> list[str]:
    return differences(
        await digest(stream_of(await blocks_of_store(one))), await digest(stream_of(await blocks_of_store(other)))
    )


async def test_everything_is_the_same_afterwards() -> None:
    store, _ = await small_store()
    copy, done = await restored(await blocks_of_store(store))
    assert await records_of(copy) == await records_of(store)
    assert await copy.journal.stream_keys("", 100) == await store.journal.stream_keys("", 100)
    assert await same(store, copy) == [] and done.events == sum(map(len, await records_of(store)))


async def test_whatever_differs_is_named() -> None:
    store, writer = await small_store()
    before = await digest(stream_of(await blocks_of_store(store)))
    await writer.message(2, 2, 3, "más")
    await store.journal.erase_key(customer(1, 1))
    await store.documents.claim("email", "b@acme.test", "acme/agt_b")
    found = differences(before, await digest(stream_of(await blocks_of_store(store))))
    assert [line.partition(":")[0] for line in found] == ["partition 2", "keys", "claims"]


async def test_a_writer_at_work_leaves_a_prefix_with_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two reads of the backup, customers come and write, in partitions it has read and in those it has not."""
    monkeypatch.setattr("hub.archive.source.READ_MAX_EVENTS", 3)
    store, writer = await small_store()
    heads = [len(records) for records in await records_of(store)]
    blocks, number = [], 100
    async for block in read_store(store, secret=KEYRING.fingerprint, now=AT):
        blocks.append(block)
        for partition in range(PARTITIONS):
            number += 1
            await writer.contact(partition, number)
    copy, _ = await restored(blocks)
    for mine, theirs, head in zip(await records_of(copy), await records_of(store), heads, strict=True):
        assert mine == theirs[:head]
        keys = await copy.journal.keys([record.stream for record in mine])
        for record in mine:
            opened = decode_record(
                record.body,
                stream=record.stream,
                offset=record.offset,
                cipher=KEYRING.unwrap(record.stream, keys[record.stream]),
            )
            assert opened.sealed is None or opened.event.content is not None


async def test_a_chain_holds_each_event_once() -> None:
    store, writer = await small_store()
    first = await blocks_of_store(store)
    await writer.message(1, 1, 3, "martes")
    second = await blocks_of_store(store, base=first[0])
    await writer.contact(3, 77)
    await writer.message(1, 1, 4, "miércoles")
    third = await blocks_of_store(store, base=second[0])
    assert sum(len(block.records) for block in third if isinstance(block, Events)) == 4
    copy, _ = await restored(first, second, third)
    assert await same(store, copy) == []


async def test_an_increment_of_another_store_is_refused() -> None:
    store, _ = await small_store()
    [header, *_] = await blocks_of_store(store)
    assert isinstance(header, Header)
    other, writer = await small_store()  # the same shape, other records
    await writer.contact(0, 9)
    with pytest.raises(ArchiveError, match="make a full backup"):
        await blocks_of_store(other, base=header)
    with pytest.raises(ArchiveError, match="another installation"):
        _ = [block async for block in read_store(store, secret="other", now=AT, base=header)]


async def test_a_key_erased_after_the_full_backup_does_not_come_back_with_the_chain() -> None:
    store, _ = await small_store()
    first = await blocks_of_store(store)
    await store.journal.erase_key(customer(1, 1))
    second = await blocks_of_store(store, base=first[0])
    assert customer(1, 1) not in {key.stream for block in second if isinstance(block, Events) for key in block.keys}
    copy, done = await restored(first, second)
    assert await copy.journal.keys([customer(1, 1)]) == {} and done.erased == 1
    assert await same(store, copy) == []
    cut, _ = await restored(first, second, cut=Cut({1: 4}))
    assert await cut.journal.keys([customer(1, 1)]) == {}


async def test_a_key_erased_while_the_backup_ran_is_gone_from_what_is_restored() -> None:
    store, _ = await small_store()
    blocks = []
    async for block in read_store(store, secret=KEYRING.fingerprint, now=AT):
        blocks.append(block)
        if isinstance(block, Events) and block.partition == 1:
            await store.journal.erase_key(customer(1, 1))
    copy, done = await restored(blocks)
    assert done.erased == 1 and await copy.journal.keys([customer(1, 1)]) == {}


async def test_whom_an_old_backup_must_forget_stays_forgotten() -> None:
    store, _ = await small_store()
    copy, done = await restored(await blocks_of_store(store), forget=frozenset({customer(2, 2)}))
    assert await copy.journal.keys([customer(2, 2), customer(1, 1)]) != {}
    assert await copy.journal.keys([customer(2, 2)]) == {} and done.erased == 1
    assert await records_of(copy) == await records_of(store)


# --- an earlier moment ----------------------------------------------------------------------------------------------


async def test_a_position_cuts_its_partition_only() -> None:
    store, _ = await small_store()
    cut = Cut({1: 4})
    copy, done = await restored(await blocks_of_store(store), cut=cut)
    whole = await records_of(store)
    assert await records_of(copy) == [whole[0], whole[1][:4], *whole[2:]] and done.moved == {}
    assert done.heads == [len(whole[0]), 4, len(whole[2]), len(whole[3])]


@pytest.mark.parametrize("offset", [1, 2])
async def test_a_cut_inside_a_turn_moves_to_its_end(offset: int) -> None:
    store, _ = await small_store()
    cut = Cut({1: offset})
    copy, done = await restored(await blocks_of_store(store), cut=cut)
    assert done.heads[1] == 3 and done.moved == {1: 3}
    assert len(await copy.journal.read(1, 0, 10)) == 3


async def test_position_zero_leaves_nothing_not_even_keys() -> None:
    store, _ = await small_store()
    copy, _ = await restored(await blocks_of_store(store), cut=Cut({1: 0}))
    assert await copy.journal.head(1) == 0
    assert await copy.journal.keys([customer(1, 1), customer(1, 5)]) == {}


async def test_a_position_that_is_not_there_is_refused() -> None:
    store, _ = await small_store()
    [header, *_] = await blocks_of_store(store)
    assert isinstance(header, Header)
    for positions in ({1: 1000}, {PARTITIONS: 1}):
        with pytest.raises(ArchiveError, match=r"in this archive|no partition"):
            Cut(positions).check(header)


async def test_an_instant_cuts_every_partition() -> None:
    store, writer = await small_store()
    until = writer.at
    await writer.message(0, 0, 3, "tarde")
    await writer.message(3, 3, 3, "tarde")
    await writer.contact(2, 50)
    blocks = await blocks_of_store(store)
    copy, done = await restored(blocks, cut=Cut(until=until))
    for records, whole in zip(await records_of(copy), await records_of(store), strict=True):
        late = [r for r in whole if decode_record(r.body, stream=r.stream, offset=r.offset, cipher=None).at > until]
        assert records == whole[: len(whole) - len(late)]
    assert sum(done.heads) == sum(map(len, await records_of(store))) - 5
    assert await copy.journal.keys([customer(2, 50)]) == {}


async def test_names_and_settings_made_after_the_cut_are_free_again() -> None:
    store, writer = await small_store()
    until = writer.at
    await writer.setting("agent", "agt_late")
    await store.documents.claim("email", "late@acme.test", "acme/agt_late")
    await store.documents.claim("channel-id", "acme-wa", "acme")
    copy, _ = await restored(await blocks_of_store(store), cut=Cut(until=until))
    assert await copy.documents.owner("email", "late@acme.test") is None
    assert await copy.documents.owner("email", "ana@acme.test") == "acme/agt_ana"
    assert await copy.documents.owner("channel-id", "acme-wa") == "acme"
    assert await copy.documents.all(("", ""), 10) == []  # they are of the later moment; the journal makes them anew
    settings = [
        opened.event
        for record in await copy.journal.read(0, 0, 100)
        if isinstance(
            (opened := decode_record(record.body, stream=record.stream, offset=record.offset, cipher=None)).event,
            SettingChanged,
        )
    ]
    assert [event.id for event in settings] == ["agt_ana"]


# --- what was under way ---------------------------------------------------------------------------------------------


async def test_messages_that_may_have_left_since_are_marked_as_begun() -> None:
    store, writer = await small_store()
    stream = customer(1, 1)
    await writer.reply(1, 1, 3, begun(stream, 3), sent(stream, 3))
    await writer.reply(1, 1, 4)
    await writer.reply(1, 1, 5, begun(stream, 5))
    copy, done = await restored(await blocks_of_store(store), attempts_at=AT)
    assert done.attempts == 1
    added = (await copy.journal.read(1, done.heads[1], 10))[0]
    event = decode_record(added.body, stream=added.stream, offset=added.offset, cipher=None).event
    assert isinstance(event, DeliveryStarted) and (event.seq, event.attempt) == (4, 1)
    assert (await records_of(copy))[1][:-1] == (await records_of(store))[1]


# --- where it may be written ----------------------------------------------------------------------------------------


async def test_a_store_that_holds_anything_is_refused() -> None:
    store, _ = await small_store()
    with pytest.raises(ArchiveError, match="not empty"):
        await check_empty(store)
    named = MemoryStore(PARTITIONS)
    await named.documents.claim("email", "a@b.c", "t/a")
    with pytest.raises(ArchiveError, match="not empty"):
        await check_empty(named)
    await check_empty(MemoryStore(PARTITIONS))


@pytest.mark.parametrize("blocks_written", range(1, 9))
async def test_an_interrupted_restore_is_gone_on_with(blocks_written: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.archive.source.READ_MAX_EVENTS", 4)
    store, writer = await small_store()
    await writer.reply(1, 1, 3)
    blocks = await blocks_of_store(store)
    copy = MemoryStore(PARTITIONS)
    await StoreWriter(copy).write(stream_of(blocks[:blocks_written]))
    for _ in range(2):  # the second one finds everything there, its own marks included
        _, done = await restored(blocks, into=copy, attempts_at=AT)
    assert done.present == sum(done.heads) and done.events == 0
    assert [
        records[:head] for records, head in zip(await records_of(copy), done.heads, strict=True)
    ] == await records_of(store)
    assert sum(map(len, await records_of(copy))) == sum(done.heads) + 1


async def test_going_on_over_something_else_is_refused() -> None:
    store, _ = await small_store()
    blocks = await blocks_of_store(store)
    other = MemoryStore(PARTITIONS)
    await Writer(other).contact(1, 1, "otra cosa")
    with pytest.raises(ArchiveError, match="another journal"):
        await restored(blocks, into=other)
    longer, _ = await restored(blocks)
    await Writer(longer).contact(1, 99)
    with pytest.raises(ArchiveError, match="past the archive"):
        await restored(blocks, into=longer)


async def test_a_hub_that_takes_the_target_meanwhile_is_not_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.archive.source.READ_MAX_EVENTS", 2)
    store, _ = await small_store()
    blocks = await blocks_of_store(store)
    target = MemoryStore(PARTITIONS)

    async def interrupted() -> AsyncIterator[Block]:
        for block in blocks:
            yield block
            if isinstance(block, Events):
                await target.journal.acquire(block.partition)

    with pytest.raises(ArchiveError, match="somebody else"):
        await StoreWriter(target).write(interrupted())


async def test_another_partition_count_is_refused() -> None:
    store, _ = await small_store()
    with pytest.raises(ArchiveError, match="4 partitions, the store 8"):
        await restored(await blocks_of_store(store), into=MemoryStore(8))
