"""What every home of the ports promises; see `hub/ports.py`. One suite, all homes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.errors import Fenced, StoreUnavailable
from hub.ports import (
    Append,
    Checkpoint,
    Claim,
    ConversationQuery,
    ConversationRow,
    CustomerRow,
    Document,
    MessageRow,
    Store,
    StoredKey,
    StoredRecord,
    StoredSnapshot,
    ViewBatch,
)
from hub.storage import open_store
from tests.contract.homes import DURABLE_HOMES, HOMES, SERVED_HOMES, fresh_home, server_of
from tests.processes import freeze

UNAVAILABLE_WITHIN_S = 8.0


@pytest.fixture(params=HOMES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with fresh_home(request.param, tmp_path) as url:
        opened = await open_store(url, partitions=4)
        yield opened
        await opened.close()


def records(first: int, *streams: str, body: bytes = b"x") -> list[StoredRecord]:
    return [StoredRecord(first + n, stream, body) for n, stream in enumerate(streams)]


async def append(store: Store, epoch: int, first: int, *streams: str, partition: int = 1) -> bool:
    [ok] = await store.journal.append([Append(partition, epoch, first, records(first, *streams))])
    return ok


async def test_a_new_owner_fences_the_old_one(store: Store) -> None:
    old = await store.journal.acquire(1)
    assert (old.next_offset, await append(store, old.epoch, 1, "a")) == (1, True)
    new = await store.journal.acquire(1)
    assert new.epoch > old.epoch and new.next_offset == 2
    assert await append(store, old.epoch, 2, "a") is False
    assert await append(store, new.epoch, 2, "a") is True
    assert [r.offset for r in await store.journal.read(1, 0, 10)] == [1, 2]


async def test_ownership_can_be_renewed_only_while_nobody_else_took_it(store: Store) -> None:
    mine = await store.journal.acquire(1)
    again = await store.journal.acquire(1, mine.epoch)
    assert again.epoch == mine.epoch + 1
    with pytest.raises(Fenced):
        await store.journal.acquire(1, mine.epoch)


async def test_an_append_that_does_not_continue_the_journal_is_refused(store: Store) -> None:
    owned = await store.journal.acquire(1)
    assert await append(store, owned.epoch, 2, "a") is False
    assert await append(store, owned.epoch, 1, "a", "b") is True
    assert await append(store, owned.epoch, 2, "c") is False
    assert await store.journal.head(1) == 2


async def test_one_partition_refused_does_not_touch_the_others(store: Store) -> None:
    one, two = await store.journal.acquire(1), await store.journal.acquire(2)
    appends = [
        Append(1, one.epoch - 1, 1, records(1, "a"), [StoredKey("a", b"k")]),
        Append(2, two.epoch, 1, records(1, "b"), [StoredKey("b", b"k")]),
    ]
    assert await store.journal.append(appends) == [False, True]
    assert await store.journal.head(1) == 0 and await store.journal.head(2) == 1
    assert await store.journal.keys(["a", "b"]) == {"b": b"k"}


async def test_a_stream_is_loaded_from_its_snapshot_on(store: Store) -> None:
    owned = await store.journal.acquire(1)
    keys = [StoredKey("a", b"key")]
    await store.journal.append([Append(1, owned.epoch, 1, records(1, "a", "b", "a", "a"), keys)])
    await store.snapshots.save(1, owned.epoch, [StoredSnapshot("a", 3, b"three")])
    await store.snapshots.save(1, owned.epoch, [StoredSnapshot("a", 1, b"one")])
    await store.snapshots.save(1, owned.epoch - 1, [StoredSnapshot("a", 4, b"stale owner")])
    a, nobody = await store.journal.load(1, ["a", "nobody"])
    assert a.key == b"key" and a.snapshot == StoredSnapshot("a", 3, b"three")
    assert [r.offset for r in a.records] == [4]
    assert nobody.key is None and nobody.snapshot is None and nobody.records == []
    assert [r.offset for r in await store.journal.history(1, "a", 1, 10)] == [3, 4]
    assert [r.offset for r in await store.journal.history(1, "a", 0, 2)] == [1, 3]


async def test_erasing_a_key_takes_the_snapshot_with_it(store: Store) -> None:
    owned = await store.journal.acquire(1)
    await store.journal.append([Append(1, owned.epoch, 1, records(1, "a"), [StoredKey("a", b"key")])])
    await store.snapshots.save(1, owned.epoch, [StoredSnapshot("a", 1, b"s")])
    await store.journal.erase_key("a")
    [image] = await store.journal.load(1, ["a"])
    assert image.key is None and image.snapshot is None and len(image.records) == 1


async def test_checkpoints_belong_to_the_owner(store: Store) -> None:
    owned = await store.journal.acquire(1)
    assert await store.checkpoints.load("courier", 1) == Checkpoint(0)
    await store.checkpoints.save("courier", 1, owned.epoch, Checkpoint(7, b"in hand"))
    await store.checkpoints.save("courier", 1, owned.epoch - 1, Checkpoint(9))
    assert await store.checkpoints.load("courier", 1) == Checkpoint(7, b"in hand")
    assert await store.checkpoints.load("courier", 2) == Checkpoint(0)


async def test_documents_never_go_back_in_revision(store: Store) -> None:
    await store.documents.put([Document("channel", "c", "t", 2, b"two")])
    await store.documents.put([Document("channel", "c", "t", 1, b"one")])
    found = await store.documents.get("channel", "c")
    assert found is not None and found.body == b"two"
    await store.documents.remove("channel", "c", 1)
    assert await store.documents.get("channel", "c") is not None
    await store.documents.remove("channel", "c", 3)
    await store.documents.put([Document("channel", "c", "t", 3, b"replayed")])
    assert await store.documents.get("channel", "c") is None
    assert await store.documents.of_tenant("channel", "t") == []
    await store.documents.put([Document("channel", "c", "t", 4, b"four"), Document("channel", "a", "t", 1, b"a")])
    assert [d.id for d in await store.documents.of_tenant("channel", "t")] == ["a", "c"]
    assert await store.documents.of_tenant("channel", "other") == []


async def test_a_name_is_claimed_once(store: Store) -> None:
    assert await store.documents.owner("email", "x@y.z") is None
    owners = await asyncio.gather(*(store.documents.claim("email", "x@y.z", f"tenant{n}") for n in range(20)))
    assert len(set(owners)) == 1
    assert await store.documents.owner("email", "x@y.z") == owners[0]


ODD_NAMES = ["Z", "a", "a-", "a-b", "a_b", "ab", "ten_x", "ñ", "\U0001f511"]
"""In the order of their code points, which is no language's."""


