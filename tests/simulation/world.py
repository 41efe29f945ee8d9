"""One run of a simulated hub: faults first, then everything heals and has to make progress, then the checks."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from random import Random
from typing import Any

import msgspec

from actors.activation import Activation
from actors.decision import Decision
from actors.partition import Partition
from hub.codec import decode_record
from hub.events import MessageQueued, MessageStatusChanged
from hub.storage.memory import MemoryStore
from tests.simulation import checkers
from tests.simulation.cluster import Cluster
from tests.simulation.faults import FaultyStore
from tests.simulation.gateway import Gateway
from tests.simulation.history import History
from tests.simulation.loop import Deadlock, Spinning, VirtualLoop, run_now
from tests.simulation.nemesis import Nemesis, draw_plan
from tests.simulation.people import Administrator, Agent, Customer, Intruder, Sleeper, Town
from tests.simulation.provider import Provider

TENANTS = {"acme": 1, "blue": 3}
"""Each with its spread: one lives at home, the other in every partition there is."""
STEPS_DEFAULT = 200
FAULTS_MAX_S = 60.0
QUIET_WITHIN_S = 250.0

# Bounds that a short run would never reach, made small for some seeds. Each must be correct at any size.
SMALL_BOUNDS: list[tuple[str, str, list[Any]]] = [
    ("actors.partition", "SNAPSHOT_EVERY_EVENTS", [3, 20]),
    ("actors.partition", "LOAD_MAX_STREAMS", [1, 2]),
    ("actors.partition", "REPLAY_CHUNK_EVENTS", [1, 7]),
    ("actors.partition", "PENDING_MAX_EVENTS", [4, 30]),
    ("actors.activation", "MAILBOX_MAX_COMMANDS", [2, 8]),
    ("actors.host", "PASSIVATE_AFTER_MS", [500, 5_000]),
    ("actors.host", "SWEEP_EVERY_S", [0.7, 3.0]),
    ("actors.readers.views", "PENDING_MAX_ROWS", [3, 10]),
    ("actors.readers.views", "CATCH_UP_CHUNK_EVENTS", [3, 25]),
    ("actors.readers.views", "CATCH_UP_MAX_ACTIVATIONS", [1, 3]),
    ("actors.readers.publisher", "OUTBOX_MAX_PUBLICATIONS", [1, 5]),
    ("actors.readers.courier", "CATCH_UP_CHUNK_EVENTS", [3, 25]),
    ("actors.readers.courier", "IN_FLIGHT_MAX_SENDS", [1, 3]),
    ("actors.conversation", "OUTBOUND_MAX_MESSAGES", [3, 8]),
]


class Result(msgspec.Struct):
    seed: int
    digest: str
    violations: list[str]
    events: int
    answers: int
    virtual_s: float


class World:
    def __init__(self, seed: int, *, steps: int = STEPS_DEFAULT, show: bool = False) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(self._complain)
        self.history = History(self.loop, show=show)
        self.inner = MemoryStore(rng.choice([1, 3]))
        self.store = FaultyStore(self.inner, loop=self.loop, rng=rng, history=self.history)
        self.outbox = Outbox(self.inner)
        self.provider = Provider(rng=rng, history=self.history)
        self.cluster = Cluster(
            shards=rng.choice([1, 2]),
            store=self.store,
            loop=self.loop,
            rng=rng,
            history=self.history,
            sender=self.provider,
        )
        self.provider.cluster = self.cluster
        self.gateway = Gateway(tenants=TENANTS, cluster=self.cluster, rng=rng, history=self.history)
        self.town = Town(
            tenants=TENANTS, loop=self.loop, rng=rng, cluster=self.cluster, history=self.history, steps=steps
        )
        self.nemesis = Nemesis(
            draw_plan(rng),
            cluster=self.cluster,
            store=self.store,
            provider=self.provider,
            gateway=self.gateway,
            rng=rng,
            history=self.history,
        )

    def run(self) -> Result:
        violations = []
        with small_bounds(self.rng), self._poison():
            main = self.loop.create_task(self._life())
            try:
                self.loop.run_until_complete(main)
                gc.collect()  # what was forgotten complains now
                digest = self.history.digest
                violations = self.history.broken + self.loop.run_until_complete(checkers.check_all(self))
            except (Deadlock, Spinning) as error:
                digest = self.history.digest
                violations = [f"the world stands still: {type(error).__name__} {error}", *self.history.broken]
            finally:
                self._end()
        events = sum(run_now(self.inner.journal.head(p)) for p in range(self.inner.partitions))
        return Result(self.seed, digest, violations, events, len(self.history.told), self.loop.now_s)

    @contextmanager
    def _poison(self) -> Iterator[None]:
        """Some turns fail when they have changed their state and recorded nothing."""
        record = Partition._record

        def poisoned(partition: Partition, activation: Activation, decision: Decision, now: int) -> Any:
            if not self.nemesis.over and self.rng.random() < self.nemesis.plan.poison:
                activation.behaviour.apply(activation.image, decision.events[0], now)
                raise RuntimeError("simulated defect")
            return record(partition, activation, decision, now)

        if self.nemesis.plan.poison:
            Partition._record = poisoned  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            Partition._record = record  # type: ignore[method-assign]

    def _end(self) -> None:
        self.cluster.bury()
        self.loop.calm_down()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        for _ in range(20):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        self.loop.close()

    # --- phases ---------------------------------------------------------------------------------------------------

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio would log: a task that died of a defect, or was forgotten while somebody waited for it."""
        told = context.get("exception") or context.get("task") or context.get("future")
        self.history.broken.append(f"{context['message']}: {re.sub(r'Task-[0-9]+|0x[0-9a-f]+', '', repr(told))}")

    async def _life(self) -> None:
        for shard in self.cluster.shards:
            self.cluster.start(shard)
        self.gateway.start()
        revival = self.loop.create_task(self.nemesis.revive())
        sleepers = [Sleeper(self.town, tenant).live() for tenant in TENANTS]
        trouble = [self.loop.create_task(work) for work in (self.nemesis.storms(), self.nemesis.blows(), *sleepers)]
        people = [self.loop.create_task(person.live()) for person in self._people()]
        await asyncio.wait(people, timeout=FAULTS_MAX_S)
        await asyncio.sleep(self.rng.choice([0, 1, 8]))
        for task in (*trouble, *people):
            task.cancel()
        self.nemesis.heal()
        self.history.healed_at_s = self.loop.now_s
        await self._until_quiet()
        revival.cancel()

    def _people(self) -> list[Any]:
        rng, town = self.rng, self.town
        people: list[Any] = []
        strangers: list[str] = []
        for tenant in TENANTS:
            customers = [Customer(town, tenant, n) for n in range(rng.randint(1, 4))]
            agents = [Agent(town, tenant, n, customers) for n in range(1, rng.randint(2, 4))]
            people += [*customers, *agents, Administrator(town, tenant)]
            strangers = [customer.stream for customer in customers]
        people.append(Intruder(town, *TENANTS, strangers))
        return people

    async def _until_quiet(self) -> None:
        """Progress is required: once all is well, everything that is under way comes to its end."""
        deadline_s = self.loop.now_s + QUIET_WITHIN_S
        await asyncio.sleep(1)
        while reasons := self._unrest():
            if self.loop.now_s > deadline_s:
                self.history.broken.append(f"no end in sight: {', '.join(reasons)}")
                return
            await asyncio.sleep(1)
        await asyncio.sleep(1)

    def _unrest(self) -> list[str]:
        reasons = []
        if self.cluster.asking or self.provider.reports:
            reasons.append(f"{self.cluster.asking} commands unanswered, {self.provider.reports} receipts under way")
        if self.nemesis.deeds_under_way:
            reasons.append("somebody still breaks things")
        if not all(shard.alive for shard in self.cluster.shards):
            reasons.append("a shard is down")
        if self._closed_partitions():
            reasons.append(f"partitions {self._closed_partitions()} have no active owner")
        if self.gateway.behind():
            reasons.append("the gateway is behind")
        if unsent := self.outbox.waiting():
            reasons.append(f"queued messages {unsent[:3]}")
        now = self.town.now_ms
        if overdue := [row.id for row in self._snoozed() if (row.wake_at or 0) <= now + 31_000]:
            reasons.append(f"snoozes to come {overdue[:3]}")
        return reasons

    def _snoozed(self) -> Iterator[Any]:
        for row in self.inner.views._conversations.values():
            if row.wake_at is not None:
                yield row

    def _closed_partitions(self) -> list[int]:
        closed = []
        for number, shard in enumerate(self.cluster.owners):
            if shard.host is None or number not in shard.host.heads():
                closed.append(number)
        return closed


