"""What only the PostgreSQL home can show: its schema moves forward on a live store, and it refuses a server that could lose."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest

from hub.errors import StoreUnavailable
from hub.ports import (
    Append,
    Checkpoint,
    Claim,
    ConversationQuery,
    ConversationRow,
    CustomerRow,
    Document,
    MessageRow,
    StoredKey,
    StoredRecord,
    StoredSnapshot,
    ViewBatch,
)
from hub.storage import open_store
from hub.storage.postgres.address import Address
from hub.storage.postgres.database import APPEND_CONNECTIONS, READ_CONNECTIONS, WRITE_CONNECTIONS, Database
from hub.storage.postgres.migrate import migrate
from hub.storage.postgres.schema import HUB_VERSION, VIEWS_SCHEMA
from tests.servers.postgres import shared_postgres


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with shared_postgres().database() as url:
        yield url


async def sql(url: str, statement: str) -> list[asyncpg.Record]:
    return await shared_postgres().run(statement, url.rpartition("/")[2])


async def until(url: str, question: str, answer: object) -> None:
    while (await sql(url, question))[0][0] != answer:
        await asyncio.sleep(0.02)


async def store_at(url: str, version: int) -> None:
    """A store as a hub with that version of the schema left it; what is written here never changes."""
    connection = await Database(Address(url)).connect(limited=False)
    await migrate(connection, version)
    await connection.execute("""
        INSERT INTO hub.meta (name, value) VALUES ('partitions', '4');
        INSERT INTO hub.partitions (id, epoch, next_offset) VALUES (0, 0, 1), (1, 7, 4), (2, 0, 1), (3, 0, 1);
        INSERT INTO hub.journal (partition, "offset", stream, body)
            VALUES (1, 1, 'cus_a', 'one'), (1, 2, 'cus_b', 'two'), (1, 3, 'cus_a', 'three');
        INSERT INTO hub.stream_keys (stream, wrapped) VALUES ('cus_a', 'key of a'), ('cus_b', 'key of b');
        INSERT INTO hub.snapshots (stream, "offset", body) VALUES ('cus_a', 1, 'snapshot');
        INSERT INTO hub.checkpoints (reader, partition, epoch, "offset", data) VALUES ('courier', 1, 7, 2, 'in hand');
        INSERT INTO hub.documents (kind, id, tenant, revision, body)
            VALUES ('channel', 'c', 't', 2, 'channel'), ('channel', 'gone', 't', 3, NULL);
        INSERT INTO hub.claims (kind, id, owner) VALUES ('email', 'x@y.z', 't');
    """)
    await connection.close()


@pytest.mark.parametrize("version", range(1, HUB_VERSION))
async def test_a_store_of_every_earlier_schema_opens_with_all_it_had(url: str, version: int) -> None:
    await store_at(url, version)
    store = await open_store(url)
    assert await sql(url, "SELECT value FROM hub.meta WHERE name = 'schema'") == [(str(HUB_VERSION),)]
    assert store.partitions == 4 and await store.journal.head(1) == 3
    [image] = await store.journal.load(1, ["cus_a"])
    assert image.key == b"key of a" and image.snapshot == StoredSnapshot("cus_a", 1, b"snapshot")
    assert image.records == [StoredRecord(3, "cus_a", b"three")]
    assert [record.body for record in await store.journal.read(1, 0, 9)] == [b"one", b"two", b"three"]
    assert await store.journal.stream_keys("cus_a", 9) == [StoredKey("cus_b", b"key of b")]
    assert await store.checkpoints.load("courier", 1) == Checkpoint(2, b"in hand")
    channel = Document("channel", "c", "t", 2, b"channel")
    assert await store.documents.of_tenant("channel", "t") == [channel] == await store.documents.all(("", ""), 9)
    assert await store.documents.claims(("", ""), 9) == [Claim("email", "x@y.z", "t")]
    owned = await store.journal.acquire(1)
    assert owned.epoch == 8
    assert await store.journal.append([Append(1, 8, 4, [StoredRecord(4, "cus_a", b"four")])]) == [True]
    await store.close()


async def test_every_way_to_this_schema_ends_at_the_same_tables(url: str) -> None:
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable, collation_name FROM information_schema.columns "
        "WHERE table_schema = 'hub' ORDER BY 1, 2"
    )
    indexes = (
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'hub' AND indexname NOT IN "
        "(SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid) ORDER BY 1"
    )
    await (await open_store(url, partitions=4)).close()
    fresh = await sql(url, columns), await sql(url, indexes)
    assert fresh[0] and fresh[1]
    async with shared_postgres().database() as other:
        await store_at(other, 1)
        await (await open_store(other)).close()
        assert (await sql(other, columns), await sql(other, indexes)) == fresh


OLD_WRITER = """
import asyncio, sys
from hub.ports import Append, StoredRecord
from hub.storage.postgres.address import Address
from hub.storage.postgres.database import Database
from hub.storage.postgres.journal import PostgresJournal

