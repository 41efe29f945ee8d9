"""Whoever breaks things: storms in the store, crashes, stopped processes, thieves of partitions, lost views."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import msgspec

from tests.simulation.cluster import Cluster, Shard
from tests.simulation.faults import CALM, FaultyStore, Weather
from tests.simulation.gateway import Gateway
from tests.simulation.history import History
from tests.simulation.loop import ProcessDied, run_now
from tests.simulation.provider import GOOD_MOOD, Mood, Provider


class Plan(msgspec.Struct):
    """What this seed's world suffers from. Not everything at once: some defects only show alone."""

    storm: Weather
    mood: Mood
    gateway_fails: float
    blows: list[str]
    pause_s: float
    poison: float = 0.0
    """How likely a turn dies of a defect of ours, half-way through changing its state."""


BLOWS = ["kill", "stop", "take", "move", "ghost", "evict", "wipe", "drain", "gateway"]


def draw_plan(rng: Random) -> Plan:
    def maybe(*rates: float) -> float:
        return rng.choice(rates) if rng.random() < 0.5 else 0.0

    storm = Weather(
        refuse=maybe(0.02, 0.2),
        lose_answer=maybe(0.02, 0.2),
        late=maybe(0.01, 0.05),
        crash=maybe(0.005, 0.02),
        slow=maybe(0.05, 0.5),
        slow_max_s=rng.choice([0.05, 0.5, 3.0]),
        read_fails=maybe(0.02, 0.2),
        side_fails=maybe(0.1, 0.5),
    )
    mood = Mood(
        retry=maybe(0.1, 0.4),
        unknown=maybe(0.1),
        unknown_after_all=maybe(0.1, 0.3),
        refuse=maybe(0.1),
        hang=maybe(0.1, 0.3),
        early_receipt=rng.choice([0.0, 0.3, 0.9]),
    )
    blows = [blow for blow in BLOWS if rng.random() < 0.4]
    plan = Plan(storm, mood, maybe(0.05, 0.3), blows, rng.choice([0.5, 2.0, 6.0]))
    if rng.random() < 0.2:
        plan.poison = 0.05
    if rng.random() < 0.12:
        plan = Plan(CALM, GOOD_MOOD, 0.0, [], 2.0)
    return plan


class Nemesis:
    def __init__(
        self,
        plan: Plan,
        *,
        cluster: Cluster,
        store: FaultyStore,
        provider: Provider,
        gateway: Gateway,
        rng: Random,
        history: History,
    ) -> None:
        self.plan = plan
        self._cluster = cluster
        self._store = store
        self._provider = provider
        self._gateway = gateway
        self._rng = rng
        self._history = history
        self.over = False
        self.deeds_under_way = 0

    async def storms(self) -> None:
        """Bad weather comes and goes."""
        rng = self._rng
        while not self.over:
            self._set(self.plan.storm, self.plan.mood, self.plan.gateway_fails)
            await asyncio.sleep(rng.uniform(1, 12))
            self._set(CALM, GOOD_MOOD, 0.0)
            await asyncio.sleep(rng.uniform(0.5, 6))

    def _set(self, weather: Weather, mood: Mood, gateway_fails: float) -> None:
        self._store.weather, self._provider.mood, self._gateway.fails = weather, mood, gateway_fails

    async def blows(self) -> None:
        deeds: dict[str, Callable[[], object]] = {
            "kill": self._kill,
            "stop": self._stop,
            "take": lambda: self._move(release=False),
            "move": lambda: self._move(release=True),
            "ghost": self._ghost,
            "evict": self._evict,
            "wipe": self._wipe,
            "drain": self._drain,
            "gateway": self._gateway.start,
        }
        while self.plan.blows:
            await asyncio.sleep(self._rng.expovariate(1 / self.plan.pause_s))
            deeds[self._rng.choice(self.plan.blows)]()

    async def revive(self) -> None:
        """A dead process is started again after a while, as Ray and the supervisor do."""
        while True:
            for shard in self._cluster.shards:
                if not shard.alive:
                    await asyncio.sleep(self._rng.uniform(0.1, 2.0))
                    self._cluster.start(shard)
            await asyncio.sleep(0.1)

    def heal(self) -> None:
        self.over = True
        self._set(CALM, GOOD_MOOD, 0.0)
        for shard in self._cluster.shards:
            if shard.process is not None:
                shard.process.resume()
        self._history.trouble("all is well from here on")

    # --- deeds ----------------------------------------------------------------------------------------------------

    def _begin(self, deed: Coroutine[Any, Any, None]) -> None:
        self.deeds_under_way += 1
        self._cluster.outside(deed).add_done_callback(self._ended)

    def _ended(self, deed: asyncio.Task[None]) -> None:
        self.deeds_under_way -= 1

    def _any_shard(self) -> Shard:
        return self._rng.choice(self._cluster.shards)

    def _kill(self) -> None:
        self._cluster.kill(self._any_shard())

    def _stop(self) -> None:
        process = self._any_shard().process
        if process is not None and not process.dead and not process.paused:
            self._history.trouble(f"{process.name} is stopped")
            process.pause()
            self._begin(self._continue(process))

    async def _continue(self, process: object) -> None:
        await asyncio.sleep(self._rng.uniform(0.2, 15))
        self._history.trouble("and continues")
        process.resume()  # type: ignore[attr-defined]

    def _move(self, *, release: bool) -> None:
        partition = self._rng.randrange(self._store.partitions)
        self._begin(self._cluster.move(partition, self._any_shard(), release=release))

    def _ghost(self) -> None:
        """Somebody takes a partition and is never heard of again."""
        partition = self._rng.randrange(self._store.partitions)
        self._history.trouble(f"a ghost takes partition {partition}")
        run_now(self._store.inner.journal.acquire(partition))

    def _evict(self) -> None:
        self._begin(self._evict_all(self._any_shard()))

    async def _evict_all(self, shard: Shard) -> None:
        host = shard.host
        if host is None:
            return

        async def evict() -> None:
            for partition in list(host.partitions.values()):
                snapshots = partition.passivate(idle_since=float("inf"), keep_max=0)
                await host._save_snapshots(partition, snapshots)

        try:
            await self._cluster.call(shard, evict)
        except (ProcessDied, TimeoutError):
            pass

    def _wipe(self) -> None:
        """Everything dies at once, and what is derived from the journal is gone."""
        for shard in self._cluster.shards:
            self._cluster.kill(shard)
        self._store.lose_derived(views=self._rng.random() < 0.8, snapshots=self._rng.random() < 0.5)

    def _drain(self) -> None:
        self._begin(self._drain_and_exit(self._any_shard()))

    async def _drain_and_exit(self, shard: Shard) -> None:
        host = shard.host
        if host is None:
            return
        self._history.trouble(f"{shard.name} drains")
        try:
            await self._cluster.call(shard, host.close)
        except (ProcessDied, TimeoutError):
            pass
        if shard.host is host:
            self._cluster.kill(shard)
