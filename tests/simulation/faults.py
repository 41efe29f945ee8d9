"""A store that fails: slow, refusing, losing its answers, writing late, and taking its caller down with it.

What it says it wrote is written, and what it never wrote is never there: those two promises are all that the
hub may build upon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

import msgspec

from actors.commit import APPEND_TIMEOUT_S
from hub.errors import StoreUnavailable
from hub.ports import Append, Checkpoint, Document, Ownership, StoredRecord, StoredSnapshot, StreamImage, ViewBatch
from hub.storage.memory import MemoryStore, MemoryViews
from tests.simulation.history import History
from tests.simulation.loop import PROCESS, VirtualLoop, run_now

T = TypeVar("T")


class Weather(msgspec.Struct):
    """How likely each kind of failure is in one call, while there is a storm."""

    refuse: float = 0.0
    """Nothing happens, and it says so."""
    lose_answer: float = 0.0
    """It happens, and the caller is told that it did not."""
    late: float = 0.0
    """An append that outlives its caller's patience and lands afterwards."""
    crash: float = 0.0
    """The calling process dies before, or after, the call took effect."""
    slow: float = 0.0
    slow_max_s: float = 0.0
    read_fails: float = 0.0
    side_fails: float = 0.0
    """Views, documents, snapshots and checkpoints, which may fail apart from the journal."""


CALM = Weather()

GHOST = "a ghost"


class FaultyStore:
    """All ports of `inner`, seen through the weather."""

    def __init__(self, inner: MemoryStore, *, loop: VirtualLoop, rng: Random, history: History) -> None:
        self.inner = inner
        self.partitions = inner.partitions
        self.weather = CALM
        self.cut_off: set[str] = set()
        """Roles of processes that cannot reach the store."""
        self.holders: dict[int, tuple[int, str]] = {}
        """Of each partition: the newest epoch, and the process that took it."""
        self.hangs_until_s = 0.0
        """Until then somebody may wait for a write that hangs, and everything else of that shard with it."""
        self._loop = loop
        self._rng = rng
        self._history = history
        self.journal = FaultyJournal(self)
        self.snapshots = FaultySnapshots(self)
        self.checkpoints = FaultyCheckpoints(self)
        self.documents = FaultyDocuments(self)
        self.views = FaultyViews(self)

    async def close(self) -> None:
        pass

    def lose_derived(self, *, views: bool, snapshots: bool) -> None:
        """What may be lost without losing a message. Only while nobody is running."""
        if views:
            self.inner.views = MemoryViews()
        if snapshots:
            self.inner.journal.snapshots.clear()

    def draws(self, rate: float) -> bool:
        return rate > 0 and self._rng.random() < rate

    async def delay(self) -> None:
        process = PROCESS.get()
        if process is not None and process.role in self.cut_off:
            await asyncio.sleep(self._rng.uniform(0.05, 3.0))
            raise self.failed(f"cannot be reached by {process.name}")
        slow = self.draws(self.weather.slow)
        await asyncio.sleep(self._rng.uniform(0, self.weather.slow_max_s) if slow else self._rng.uniform(0, 0.004))

    def ghost(self, partition: int) -> None:
        """Somebody takes a partition and is never heard of again."""
        self.took(partition, run_now(self.inner.journal.acquire(partition)), GHOST)

    def took(self, partition: int, owned: Ownership, who: str) -> None:
        self._history.note(f"{who} takes partition {partition}, epoch {owned.epoch}")
        epoch, before = self.holders.get(partition, (0, "nobody"))
        if owned.epoch <= epoch:
            self._history.broken.append(f"{who} took partition {partition} with epoch {owned.epoch}, as {before} had")
        self.holders[partition] = (owned.epoch, who)

    def landed(self, append: Append, who: str) -> None:
        """Only the process that took the newest epoch may write, and only under that."""
        if self.holders.get(append.partition) != (append.epoch, who):
            self._history.broken.append(
                f"{who} wrote to partition {append.partition} under epoch {append.epoch}, "
                f"which is held by {self.holders.get(append.partition)}"
            )

    def failed(self, what: str) -> StoreUnavailable:
        self._history.trouble(f"store {what}")
        return StoreUnavailable(f"simulated: {what}")

    async def crash(self, what: str) -> None:
        """The process that called does not live to see the answer."""
        process = PROCESS.get()
        if process is None:
            return
        self._history.trouble(f"{process.name} crashes {what}")
        process.kill()
        await self._loop.create_future()

    async def read(self, work: Callable[[], Coroutine[Any, Any, T]], what: str, rate: float | None = None) -> T:
        """A read sees the store as it is at some moment between the question and the answer."""
        early = self._rng.random() < 0.5
        found = run_now(work()) if early else None
        await self.delay()
        if self.draws(self.weather.read_fails if rate is None else rate):
            raise self.failed(what)
        return found if early else run_now(work())  # type: ignore[return-value]

    async def write(self, work: Callable[[], Coroutine[Any, Any, T]], what: str, rate: float) -> T:
        await self.delay()
        if self.draws(self.weather.crash / 4):
            await self.crash(f"before {what}")
        if self.draws(rate):
            if self._rng.random() < 0.5:
                run_now(work())
            raise self.failed(what)
        done = run_now(work())
        await self.delay()
        return done

    def later(self, delay_s: float, work: Callable[[], object]) -> None:
        """In the store's own time: no process has a hand in it."""
        asyncio.BaseEventLoop.call_at(self._loop, self._loop.time() + delay_s, work)


