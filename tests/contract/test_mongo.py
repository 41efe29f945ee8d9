"""What only MongoDB can do to a store: two documents where SQL has one transaction, lost answers, a server that dies."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from hub.errors import Fenced, StoreUnavailable
from hub.ports import (
    Append,
    Checkpoint,
    MessageRow,
    StoredKey,
    StoredRecord,
    StoredSnapshot,
    ViewBatch,
)
from hub.storage import open_store
from hub.storage.mongo import database as mongo_database_module
from hub.storage.mongo.database import Database
from hub.storage.mongo.journal import MongoJournal
from hub.storage.mongo.log import MongoLog
from hub.storage.mongo.schema import prepare, view_name
from hub.storage.mongo.slots import Slot
from hub.storage.mongo.store import MongoStore
from tests.contract.test_store import WRITER, conversation, records
from tests.servers.mongo import MongoServer, mongo_database

KEY = [StoredKey("a", b"key")]
ANSWER_WITHIN_S = 6.0


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with mongo_database() as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[MongoStore]:
    opened = await MongoStore.open(url, 4)
    yield opened
    await opened.close()


@pytest.fixture
async def other(url: str, store: MongoStore) -> AsyncIterator[MongoStore]:
    """Another process, on the same database."""
    opened = await MongoStore.open(url)
    yield opened
    await opened.close()


@pytest.fixture
async def raw(url: str) -> AsyncIterator[Any]:
    """The database as anybody sees it."""
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        yield client.get_default_database()


@pytest.fixture
def server() -> Iterator[MongoServer]:
    """One of its own, to be killed and frozen."""
    started = MongoServer().start()
    yield started
    started.remove()


async def append(store: MongoStore, epoch: int, first: int, *streams: str, body: bytes = b"x") -> bool:
    [ok] = await store.journal.append([Append(1, epoch, first, records(first, *streams, body=body))])
    return ok


async def offsets(store: MongoStore) -> list[int]:
    return [record.offset for record in await store.journal.read(1, 0, 10_000)]


class BrokenLog(MongoLog):
    """Loses an answer, or the process, at the moment the test names."""

    lose_next_answer = False
    die_after_parts = False

    async def insert(self, slots: list[Slot]) -> list[bool]:
        if self.die_after_parts:
            for slot in slots:
                await self._document(slot)
            raise StoreUnavailable("died")
        outcomes = await super().insert(slots)
        if self.lose_next_answer:
            self.lose_next_answer = False
            raise StoreUnavailable("the answer was lost")
        return outcomes


def break_log(store: MongoStore, document_max_bytes: int = 1000) -> BrokenLog:
    """The store's journal on a log that breaks, and that calls a batch large when it is 1 kB."""
    log = BrokenLog(store._database, document_max_bytes)
    store.journal = MongoJournal(store._database, log)
    return log


# --- fencing ----------------------------------------------------------------------------------------------------------


async def test_the_late_append_of_a_stale_owner_is_refused_and_leaves_nothing(
    store: MongoStore, other: MongoStore
) -> None:
    old = await store.journal.acquire(1)
    assert await append(store, old.epoch, 1, "a")
    new = await other.journal.acquire(1)
    # The stale owner does not know; it takes its key along.
    late = Append(1, old.epoch, 2, records(2, "b", "b"), [StoredKey("b", b"stale")])
    assert await store.journal.append([late]) == [False]
    assert await append(other, new.epoch, 2, "c")
    assert await offsets(other) == [1, 2]
    assert await other.journal.keys(["b"]) == {}
    [image] = await other.journal.load(1, ["b"])
    assert image.key is None and image.records == []


async def test_an_append_whose_answer_was_lost_is_found_by_acquiring_again(store: MongoStore) -> None:
    log = break_log(store)
    owned = await store.journal.acquire(1)
    log.lose_next_answer = True
    with pytest.raises(StoreUnavailable):
        await store.journal.append([Append(1, owned.epoch, 1, records(1, "a", "b"), KEY)])
    with pytest.raises(StoreUnavailable, match="acquired again"):
        await append(store, owned.epoch, 3, "c")
    again = await store.journal.acquire(1, owned.epoch)
    assert again.next_offset == 3 and await offsets(store) == [1, 2]
    assert await store.journal.keys(["a"]) == {"a": b"key"}  # whoever acquires finishes what was cut short


async def test_a_renewal_whose_answer_was_lost_is_recognised_as_ours(store: MongoStore, other: MongoStore) -> None:
    log = break_log(store)
    owned = await store.journal.acquire(1)
    log.lose_next_answer = True
    with pytest.raises(StoreUnavailable):
        await store.journal.acquire(1, owned.epoch)
    again = await store.journal.acquire(1, owned.epoch)
    assert await append(store, again.epoch, 1, "a")
    log.lose_next_answer = True
    with pytest.raises(StoreUnavailable):
        await store.journal.acquire(1, again.epoch)
    await other.journal.acquire(1)
    with pytest.raises(Fenced):
        await store.journal.acquire(1, again.epoch)