class Outbox:
    """Outbound messages of which the journal does not tell the end yet."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._read = dict.fromkeys(range(store.partitions), 0)
        self._waiting: dict[tuple[str, int], None] = {}

    def waiting(self) -> list[tuple[str, int]]:
        for partition, after in self._read.items():
            for record in run_now(self._store.journal.read(partition, after, 1_000_000)):
                self._read[partition] = record.offset
                event = decode_record(record.body, stream=record.stream, offset=record.offset, cipher=None).event
                if isinstance(event, MessageQueued):
                    self._waiting[event.conversation, event.seq] = None
                elif isinstance(event, MessageStatusChanged) and event.status != "queued":
                    self._waiting.pop((event.conversation, event.seq), None)
        return list(self._waiting)


@contextmanager
def small_bounds(rng: Random) -> Iterator[None]:
    before = []
    for module_name, name, choices in SMALL_BOUNDS:
        module = import_module(module_name)
        before.append((module, name, getattr(module, name)))
        if rng.random() < 0.25:
            setattr(module, name, rng.choice(choices))
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def run(seed: int, *, steps: int = STEPS_DEFAULT, show: bool = False) -> Result:
    """One world from one seed. What the hub logs about its simulated troubles is not of interest."""
    hub_log = logging.getLogger("hub")
    asyncio_log = logging.getLogger("asyncio")
    levels = hub_log.level, asyncio_log.level
    if not show:
        hub_log.setLevel(logging.CRITICAL + 1)
    try:
        return World(seed, steps=steps, show=show).run()
    finally:
        hub_log.setLevel(levels[0])
        asyncio_log.setLevel(levels[1])
