"""Group commit: one journal write at a time for all partitions of a shard.

What is decided while a write is under way goes into the next one, so batches grow with load and an idle
hub commits at once. No timer, nothing to tune.
"""

from __future__ import annotations

import asyncio
import logging
import time

from actors.partition import Partition
from hub.errors import StoreUnavailable
from hub.ports import Append, Journal

log = logging.getLogger("hub.commit")

APPEND_TIMEOUT_S = 10.0


class Committer:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._dirty: dict[int, Partition] = {}
        self._wake = asyncio.Event()
        self.commits = 0
        self.events = 0
        self.failures = 0
        self.seconds = 0.0

    def wake(self, partition: Partition) -> None:
        self._dirty[partition.number] = partition
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            # One turn of the loop: what this tick still decides joins this very commit.
            await asyncio.sleep(0)
            self._wake.clear()
            dirty, self._dirty = self._dirty, {}
            sealed = [(p, append) for p in dirty.values() if (append := p.seal_batch()) is not None]
            if sealed:
                await self._commit([p for p, _ in sealed], [append for _, append in sealed])

    async def _commit(self, partitions: list[Partition], appends: list[Append]) -> None:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(APPEND_TIMEOUT_S):
                outcomes = await self._journal.append(appends)
        except Exception as error:
            # Whatever it is, nobody knows what was written; and this loop must not die of it.
            if not isinstance(error, StoreUnavailable | TimeoutError):
                log.exception("the store broke its contract")
            self.failures += 1
            log.error("a commit of %d events failed: %s", sum(len(a.records) for a in appends), error or "timeout")
            failure = error if isinstance(error, StoreUnavailable) else StoreUnavailable()
            failure.retry_after_s = failure.retry_after_s or 0.1
            for partition in partitions:
                partition.commit_failed(failure)
            return
        self.commits += 1
        self.events += sum(len(append.records) for append in appends)
        self.seconds += time.perf_counter() - began
        for partition, ok in zip(partitions, outcomes, strict=True):
            if ok:
                partition.committed()
            else:
                partition.fenced()