async def test_partitions_of_one_append_have_outcomes_of_their_own(store: MongoStore, other: MongoStore) -> None:
    owned = [await store.journal.acquire(number) for number in range(4)]
    await other.journal.acquire(2)
    appends = [Append(number, owned[number].epoch, 1, records(1, f"s{number}")) for number in range(4)]
    assert await store.journal.append(appends) == [True, True, False, True]
    twice = [Append(3, owned[3].epoch, 2, records(2, "s")), Append(3, owned[3].epoch, 3, records(3, "s"))]
    assert await store.journal.append(twice) == [True, True]
    assert await store.journal.head(3) == 3 and await store.journal.head(2) == 0


async def test_slots_that_a_fail_over_took_back_do_not_mislead_who_saw_them(
    store: MongoStore, other: MongoStore, raw: Any
) -> None:
    owned = await store.journal.acquire(1)
    assert await append(store, owned.epoch, 1, "a") and await append(store, owned.epoch, 2, "a")
    # Seen by this one, though no majority had them: stale, so ignored.
    await other.snapshots.save(1, owned.epoch - 1, [StoredSnapshot("a", 2, b"s")])
    assert not await append(other, owned.epoch, 9, "b")
    await raw["journal"].delete_one({"p": 1, "l": 2})
    new = await other.journal.acquire(1)
    assert new.next_offset == 2 and await other.journal.head(1) == 1
    assert await append(other, new.epoch, 2, "c") and await offsets(other) == [1, 2]


# --- batches larger than a document -----------------------------------------------------------------------------------


async def test_a_batch_larger_than_a_document_reads_like_any_other(store: MongoStore) -> None:
    break_log(store)
    owned = await store.journal.acquire(1)
    assert await append(store, owned.epoch, 1, "a")
    bodies = [b"%d" % n * 300 for n in range(2, 12)]
    large = [StoredRecord(n, "ab"[n % 2], body) for n, body in enumerate(bodies, 2)]
    assert await store.journal.append([Append(1, owned.epoch, 2, large)]) == [True]
    assert (await store.journal.read(1, 1, 100)) == large
    assert (await store.journal.read(1, 4, 3)) == large[3:6]
    assert await store.journal.history(1, "a", 4, 2) == [large[4], large[6]]
    [image] = await store.journal.load(1, ["b"])
    assert image.records == large[1::2]


async def test_parts_of_an_append_that_died_before_its_commit_are_not_there(
    store: MongoStore, other: MongoStore, raw: Any
) -> None:
    log = break_log(store)
    owned = await store.journal.acquire(1)
    assert await append(store, owned.epoch, 1, "a")
    log.die_after_parts = True
    with pytest.raises(StoreUnavailable):
        await append(store, owned.epoch, 2, "a", "a", "a", body=b"y" * 900)
    assert await raw["journal_parts"].count_documents({}) == 3
    new = await other.journal.acquire(1)
    assert new.next_offset == 2 and await offsets(other) == [1]
    assert await raw["journal_parts"].count_documents({}) == 0
    assert await append(other, new.epoch, 2, "b")
    [image] = await other.journal.load(1, ["a"])
    assert [record.offset for record in image.records] == [1]


async def test_reading_pages_through_many_batches_and_fences(store: MongoStore) -> None:
    offset = 1
    for _ in range(4):
        owned = await store.journal.acquire(1)
        for size in (1, 3, 1, 2, 1, 1, 4):
            assert await append(store, owned.epoch, offset, *"abca"[:size])
            offset += size
    assert await offsets(store) == list(range(1, offset))
    assert [r.offset for r in await store.journal.read(1, 17, 5)] == [18, 19, 20, 21, 22]
    assert await store.journal.read(1, offset, 5) == [] == await store.journal.read(1, 0, 0)


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_an_erased_key_is_nowhere_and_does_not_come_back(store: MongoStore, other: MongoStore, raw: Any) -> None:
    owned = await store.journal.acquire(1)
    await store.journal.append([Append(1, owned.epoch, 1, records(1, "a", "b"), [*KEY, StoredKey("b", b"of b")])])
    await store.journal.append([Append(1, owned.epoch, 3, records(3, "a"), [StoredKey("a", b"second")])])
    assert await store.journal.keys(["a"]) == {"a": b"second"}
    await store.journal.erase_key("a")
    assert await raw["journal"].count_documents({"k.s": "a"}) == 0
    new = await other.journal.acquire(1)  # who acquires copies the newest batch's keys
    assert await other.journal.keys(["a", "b"]) == {"b": b"of b"}
    await other.journal.append([Append(1, new.epoch, 4, records(4, "a"), [StoredKey("a", b"fresh")])])
    assert await other.journal.keys(["a", "b"]) == {"a": b"fresh", "b": b"of b"}


