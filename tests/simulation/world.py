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
from tests.simulation.cluster import Cluster, Shape
from tests.simulation.exam import Exam
from tests.simulation.faults import FaultyStore
from tests.simulation.gateway import Gateway
from tests.simulation.history import History
from tests.simulation.loop import Deadlock, Spinning, VirtualLoop, run_now
from tests.simulation.nemesis import Nemesis, draw_plan
from tests.simulation.network import Network
from tests.simulation.people import Administrator, Agent, Customer, Intruder, Sleeper, Town
from tests.simulation.provider import Provider
from tests.simulation.streams import Streamer

TENANTS = {"acme": 1, "blue": 3}
"""Each with its spread: one lives at home, the other in every partition there is."""
STEPS_DEFAULT = 200
FAULTS_MAX_S = 60.0
QUIET_WITHIN_S = 250.0
OWNED_WITHIN_S = 60.0
"""How long after healing every partition may still be without its owner: the longest patience of a hand-over, and more."""
GATEWAYS = 2
SNOOZE_WAITED_FOR_MS = 31_000

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
    ("actors.lanes", "CALL_MAX_COMMANDS", [1, 5]),
    ("actors.lanes", "TURN_MAX_COMMANDS", [1, 3]),
    ("actors.lanes", "QUEUE_MAX_COMMANDS", [10]),
    ("actors.lanes", "RETRY_FOR_S", [0.5, 4.0]),
    ("actors.lanes", "CALL_TIMEOUT_S", [2.0, 5.0]),
    ("actors.membership", "MOVES_MAX_AT_ONCE", [1]),
    ("actors.membership", "RELEASE_TIMEOUT_S", [1.0]),
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
        self.network = Network(self.loop, rng, self.history)
        self.cluster = Cluster(
            Shape(rng.choice([1, 2, 2, 3]), rng.choice([1, 1, 2]), rng.choice([0, 1, 1])),
            store=self.store,
            loop=self.loop,
            network=self.network,
            rng=rng,
            history=self.history,
            sender=self.provider,
        )
        self.provider.cluster = self.cluster
        self.gateways = [
            Gateway(f"gateway-{n}", tenants=TENANTS, cluster=self.cluster, rng=rng, history=self.history)
            for n in range(GATEWAYS)
        ]
        self.cluster.gateways += self.gateways
        self.town = Town(
            tenants=TENANTS, loop=self.loop, rng=rng, cluster=self.cluster, history=self.history, steps=steps
        )
        self.streamers = [
            Streamer(self.town, gateway, partition)
            for gateway in self.gateways
            for partition in range(self.inner.partitions)
        ]
        self.pauses: list[tuple[str, float]] = []
        """(exam, longest pause in s) for each partition."""
        self.nemesis = Nemesis(
            draw_plan(rng),
            cluster=self.cluster,
            network=self.network,
            store=self.store,
            provider=self.provider,
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
        self.cluster.start(self.cluster.directory)
        for _ in range(self.cluster.shape.nodes):
            self.cluster.add_node()
        for gateway in self.gateways:
            gateway.start()
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
        for phase in (self._until_owned, self._until_quiet, self._examine):
            if not self.history.broken:
                await phase()
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
        people += self.streamers
        people.append(Intruder(town, *TENANTS, strangers))
        return people

    async def _examine(self) -> None:
        """In every other world one more blow is struck when all is well, to measure how long it is felt."""
        if self.seed % 2 == 0:
            # What is promised about time is promised of these. What a conversation remembers stays as it was.
            real_bounds(but="actors.conversation")
            await Exam(self).take()
            await self._until_quiet()

    async def _until_owned(self) -> None:
        deadline_s = self.loop.now_s + OWNED_WITHIN_S
        while (wrong := self.cluster.unowned()) or self.nemesis.deeds_under_way:
            if wrong and self.loop.now_s > deadline_s:
                self.history.broken.append(f"{OWNED_WITHIN_S:.0f} s after healing: {', '.join(wrong)}")
                return
            await asyncio.sleep(0.5)

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
        if not all(role.alive for role in self.cluster.roles):
            reasons.append("a process is down")
        reasons += self.cluster.unowned()
        if any(gateway.behind() for gateway in self.gateways):
            reasons.append("a gateway is behind")
        if unsent := self.outbox.waiting():
            reasons.append(f"queued messages {unsent[:3]}")
        now = self.town.now_ms
        if overdue := [row.id for row in self._snoozed() if (row.wake_at or 0) <= now + SNOOZE_WAITED_FOR_MS]:
            reasons.append(f"snoozes to come {overdue[:3]}")
        hosts = [shard.host for shard in self.cluster.shards if shard.host is not None]
        timers = [timers for host in hosts for timers in host._timers.values()]
        if any((due := each.next_due()) is not None and due <= now + SNOOZE_WAITED_FOR_MS for each in timers):
            reasons.append("timers to come")
        if any(partition._in_flight is not None for host in hosts for partition in host.partitions.values()):
            reasons.append("a commit is under way")
        if self.loop.now_s < self.store.hangs_until_s:
            reasons.append("a write hangs")
        return reasons

    def _snoozed(self) -> Iterator[Any]:
        for row in self.inner.views._conversations.values():
            if row.wake_at is not None:
                yield row


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


REAL_BOUNDS = [(module, name, getattr(import_module(module), name)) for module, name, _ in SMALL_BOUNDS]


@contextmanager
def small_bounds(rng: Random) -> Iterator[None]:
    for module, name, choices in SMALL_BOUNDS:
        if rng.random() < 0.25:
            setattr(import_module(module), name, rng.choice(choices))
    try:
        yield
    finally:
        real_bounds()


def real_bounds(but: str = "") -> None:
    for module, name, value in REAL_BOUNDS:
        if module != but:
            setattr(import_module(module), name, value)


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