async def test_every_key_is_listed_by_name(store: Store) -> None:
    assert await store.journal.stream_keys("", 10) == []
    owned = await store.journal.acquire(1)
    keys = [StoredKey(name, name.encode()) for name in ODD_NAMES]
    await store.journal.append([Append(1, owned.epoch, 1, records(1, *reversed(ODD_NAMES)), keys[::-1])])
    assert await store.journal.stream_keys("", 100) == keys
    assert await store.journal.stream_keys("a-", 2) == keys[3:5]
    assert await store.journal.stream_keys("a-a", 1) == keys[3:4]
    await store.journal.erase_key("a-b")
    assert await store.journal.stream_keys("a-", 2) == keys[4:6]
    assert await store.journal.stream_keys(ODD_NAMES[-1], 2) == []


async def test_every_document_and_claim_is_listed_by_kind_and_id(store: Store) -> None:
    assert await store.documents.all(("", ""), 10) == [] == await store.documents.claims(("", ""), 10)
    names = [(kind, id) for kind in ("agent", "channel") for id in ODD_NAMES]
    made = [Document(kind, id, "t", 1, b"body of " + id.encode()) for kind, id in names]
    await store.documents.put(made[::-1])
    await store.documents.remove("agent", "ab", 2)
    await store.documents.remove("team", "never there", 1)
    for kind, id in reversed(names):
        await store.documents.claim(kind, id, f"owner of {id}")
    there = [document for document in made if (document.kind, document.id) != ("agent", "ab")]
    assert await store.documents.all(("", ""), 100) == there
    assert await store.documents.all(("agent", "a_b"), 3) == there[5:8]
    claims = [Claim(kind, id, f"owner of {id}") for kind, id in names]
    assert await store.documents.claims(("", ""), 100) == claims
    assert await store.documents.claims(("agent", ODD_NAMES[-1]), 2) == claims[9:11]
    paged: list[Claim] = []
    while page := await store.documents.claims((paged[-1].kind, paged[-1].id) if paged else ("", ""), 4):
        paged += page
    assert paged == claims


