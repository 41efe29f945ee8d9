"""Whoever breaks things: storms in the store and the network, crashes, stopped processes, nodes that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import msgspec

from tests.simulation.cluster import DIRECTORY, Cluster, Role, Shard
from tests.simulation.faults import CALM, FaultyStore, Weather
from tests.simulation.history import History
from tests.simulation.loop import Process, ProcessDied
from tests.simulation.network import SMOOTH, Network, Traffic
from tests.simulation.provider import GOOD_MOOD, Mood, Provider

NODES_MAX = 3


class Plan(msgspec.Struct):
    """What this seed's world suffers from. Not everything at once: some defects only show alone."""

    storm: Weather
    mood: Mood
    traffic: Traffic
    blows: list[str]
    pause_s: float
    poison: float = 0.0
    """How likely a turn dies of a defect of ours, half-way through changing its state."""


BLOWS = [
    "kill",
    "stop",
    "ghost",
    "evict",
    "wipe",
    "drain",
    "gateway",
    "directory",
    "hold",
    "join",
    "leave",
    "power",
    "cut",
    "starve",
    "lag",
]


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
    traffic = Traffic(breaks=maybe(0.001, 0.01), slow=maybe(0.002, 0.02), slow_max_s=rng.choice([0.5, 10.0]))
    blows = [blow for blow in BLOWS if rng.random() < 0.3]
    plan = Plan(storm, mood, traffic, blows, rng.choice([0.5, 2.0, 6.0]))
    if rng.random() < 0.2:
        plan.poison = 0.05
    if rng.random() < 0.12:
        plan = Plan(CALM, GOOD_MOOD, SMOOTH, [], 2.0)
    return plan