async def main():
    journal = PostgresJournal(Database(Address(sys.argv[1])))
    owned = await journal.acquire(1)
    for offset in range(owned.next_offset, 1_000_000):
        ok = await journal.append([Append(1, owned.epoch, offset, [StoredRecord(offset, "s", b"x" * 3000)])])
        print(offset if ok == [True] else "refused", flush=True)

asyncio.run(main())
"""


async def test_the_schema_moves_forward_under_a_hub_that_goes_on_writing(url: str) -> None:
    await store_at(url, 1)
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", OLD_WRITER, url, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    acknowledged = [await writer.stdout.readline() for _ in range(20)]
    stores = await asyncio.gather(*(open_store(url) for _ in range(3)))
    acknowledged += [await writer.stdout.readline() for _ in range(20)]
    writer.kill()
    acknowledged += (await writer.stdout.read()).splitlines()
    await writer.wait()
    # Whoever failed or was refused would have stopped or said so.
    assert [int(line) for line in acknowledged] == list(range(4, 4 + len(acknowledged)))
    head = (await stores[0].journal.acquire(1)).next_offset - 1
    assert head >= int(acknowledged[-1])
    assert [r.offset for r in await stores[1].journal.read(1, 0, head + 1)] == list(range(1, head + 1))
    for store in stores:
        await store.close()


async def test_many_processes_may_create_one_store_at_once(url: str) -> None:
    stores = await asyncio.gather(*(open_store(url, partitions=4) for _ in range(4)))
    assert [store.partitions for store in stores] == [4] * 4
    for store in stores:
        await store.close()


async def test_a_change_of_the_schema_waits_for_a_table_without_making_others_wait(url: str) -> None:
    await store_at(url, 2)
    reader = await asyncpg.connect(url)
    await reader.execute("BEGIN; SELECT count(*) FROM hub.journal")  # such as a dump, which goes on for long
    opening = asyncio.create_task(open_store(url))
    journal_of_another = Database(Address(url))
    for _ in range(50):
        assert await journal_of_another.fetch("SELECT count(*) FROM hub.journal")
        await asyncio.sleep(0.01)
    assert not opening.done()
    await reader.execute("COMMIT")
    await (await opening).close()
    await reader.close()
    await journal_of_another.close()


async def test_a_store_of_a_newer_hub_is_refused_in_one_line(url: str) -> None:
    await (await open_store(url)).close()
    await sql(url, f"UPDATE hub.meta SET value = '{HUB_VERSION + 1}' WHERE name = 'schema'")
    with pytest.raises(ValueError, match=f"newer hub .schema {HUB_VERSION + 1}, ours is {HUB_VERSION}"):
        await open_store(url)


async def test_views_that_are_missing_are_made_anew_and_the_journal_stays(url: str) -> None:
    store = await open_store(url)
    owned = await store.journal.acquire(1)
    await store.journal.append([Append(1, owned.epoch, 1, [StoredRecord(1, "s", b"x")])])
    await store.views.apply(ViewBatch(1, 1))
    await store.close()
    await sql(url, f"DROP SCHEMA {VIEWS_SCHEMA} CASCADE")
    store = await open_store(url)
    assert await store.views.checkpoint(1) == 0 and await store.journal.head(1) == 1
    await store.close()


# --- opening ------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def server_setting(url: str, name: str, value: str) -> AsyncIterator[None]:
    before = (await sql(url, f"SHOW {name}"))[0][0]
    try:
        await sql(url, f"ALTER SYSTEM SET {name} = {value}")
        await sql(url, "SELECT pg_reload_conf()")
        await until(url, f"SHOW {name}", value)
        yield
    finally:
        await sql(url, f"ALTER SYSTEM RESET {name}")
        await sql(url, "SELECT pg_reload_conf()")
        await until(url, f"SHOW {name}", before)


@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
async def test_a_server_that_may_lose_what_it_acknowledged_is_refused(url: str, name: str) -> None:
    async with server_setting(url, name, "off"):
        with pytest.raises(ValueError, match=f"{name} = off.*set {name} = on"):
            await open_store(url)
    await (await open_store(url)).close()


async def test_whatever_the_database_says_appends_are_durable_when_they_return(url: str) -> None:
    await sql(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off")
    database = Database(Address(url))
    for lane in (database.appends, database.writes, database.reads):
        assert await lane.run(lambda connection: connection.fetchval("SHOW synchronous_commit")) == "on"
    await database.close()


async def test_a_database_that_does_not_exist_is_created() -> None:
    server = shared_postgres()
    stores = await asyncio.gather(*(open_store(f"{server.url}/made-by-the-hub", partitions=2) for _ in range(3)))
    assert [store.partitions for store in stores] == [2, 2, 2]
    for store in stores:
        await store.close()
    await server.run('DROP DATABASE "made-by-the-hub"')


async def test_who_may_not_create_is_told_what_to_ask_for(url: str) -> None:
    await sql(url, "CREATE ROLE nobody_special LOGIN")
    try:
        mine = url.replace("postgres@", "nobody_special:hidden@")
        with pytest.raises(ValueError, match='run CREATE DATABASE "other" OWNER "nobody_special"') as refused:
            await open_store(mine.rpartition("/")[0] + "/other")
        assert "hidden" not in str(refused.value)
        with pytest.raises(ValueError, match="make user nobody_special the owner of the database"):
            await open_store(mine)
    finally:
        await sql(url, "DROP ROLE nobody_special")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("postgresql://u:hidden@host:5432", "names no database"),
        ("postgresql://u:hidden@host:5432/", "names no database"),
        ("postgresql://u:hid@den#1@host:5432/name", "names no database|cannot be read"),
        ("postgresql://u:x@y:hidden@host:hidden/name", "cannot be read"),
        ("postgresql://u:hidden@127.0.0.1:1/name?sslmode=hidden", "sslmode"),
    ],
)
async def test_a_wrong_url_is_refused_in_one_line_without_its_password(wrong: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        await open_store(wrong)
    assert "\n" not in str(refused.value) and "u:hid" not in str(refused.value)


async def test_an_absent_server_is_unavailable_and_the_password_is_not_told() -> None:
    with pytest.raises(StoreUnavailable) as away:
        await open_store("postgresql://u:hidden@127.0.0.1:1/name")
    assert "hidden" not in str(away.value)
    assert repr(Address("postgresql://u:hidden@host/name")) == "postgresql://u@host/name"


# --- what goes wrong --------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_a_retryable_error_and_nothing_is_half_written(url: str) -> None:
    store = await open_store(url)
    owned = await store.journal.acquire(1)
    append = Append(1, owned.epoch, 1, [StoredRecord(1, "s", b"x")], [StoredKey("s", b"k")])
    await sql(
        url,
        "CREATE FUNCTION hub.full() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; END$$",
    )
    await sql(url, "CREATE TRIGGER disk BEFORE INSERT ON hub.journal FOR EACH ROW EXECUTE FUNCTION hub.full()")
    with pytest.raises(StoreUnavailable, match="No space left"):
        await store.journal.append([append])
    await sql(url, "DROP TRIGGER disk ON hub.journal")
    assert await store.journal.head(1) == 0 and await store.journal.keys(["s"]) == {}
    assert await store.journal.append([append]) == [True]
    await store.close()


async def test_a_read_only_server_is_a_retryable_error(url: str) -> None:
    store = await open_store(url)
    owned = await store.journal.acquire(1)
    name = url.rpartition("/")[2]
    await shared_postgres().run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailable, match="read-only"):
        await store.journal.append([Append(1, owned.epoch, 1, [StoredRecord(1, "s", b"x")])])
    await shared_postgres().run(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert await store.journal.append([Append(1, owned.epoch, 1, [StoredRecord(1, "s", b"x")])]) == [True]
    await store.close()


async def test_a_defect_is_logged_as_one_and_quotes_nobody(url: str, caplog: pytest.LogCaptureFixture) -> None:
    store = await open_store(url)
    await sql(url, "ALTER TABLE hub.documents ADD CONSTRAINT none CHECK (tenant = '')")
    document = Document("channel", "c", "private words", 1, b"")
    with caplog.at_level(logging.ERROR, "hub.postgres"), pytest.raises(StoreUnavailable) as refused:
        await store.documents.put([document])
    assert "retrying will not help" in caplog.text and "23514" in caplog.text
    assert "private words" not in caplog.text + str(refused.value)
    await store.close()


async def test_connections_are_few_however_many_ask(url: str) -> None:
    store = await open_store(url)
    await asyncio.gather(*(store.journal.head(1) for _ in range(200)), *(store.journal.acquire(1) for _ in range(200)))
    question = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{url.rpartition('/')[2]}'"
    [[count]] = await shared_postgres().run(question)
    assert count <= APPEND_CONNECTIONS + WRITE_CONNECTIONS + READ_CONNECTIONS
    await store.close()


async def test_what_people_write_can_always_be_stored(url: str) -> None:
    """U+0000 cannot be in PostgreSQL's text; one such message must not stop the lists for ever."""
    store = await open_store(url)
    row = ConversationRow(
        id="c", tenant="t", partition=1, customer="k", channel="ch", status="open", priority="none", assignee="a\0b",
        team="\0", labels=["v\0p"], created_at=1, updated_at=1, wake_at=None, search="nul \0 here", body=b"\0",
    )  # fmt: skip
    customer = CustomerRow("k", "t", 1, "nul \0", 1, b"\0")
    await store.views.apply(ViewBatch(1, 1, [row], [MessageRow("c", 1, b"\0")], [customer]))
    for wanted in ({"label": "v\0p"}, {"assignee": "a\0b"}, {"text": "nul \0"}):
        [found] = await store.views.conversations(ConversationQuery(tenant="t", **wanted))  # type: ignore[arg-type]
        assert found.body == b"\0"
    assert await store.documents.owner("email", "x\0y") is None
    assert await store.documents.claim("email", "x\0y", "t") == "t"
    await store.close()