# --- what is derived --------------------------------------------------------------------------------------------------


async def test_a_stale_owners_snapshots_and_checkpoints_are_ignored(store: MongoStore, other: MongoStore) -> None:
    old = await store.journal.acquire(1)
    await store.journal.append([Append(1, old.epoch, 1, records(1, "a", "a"), KEY)])
    await store.checkpoints.save("courier", 1, old.epoch, Checkpoint(1))
    new = await other.journal.acquire(1)
    await store.snapshots.save(1, old.epoch, [StoredSnapshot("a", 2, b"stale")])
    await store.checkpoints.save("courier", 1, old.epoch, Checkpoint(2))
    [image] = await other.journal.load(1, ["a"])
    assert image.snapshot is None and await other.checkpoints.load("courier", 1) == Checkpoint(1)
    await other.checkpoints.save("courier", 1, new.epoch, Checkpoint(2))
    assert await other.checkpoints.load("courier", 1) == Checkpoint(2)


async def test_a_flush_cut_in_the_middle_is_made_up_for_and_never_goes_back(store: MongoStore, raw: Any) -> None:
    first = ViewBatch(1, 5, [conversation("a", 1, body=b"five")], [MessageRow("a", 1, b"five")])
    await store.views.apply(first)
    # As after a crash between rows and checkpoint: a later flush wrote its rows, and only those.
    await store.views.apply(
        ViewBatch(
            1, 9, [conversation("a", 1, body=b"nine")], [MessageRow("a", 1, b"nine"), MessageRow("a", 2, b"nine")]
        )
    )
    await raw[view_name("checkpoints")].update_one({"_id": 1}, {"$set": {"at": 5}})
    # A flush of the owner before lands late: newer than the checkpoint, older than the rows.
    await store.views.apply(ViewBatch(1, 7, [conversation("a", 1, body=b"seven")], [MessageRow("a", 2, b"seven")]))
    assert await store.views.conversation("t", "a") == b"nine"
    assert await store.views.message("a", 1) == b"nine" == await store.views.message("a", 2)
    await store.views.apply(ViewBatch(1, 12, [conversation("a", 1, body=b"twelve")], [MessageRow("a", 2, b"twelve")]))
    assert await store.views.conversation("t", "a") == b"twelve" == await store.views.message("a", 2)
    assert await store.views.checkpoint(1) == 12


async def test_documents_written_by_many_at_once_end_at_the_highest_revision(
    store: MongoStore, other: MongoStore
) -> None:
    from hub.ports import Document

    for round in range(5):
        puts = [
            home.documents.put([Document("channel", f"c{round}", "t", revision, b"%d" % revision)])
            for revision in range(1, 9)
            for home in (store, other)
        ]
        await asyncio.gather(*puts)
        found = await store.documents.get("channel", f"c{round}")
        assert found is not None and found.revision == 8


# --- opening ----------------------------------------------------------------------------------------------------------


async def test_many_processes_may_open_an_empty_store_at_once(url: str) -> None:
    stores = await asyncio.gather(*(MongoStore.open(url, 4) for _ in range(6)))
    assert {store.partitions for store in stores} == {4}
    for store in stores:
        await store.close()
    with pytest.raises(ValueError, match="created with 4 partitions, not 8"):
        await open_store(url, partitions=8)


async def test_an_index_that_is_missing_is_made_and_another_in_its_place_is_refused(
    store: MongoStore, url: str, raw: Any
) -> None:
    await raw["journal"].drop_index("by_stream")
    await (await MongoStore.open(url)).close()
    assert "by_stream" in await raw["journal"].index_information()
    await raw["claims"].drop_index("by_name")
    await raw["claims"].create_index([("kind", 1), ("id", 1)], name="by_name")
    with pytest.raises(ValueError, match=r"claims in MongoDB has another index in place of by_name on kind, id; drop"):
        await MongoStore.open(url)


async def test_a_store_moves_forward_one_version_at_a_time_and_never_back(
    store: MongoStore, url: str, raw: Any
) -> None:
    steps: list[int] = []

    async def second(database: Database) -> None:
        steps.append(2)
        await database["documents"].update_many({"body": {"$exists": False}}, {"$set": {"body": None}})

    async def third(database: Database) -> None:
        steps.append(3)

    database = await Database.connect(url)
    assert await asyncio.gather(*(prepare(database, None, (second, third)) for _ in range(3))) == [4, 4, 4]
    assert (await raw["meta"].find_one({"_id": "store"}))["schema"] == 3
    assert set(steps) == {2, 3}
    steps.clear()
    assert await prepare(database, None, (second, third)) == 4 and not steps
    await database.close()
    with pytest.raises(ValueError, match=r"made by a newer hub \(schema 3, ours is 1\)"):
        await MongoStore.open(url)


