"""A store moves from home to home, through every one there is and back, and stays the same."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hub.archive.compare import differences, digest
from hub.archive.sink import StoreWriter, check_empty
from hub.archive.source import read_store
from hub.storage import open_store
from tests.contract.homes import HOMES, fresh_home
from tests.unit.archive.made import AT, KEYRING, PARTITIONS, customer, records_of, small_store


async def test_a_store_moves_through_every_home_and_comes_back_the_same(tmp_path: Path) -> None:
    origin, writer = await small_store(customers=40)
    await writer.reply(1, 1, 3)
    await origin.journal.erase_key(customer(2, 2))
    first = await digest(read_store(origin, secret=KEYRING.fingerprint, now=AT))
    async with contextlib.AsyncExitStack() as opened:
        here = origin
        for home in [*HOMES, HOMES[0]]:
            url = await opened.enter_async_context(fresh_home(home, tmp_path / home))
            there = await open_store(url, partitions=PARTITIONS)
            opened.push_async_callback(there.close)
            await check_empty(there)
            moved = StoreWriter(there)
            await moved.write(read_store(here, secret=KEYRING.fingerprint, now=AT))
            await moved.finish()
            assert differences(first, await digest(read_store(there, secret=KEYRING.fingerprint, now=AT))) == [], home
            here = there
        assert await records_of(here) == await records_of(origin)