class Nemesis:
    def __init__(
        self,
        plan: Plan,
        *,
        cluster: Cluster,
        network: Network,
        store: FaultyStore,
        provider: Provider,
        rng: Random,
        history: History,
    ) -> None:
        self.plan = plan
        self._cluster = cluster
        self._network = network
        self._store = store
        self._provider = provider
        self._rng = rng
        self._history = history
        self.over = False
        self.deeds_under_way = 0

    async def storms(self) -> None:
        """Bad weather comes and goes."""
        rng = self._rng
        while not self.over:
            self._set(self.plan.storm, self.plan.mood, self.plan.traffic)
            await asyncio.sleep(rng.uniform(1, 12))
            self._set(CALM, GOOD_MOOD, SMOOTH)
            await asyncio.sleep(rng.uniform(0.5, 6))

    def _set(self, weather: Weather, mood: Mood, traffic: Traffic) -> None:
        self._store.weather, self._provider.mood, self._network.traffic = weather, mood, traffic

    async def blows(self) -> None:
        deeds: dict[str, Callable[[], object]] = {
            "kill": lambda: self._cluster.kill(self._any(self._cluster.shards)),
            "stop": lambda: self.stop(self._any(self._cluster.shards)),
            "ghost": lambda: self._store.ghost(self._rng.randrange(self._store.partitions)),
            "evict": lambda: self._begin(self._evict_all(self._any_shard())),
            "wipe": self._wipe,
            "drain": lambda: self._begin(self._drain_and_exit(self._any_shard())),
            "gateway": lambda: self._cluster.kill(self._any(self._cluster.gateways)),
            "directory": lambda: self._cluster.kill(self._cluster.directory),
            "hold": lambda: self.stop(self._any([self._cluster.directory, *self._cluster.gateways])),
            "join": self._join,
            "leave": self._leave,
            "power": self._power_off,
            "cut": self._cut,
            "starve": self._starve,
            "lag": lambda: self._begin(self._lag(self._any(self._cluster.gateways).name, self._any_shard().name)),
        }
        while self.plan.blows:
            await asyncio.sleep(self._rng.expovariate(1 / self.plan.pause_s))
            if self._cluster.shards:
                deeds[self._rng.choice(self.plan.blows)]()

    async def revive(self) -> None:
        """A dead process is started again after a while, as Ray and the supervisor do; so is a hub without nodes."""
        while True:
            if not self._cluster.nodes:
                await asyncio.sleep(self._rng.uniform(0.1, 5.0))
                self._cluster.add_node()
            for role in self._cluster.roles:
                if not role.alive:
                    await asyncio.sleep(self._rng.uniform(0.1, 2.0))
                    if role in self._cluster.roles and not role.alive:
                        self._cluster.start(role)
            await asyncio.sleep(0.1)

    def heal(self) -> None:
        self.over = True
        self._set(CALM, GOOD_MOOD, SMOOTH)
        self._network.mend_all()
        self._network.lags.clear()
        self._store.cut_off.clear()
        for role in self._cluster.roles:
            if role.process is not None:
                role.process.resume()
        self._history.trouble("all is well from here on")

    # --- deeds ----------------------------------------------------------------------------------------------------

    def _begin(self, deed: Coroutine[Any, Any, None]) -> None:
        self.deeds_under_way += 1
        self._cluster.outside(deed).add_done_callback(self._ended)

    def _ended(self, deed: asyncio.Task[None]) -> None:
        self.deeds_under_way -= 1

    def _any(self, roles: list[Any]) -> Any:
        return self._rng.choice(roles)

    def _any_shard(self) -> Shard:
        return self._rng.choice(self._cluster.shards)

    def stop(self, role: Role, *, seconds: float | None = None) -> None:
        """SIGSTOP, and SIGCONT after a while: a shard may have become a zombie, with commits in flight."""
        process = role.process
        if process is not None and not process.dead and not process.paused:
            self._history.trouble(f"{process.name} is stopped")
            process.pause()
            self._begin(self._continue(process, self._rng.uniform(0.2, 15) if seconds is None else seconds))

    async def _continue(self, process: Process, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._history.trouble(f"{process.name} continues")
        process.resume()

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
        for role in self._cluster.roles:
            self._cluster.kill(role)
        self._store.lose_derived(views=self._rng.random() < 0.8, snapshots=self._rng.random() < 0.5)

    async def _drain_and_exit(self, shard: Shard) -> None:
        desk = shard.desk
        if desk is None:
            return
        self._history.trouble(f"{shard.name} drains")
        try:
            await self._cluster.call(shard, desk.close)
        except (ProcessDied, TimeoutError):
            pass
        if shard.desk is desk:
            self._cluster.kill(shard)

    # --- nodes ----------------------------------------------------------------------------------------------------

    def _join(self) -> None:
        if len(self._cluster.nodes) < NODES_MAX:
            self._cluster.add_node()

    def _staying(self) -> list[str]:
        return [node for node in self._cluster.nodes if node not in self._cluster.leaving]

    def _leave(self) -> None:
        if len(staying := self._staying()) > 1:
            self._begin(self._cluster.drain_node(self._any(staying)))

    def _power_off(self) -> None:
        self._cluster.power_off(self._any(list(self._cluster.nodes)))

    # --- cuts -----------------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        """The store can still be reached by both."""
        shard = self._any_shard().name
        one, other = self._any([(DIRECTORY, shard), (self._any(self._cluster.gateways).name, shard)])
        self._history.trouble(f"{one} and {other} are cut off from each other")
        self._network.cut(one, other)
        self._begin(self._mend(one, other))

    async def _mend(self, one: str, other: str) -> None:
        await asyncio.sleep(self._rng.uniform(0.2, 15))
        self._network.mend(one, other)
        self._history.trouble(f"{one} and {other} reach each other again")

    async def _lag(self, one: str, other: str) -> None:
        pair = frozenset((one, other))
        self._history.trouble(f"between {one} and {other} everything takes long")
        self._network.lags[pair] = self._rng.choice([0.05, 0.5, 3.0])
        await asyncio.sleep(self._rng.uniform(0.2, 15))
        self._network.lags.pop(pair, None)

    def _starve(self) -> None:
        self._begin(self._cut_off(self._any_shard().name))

    async def _cut_off(self, name: str) -> None:
        self._history.trouble(f"{name} is cut off from the store")
        self._store.cut_off.add(name)
        await asyncio.sleep(self._rng.uniform(0.2, 15))
        self._store.cut_off.discard(name)
        self._history.trouble(f"{name} reaches the store again")