def caller() -> str:
    process = PROCESS.get()
    return process.name if process is not None else "nobody"


class FaultyJournal:
    def __init__(self, store: FaultyStore) -> None:
        self._store = store

    @property
    def _inner(self) -> Any:
        return self._store.inner.journal

    async def acquire(self, partition: int, expected_epoch: int | None = None) -> Ownership:
        store = self._store
        await store.delay()
        if store.draws(store.weather.refuse):
            raise store.failed("acquire refused")
        owned: Ownership = run_now(self._inner.acquire(partition, expected_epoch))
        store.took(partition, owned, caller())
        if store.draws(store.weather.lose_answer):
            raise store.failed("acquire answer lost")
        await store.delay()
        return owned

    async def append(self, appends: list[Append]) -> list[bool]:
        store = self._store
        await store.delay()
        if store.draws(store.weather.crash):
            await store.crash("before its append")
        if store.draws(store.weather.refuse):
            raise store.failed("append refused")
        if store.draws(store.weather.late):
            await self._outlive(appends)
        if store.draws(store.weather.lose_answer):
            for append in appends:
                if store.draws(0.7):
                    self._append([append], caller())
            raise store.failed("append answer lost")
        outcomes = self._append(appends, caller())
        if store.draws(store.weather.crash):
            await store.crash("after its append")
        await store.delay()
        return outcomes

    def _append(self, appends: list[Append], who: str) -> list[bool]:
        outcomes: list[bool] = run_now(self._inner.append(appends))
        for append, landed in zip(appends, outcomes, strict=True):
            if landed:
                self._store.landed(append, who)
        return outcomes

    async def _outlive(self, appends: list[Append]) -> None:
        """Keep the caller waiting until it gives up; the write lands some time around then."""
        store = self._store
        lands_s = APPEND_TIMEOUT_S + store._rng.choice([-1.0, -0.0001, 0.0, 0.001, 0.003, 0.01, 0.06, 0.3, 2.0])
        store._history.trouble("store append hangs")
        store.hangs_until_s = store._loop.now_s + APPEND_TIMEOUT_S
        who = caller()
        store.later(lands_s, lambda: self._append(appends, who))
        await asyncio.sleep(APPEND_TIMEOUT_S * 2)

    async def read(self, partition: int, after: int, limit: int) -> list[StoredRecord]:
        return await self._store.read(lambda: self._inner.read(partition, after, limit), "read failed")

    async def head(self, partition: int) -> int:
        return await self._store.read(lambda: self._inner.head(partition), "head failed")

    async def load(self, partition: int, streams: list[str]) -> list[StreamImage]:
        return await self._store.read(lambda: self._inner.load(partition, streams), "load failed")

    async def history(self, partition: int, stream: str, after: int, limit: int) -> list[StoredRecord]:
        return await self._store.read(lambda: self._inner.history(partition, stream, after, limit), "history failed")

    async def keys(self, streams: list[str]) -> dict[str, bytes]:
        return await self._store.read(lambda: self._inner.keys(streams), "keys failed")

    async def erase_key(self, stream: str) -> None:
        await self._store.write(lambda: self._inner.erase_key(stream), "erase_key", self._store.weather.side_fails)