def conversation(id: str, at: int, **changes: object) -> ConversationRow:
    row = ConversationRow(
        id=id, tenant="t", partition=1, customer="c", channel="ch", status="open", priority="none", assignee=None,
        team=None, labels=[], created_at=at, updated_at=at, wake_at=None, search=f"name of {id}", body=id.encode(),
    )  # fmt: skip
    for name, value in changes.items():
        setattr(row, name, value)
    return row


async def test_views_are_applied_once_and_in_order(store: Store) -> None:
    await store.views.apply(ViewBatch(1, 5, [conversation("a", 1)], [MessageRow("a", 1, b"m")]))
    await store.views.apply(ViewBatch(1, 5, [conversation("a", 1, body=b"replayed")]))
    await store.views.apply(ViewBatch(1, 3, [conversation("a", 1, body=b"older")]))
    assert await store.views.checkpoint(1) == 5 and await store.views.checkpoint(2) == 0
    assert await store.views.conversation("t", "a") == b"a"
    assert await store.views.conversation("other", "a") is None
    assert await store.views.message("a", 1) == b"m" and await store.views.message("a", 2) is None


async def test_pages_neither_skip_nor_repeat_though_times_are_equal(store: Store) -> None:
    rows = [conversation(f"c{n:02}", 100 + n // 7) for n in range(30)]
    await store.views.apply(ViewBatch(1, 1, rows))
    for ascending in (False, True):
        seen: list[str] = []
        before = None
        while True:
            query = ConversationQuery(tenant="t", ascending=ascending, before=before, limit=4)
            page = await store.views.conversations(query)
            if not page:
                break
            seen += [row.id for row in page]
            before = (page[-1].updated_at, page[-1].id)
        assert seen == sorted((row.id for row in rows), reverse=not ascending)


async def test_every_filter(store: Store) -> None:
    rows = [
        conversation("a", 1, status="resolved", labels=["vip", "100%"]),
        conversation("b", 2, assignee="ana", team="ventas", priority="high"),
        conversation("c", 3, channel="other", customer="d", search="50%_off ñandú"),
        conversation("x", 4, tenant="u"),
    ]
    await store.views.apply(ViewBatch(1, 1, rows))

    async def ids(**wanted: object) -> str:
        found = await store.views.conversations(ConversationQuery(tenant="t", **wanted))  # type: ignore[arg-type]
        return "".join(row.id for row in found)

    assert await ids() == "cba"
    assert await ids(status="resolved") == "a"
    assert await ids(label="vip") == "a" and await ids(label="100%") == "a" and await ids(label="vi") == ""
    assert await ids(assignee="ana") == "b" and await ids(unassigned=True) == "ca"
    assert await ids(team="ventas") == "b" and await ids(priority="high") == "b"
    assert await ids(channel="other") == "c" and await ids(customer="d") == "c"
    assert await ids(text="50%_off") == "c" and await ids(text="%") == "c" and await ids(text="ñandú") == "c"
    [row] = await store.views.conversations(ConversationQuery(tenant="t", status="resolved"))
    assert row == rows[0]


async def test_messages_page_both_ways(store: Store) -> None:
    await store.views.apply(ViewBatch(1, 1, messages=[MessageRow("a", n, b"%d" % n) for n in range(1, 11)]))

    async def seqs(before: int | None = None, after: int | None = None) -> list[int]:
        return [row.seq for row in await store.views.messages("a", before=before, after=after, limit=3)]

    assert await seqs() == [8, 9, 10]
    assert await seqs(before=8) == [5, 6, 7]
    assert await seqs(after=0) == [1, 2, 3] and await seqs(after=9) == [10]
    assert await seqs(before=3, after=0) == [1, 2]


async def test_timers_and_customers(store: Store) -> None:
    rows = [conversation("a", 1, wake_at=50), conversation("b", 2)]
    customers = [CustomerRow(f"c{n}", "t", 1, f"person {n}", 5, b"%d" % n) for n in range(5)]
    await store.views.apply(ViewBatch(1, 1, rows, [], customers))
    assert await store.views.timers(1) == [("a", 50)] and await store.views.timers(2) == []
    page = await store.views.customers("t", text=None, before=None, limit=2)
    assert [row.id for row in page] == ["c4", "c3"]
    page = await store.views.customers("t", text="person", before=(5, "c3"), limit=9)
    assert [row.id for row in page] == ["c2", "c1", "c0"]
    assert await store.views.customer("t", "c1") == b"1" and await store.views.customer("u", "c1") is None


# --- what only a durable home can show ------------------------------------------------------------------------------


@pytest.mark.parametrize("home", DURABLE_HOMES)
async def test_a_reopened_store_has_everything_and_keeps_its_partition_count(home: str, tmp_path: Path) -> None:
    async with fresh_home(home, tmp_path) as url:
        first = await open_store(url, partitions=4)
        owned = await first.journal.acquire(1)
        assert await append(first, owned.epoch, 1, "a")
        await first.views.apply(ViewBatch(1, 1, [conversation("a", 1)]))
        await first.close()
        with pytest.raises(ValueError, match="4 partitions"):
            await open_store(url, partitions=8)
        second = await open_store(url)
        assert second.partitions == 4 and await second.journal.head(1) == 1
        assert await second.views.checkpoint(1) == 1 and await second.views.conversation("t", "a") == b"a"
        await second.close()


async def test_damaged_views_are_made_anew(tmp_path: Path) -> None:
    first = await open_store(f"sqlite://{tmp_path}", partitions=4)
    await first.views.apply(ViewBatch(1, 1, [conversation("a", 1)]))
    await first.close()
    (tmp_path / "views.db").write_bytes(b"not a database at all, but long enough to look at")
    for leftover in ("views.db-wal", "views.db-shm"):
        (tmp_path / leftover).unlink(missing_ok=True)
    second = await open_store(f"sqlite://{tmp_path}")
    assert await second.views.checkpoint(1) == 0  # the journal fills them again
    await second.close()


async def test_a_full_disk_is_a_retryable_error_and_nothing_is_half_written(tmp_path: Path) -> None:
    from hub.storage.sqlite.store import SqliteStore

    store = await SqliteStore.open(tmp_path, 4)
    owned = await store.journal.acquire(1)
    await store._hub.write(lambda c: c.execute("PRAGMA max_page_count = 40").fetchall())
    first = 1
    with pytest.raises(StoreUnavailable):
        while True:
            batch = Append(1, owned.epoch, first, records(first, "a", "b", body=b"x" * 9000))
            assert await store.journal.append([batch]) == [True]
            first += 2
    assert await store.journal.head(1) == first - 1
    await store._hub.write(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchall())
    assert await append(store, owned.epoch, first, "a") is True
    await store.close()


WRITER = """
import asyncio, sys
from hub.ports import Append, StoredRecord
from hub.storage import open_store

async def main():
    store = await open_store(sys.argv[1])
    owned = await store.journal.acquire(1)
    offset = owned.next_offset
    while True:
        batch = [StoredRecord(offset + n, "s", b"x" * 200) for n in range(7)]
        if await store.journal.append([Append(1, owned.epoch, offset, batch)]) == [False]:
            print("refused", flush=True)
            return
        offset += 7
        print(offset - 1, flush=True)

asyncio.run(main())
"""


def writer(url: str) -> subprocess.Popen[str]:
    """A process that appends to partition 1, seven records at a time, and prints what was acknowledged."""
    return subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("home", DURABLE_HOMES)
async def test_a_writer_killed_in_the_middle_lost_nothing_it_acknowledged(home: str, tmp_path: Path) -> None:
    async with fresh_home(home, tmp_path) as url:
        await (await open_store(url, partitions=4)).close()
        process = writer(url)
        assert process.stdout is not None
        acknowledged = 0
        for _ in range(200):
            acknowledged = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait()
        acknowledged = int(rest[-1]) if rest else acknowledged
        store = await open_store(url)
        # A served home may still be finishing the last append; taking the partition waits for it.
        head = (await store.journal.acquire(1)).next_offset - 1
        assert head >= acknowledged and head % 7 == 0
        found = await store.journal.read(1, 0, head + 1)
        assert [record.offset for record in found] == list(range(1, head + 1))
        await store.close()


@pytest.mark.parametrize("home", SERVED_HOMES)
async def test_a_writer_that_stood_still_while_another_took_over_is_refused(home: str, tmp_path: Path) -> None:
    async with fresh_home(home, tmp_path) as url:
        store = await open_store(url, partitions=4)
        process = writer(url)
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        freeze(process.pid)
        owned = await store.journal.acquire(1)  # at once: a process that stands still holds no lock
        assert await append(store, owned.epoch, owned.next_offset, "taken over")
        os.kill(process.pid, signal.SIGCONT)
        answers = process.stdout.read().split()
        process.wait()
        acknowledged = [int(answer) for answer in answers[:-1]]
        assert answers[-1] == "refused" and all(offset < owned.next_offset for offset in acknowledged)
        assert await store.journal.head(1) == owned.next_offset
        await store.close()


# --- what only a home in a server of its own can show ---------------------------------------------------------------


async def write_through_it_all(store: Store, acknowledged: list[bytes], enough: asyncio.Event) -> None:
    """As a shard does: after every failure the partition is taken anew, and what was not acknowledged is forgotten."""
    serial, owned, offset = 0, None, 0
    while not enough.is_set():
        serial += 1
        try:
            if owned is None:
                owned = await store.journal.acquire(1)
                offset = owned.next_offset
            body = b"%d" % serial
            assert await store.journal.append([Append(1, owned.epoch, offset, records(offset, "s", body=body))]) == [
                True
            ]
        except StoreUnavailable:
            owned = None
            await asyncio.sleep(0.05)
            continue
        acknowledged.append(body)
        offset += 1


async def grown(acknowledged: list[bytes], by: int) -> None:
    goal = len(acknowledged) + by
    while len(acknowledged) < goal:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("home", SERVED_HOMES)
async def test_a_database_that_dies_and_comes_back_lost_nothing_it_acknowledged(
    home: str, how: str, tmp_path: Path
) -> None:
    server = server_of(home)
    async with fresh_home(home, tmp_path) as url:
        store = await open_store(url, partitions=4)
        acknowledged: list[bytes] = []
        enough = asyncio.Event()
        writing = asyncio.create_task(write_through_it_all(store, acknowledged, enough))
        await grown(acknowledged, 50)
        await asyncio.to_thread(getattr(server, how))
        with pytest.raises(StoreUnavailable):
            await store.journal.head(1)
        await asyncio.to_thread(server.start)
        await grown(acknowledged, 50)
        enough.set()
        await writing
        bodies = [record.body for record in await store.journal.read(1, 0, 10_000)]
        assert len(set(bodies)) == len(bodies) and set(acknowledged) <= set(bodies)
        assert [body for body in bodies if body in set(acknowledged)] == acknowledged
        await store.close()


@pytest.mark.parametrize("home", SERVED_HOMES)
async def test_a_database_that_stands_still_is_unavailable_soon_and_heals(home: str, tmp_path: Path) -> None:
    server = server_of(home)
    async with fresh_home(home, tmp_path) as url:
        store = await open_store(url, partitions=4)
        owned = await store.journal.acquire(1)
        assert await append(store, owned.epoch, 1, "a")
        await asyncio.to_thread(server.pause)
        try:
            began = time.monotonic()
            calls = [append(store, owned.epoch, 2, "b"), *(store.journal.head(1) for _ in range(2_000))]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - began < UNAVAILABLE_WITHIN_S
            assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
        finally:
            await asyncio.to_thread(server.resume)
        renewed = await store.journal.acquire(1)
        assert renewed.next_offset in (2, 3)
        assert await append(store, owned.epoch, renewed.next_offset, "c") is False
        assert await append(store, renewed.epoch, renewed.next_offset, "c") is True
        assert await store.journal.head(1) == renewed.next_offset
        await store.close()


async def test_a_url_nobody_knows_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="takes sqlite:///FOLDER, postgresql"):
        await open_store("oracle://x")
    with pytest.raises(ValueError, match="postgresql") as refused:
        await open_store("postgresql+psycopg://somebody:secret@host/name")
    assert "secret" not in str(refused.value)