async def test_views_of_an_earlier_version_are_dropped_and_ours_begin_empty(
    store: MongoStore, url: str, raw: Any
) -> None:
    await raw["views0_messages"].insert_one({"_id": "old"})
    await (await MongoStore.open(url)).close()
    assert "views0_messages" not in await raw.list_collection_names()


async def test_a_bad_url_is_refused_in_one_line_without_its_password() -> None:
    for bad in ("mongodb://ana:se:cret@x/db", "mongodb://ana:secret@127.0.0.1:99999/db", "mongodb://"):
        with pytest.raises(ValueError, match="takes mongodb://USER:PASSWORD@HOST/NAME") as refused:
            await open_store(bad)
        assert "\n" not in str(refused.value) and "cret" not in str(refused.value)


async def test_a_server_that_is_not_there_is_said_promptly_without_the_password(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mongo_database_module._OPTIONS, "timeoutMS", 300)
    with pytest.raises(StoreUnavailable) as refused:
        await open_store("mongodb://ana:secret@127.0.0.1:1/db")
    assert "secret" not in str(refused.value) + caplog.text and "\n" not in str(refused.value)


async def test_a_question_the_server_does_not_understand_is_logged_as_a_defect(
    store: MongoStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(StoreUnavailable):
        async with store._database.answering():
            await store._database["meta"].find_one({"$nonsense": 1})
    assert "MongoDB refused" in caplog.text


async def test_calls_beyond_the_bound_are_turned_away_at_once(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_database_module, "CALLS_MAX_COUNT", 5)
    results = await asyncio.gather(*(store.journal.head(1) for _ in range(20)), return_exceptions=True)
    assert results.count(0) == 5
    assert sum(isinstance(result, StoreUnavailable) for result in results) == 15
    assert await store.journal.head(1) == 0


# --- a server that dies or hangs --------------------------------------------------------------------------------------


async def test_a_killed_server_comes_back_with_everything_acknowledged(
    server: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mongo_database_module._OPTIONS, "timeoutMS", 1_500)
    url = f"{server.url}/hub"
    store = await MongoStore.open(url, 4)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert writer.stdout is not None
    acknowledged = 0
    for _ in range(100):
        acknowledged = int(writer.stdout.readline())
    server.kill()
    acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
    assert writer.wait() != 0
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await store.journal.acquire(1)
    assert time.monotonic() - began < ANSWER_WITHIN_S
    server.start()
    owned = await _until_it_answers(store)
    assert owned.next_offset > acknowledged and (owned.next_offset - 1) % 7 == 0
    assert await offsets(store) == list(range(1, owned.next_offset))
    assert await append(store, owned.epoch, owned.next_offset, "s")
    await store.close()


async def _until_it_answers(store: MongoStore) -> Any:
    for _ in range(10):
        try:
            return await store.journal.acquire(1)
        except StoreUnavailable:
            continue
    raise AssertionError("the store did not heal")


async def test_a_frozen_server_is_an_error_in_seconds_and_what_it_still_does_later_is_accounted_for(
    server: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mongo_database_module._OPTIONS, "timeoutMS", 800)
    store = await MongoStore.open(f"{server.url}/hub", 4)
    owned = await store.journal.acquire(1)
    assert await append(store, owned.epoch, 1, "a")
    server.pause()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await append(store, owned.epoch, 2, "a")
    with pytest.raises(StoreUnavailable):
        await store.journal.acquire(1, owned.epoch)
    assert time.monotonic() - began < ANSWER_WITHIN_S
    server.resume()
    # What was sent before may land now; whether it did is what the new owner finds.
    for _ in range(20):
        try:
            again = await store.journal.acquire(1, owned.epoch)
            break
        except StoreUnavailable:
            continue
    assert again.next_offset in (2, 3)
    assert await append(store, again.epoch, again.next_offset, "b")
    assert await offsets(store) == list(range(1, again.next_offset + 1))
    await store.close()


async def test_a_killed_writer_lost_nothing_it_acknowledged(store: MongoStore, url: str) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = 0
    for _ in range(100):
        acknowledged = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
    writer.wait()
    owned = await store.journal.acquire(1)
    assert owned.next_offset > acknowledged and (owned.next_offset - 1) % 7 == 0
    assert await offsets(store) == list(range(1, owned.next_offset))