class FaultySnapshots:
    def __init__(self, store: FaultyStore) -> None:
        self._store = store

    async def save(self, partition: int, epoch: int, snapshots: list[StoredSnapshot]) -> None:
        store = self._store
        await store.write(
            lambda: store.inner.snapshots.save(partition, epoch, snapshots), "snapshot", store.weather.side_fails
        )


class FaultyCheckpoints:
    def __init__(self, store: FaultyStore) -> None:
        self._store = store

    async def load(self, reader: str, partition: int) -> Checkpoint:
        return await self._store.read(lambda: self._store.inner.checkpoints.load(reader, partition), "checkpoint read")

    async def save(self, reader: str, partition: int, epoch: int, checkpoint: Checkpoint) -> None:
        store = self._store
        await store.write(
            lambda: store.inner.checkpoints.save(reader, partition, epoch, checkpoint),
            "checkpoint",
            store.weather.side_fails,
        )


class FaultyDocuments:
    def __init__(self, store: FaultyStore) -> None:
        self._store = store

    async def get(self, kind: str, id: str) -> Document | None:
        return await self._store.read(lambda: self._store.inner.documents.get(kind, id), "document read")

    async def list(self, kind: str, tenant: str) -> list[Document]:
        return await self._store.read(lambda: self._store.inner.documents.of_tenant(kind, tenant), "documents read")

    async def put(self, documents: list[Document]) -> None:
        store = self._store
        await store.write(lambda: store.inner.documents.put(documents), "documents", store.weather.side_fails)

    async def remove(self, kind: str, id: str, revision: int) -> None:
        store = self._store
        await store.write(
            lambda: store.inner.documents.remove(kind, id, revision), "document removal", store.weather.side_fails
        )

    async def claim(self, kind: str, id: str, owner: str) -> str:
        return await self._store.write(
            lambda: self._store.inner.documents.claim(kind, id, owner), "claim", self._store.weather.side_fails
        )

    async def owner(self, kind: str, id: str) -> str | None:
        return await self._store.read(lambda: self._store.inner.documents.owner(kind, id), "owner read")


class FaultyViews:
    """Reads are those of the runtime: `checkpoint`, `timers`, and `message` for late statuses."""

    def __init__(self, store: FaultyStore) -> None:
        self._store = store

    async def checkpoint(self, partition: int) -> int:
        return await self._store.read(lambda: self._store.inner.views.checkpoint(partition), "views read")

    async def apply(self, batch: ViewBatch) -> None:
        store = self._store
        await store.write(lambda: store.inner.views.apply(batch), "views", store.weather.side_fails)

    async def timers(self, partition: int) -> list[tuple[str, int]]:
        return await self._store.read(lambda: self._store.inner.views.timers(partition), "timers read")

    async def message(self, conversation: str, seq: int) -> bytes | None:
        return await self._store.read(lambda: self._store.inner.views.message(conversation, seq), "message read")
