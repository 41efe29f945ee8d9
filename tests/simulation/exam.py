"""What the hub promises about time, measured: all is well but for one planned move or one death, under steady traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from actors.membership import BEAT_TIMEOUT_S
from tests.simulation.cluster import Shard
from tests.simulation.faults import CALM, Weather
from tests.simulation.nemesis import NODES_MAX
from tests.simulation.streams import Streamer

if TYPE_CHECKING:
    from tests.simulation.world import World

WRITE_EVERY_S = 0.05
PAUSES_MAX_S = {
    "kill": 1.0,
    "stop": BEAT_TIMEOUT_S + 1.5,
    "directory": 1.0,
    "join": 2.0,
    "leave": 2.0,
    "power": 10.0,
}
"""The longest time in which nobody gets an answer from a partition. Confirmations are up to `WRITE_EVERY_S` apart."""
STORE = Weather(slow=0.4, slow_max_s=0.06)
"""A healthy one, whose writes now and then take as long as a disk or a network does."""
LAGS_S = [0.0, 0.1, 0.5]
GENTLE = ("join", "leave", "directory")
"""A hand-over finishes what is under way, and nobody needs a directory: nothing is refused, nothing has to be asked twice."""
TURNS = ["leave", "join", "stop", "leave", "kill", "join", "directory", "power"]
SETTLED_WITHIN_S = 60.0


class Exam:
    def __init__(self, world: World) -> None:
        self._world = world
        self._cluster = world.cluster

    async def take(self) -> None:
        world = self._world
        possible = self._possible()
        turn = world.seed // 2 % len(TURNS)  # not drawn: whatever else changes, each has its share of the seeds
        name = next(name for name in TURNS[turn:] + TURNS[:turn] if name in possible)
        world.history.trouble(f"exam: {name}")
        began_s = world.loop.now_s
        lives = {streamer: streamer.gateway.process for streamer in world.streamers}
        before = self._hitches(world.streamers)
        world.store.weather = STORE
        writing = world.loop.create_task(self._write())
        await asyncio.sleep(0.5)
        possible[name]()
        await self._until_settled()
        await asyncio.sleep(1.0)
        writing.cancel()
        world.store.weather = CALM
        world.network.lags.clear()
        for partition, pause_s in self._pauses(began_s).items():
            world.history.note(f"longest pause of partition {partition}: {pause_s:.3f} s")
            world.pauses.append((name, pause_s))
            if pause_s > PAUSES_MAX_S[name] + WRITE_EVERY_S:
                world.history.broken.append(f"{name}: partition {partition} was away for {pause_s:.3f} s")
        # A gateway of a node that leaves sends its customers elsewhere, who ask again there.
        hitches = (
            self._hitches([s for s, life in lives.items() if s.gateway.process is life and s.gateway.alive]) - before
        )
        if name in GENTLE and hitches:
            world.history.broken.append(f"{name}: {sorted(hitches)[:5]} were asked twice, though no owner died")

    def _possible(self) -> dict[str, Callable[[], object]]:
        cluster, nemesis = self._cluster, self._world.nemesis
        exams: dict[str, Callable[[], object]] = {"directory": lambda: cluster.kill(cluster.directory)}
        guarded = self._guarded()
        if guarded:
            shard = self._world.rng.choice(guarded)
            exams["kill"] = lambda: cluster.kill(shard)
            exams["stop"] = lambda: nemesis.stop(shard, seconds=6.0)
        if len(cluster.nodes) < NODES_MAX and self._world.inner.partitions > len(cluster.nodes):
            exams["join"] = self._join
        free = [node for node in cluster.nodes if any(gateway.node != node for gateway in cluster.gateways)]
        free = [node for node in free if any(shard.name in self._owners() for shard in cluster.nodes[node])]
        if len(cluster.nodes) > 1 and free:
            node = self._world.rng.choice(free)
            exams["leave"] = lambda: nemesis._begin(cluster.drain_node(node))
            exams["power"] = lambda: cluster.power_off(node)
        return exams

    def _join(self) -> None:
        self._lag(self._cluster.shards)
        self._cluster.add_node()

    def _lag(self, owners: list[Shard]) -> None:
        """One gateway is far from the old owners: what it has asked them is refused when others know better already."""
        gateway = self._world.rng.choice(self._world.gateways)
        for shard in owners:
            self._world.network.lags[frozenset((gateway.name, shard.name))] = self._world.rng.choice(LAGS_S)

    def _owners(self) -> list[str]:
        assert self._cluster.directory.office is not None
        return self._cluster.directory.office.membership.assignment.owners

    def _guarded(self) -> list[Shard]:
        """Owners with a standby on their node."""
        cluster = self._cluster
        assert cluster.directory.office is not None
        assignment = cluster.directory.office.membership.assignment
        guarded = {member.node for member in assignment.shards() if member.seat < 0}
        return [shard for shard in cluster.shards if shard.node in guarded and shard.name in assignment.owners]

    async def _write(self) -> None:
        streamers = self._world.streamers
        while True:
            for streamer in streamers:
                streamer.write()
                await asyncio.sleep(WRITE_EVERY_S / len(streamers))

    def _hitches(self, streamers: list[Streamer]) -> set[str]:
        return {name for streamer in streamers for name in streamer.hitches}

    async def _until_settled(self) -> None:
        world, cluster = self._world, self._cluster
        deadline_s = world.loop.now_s + SETTLED_WITHIN_S
        await asyncio.sleep(1.0)
        while wrong := cluster.unowned() or world.nemesis.deeds_under_way:
            if world.loop.now_s > deadline_s:
                world.history.broken.append(f"{SETTLED_WITHIN_S:.0f} s after one blow: {wrong}")
                return
            await asyncio.sleep(0.1)

    def _pauses(self, began_s: float) -> dict[int, float]:
        ended_s = self._world.loop.now_s
        pauses = {}
        for partition in range(self._world.inner.partitions):
            times = sorted(
                at
                for streamer in self._world.streamers
                if streamer.partition == partition
                for at in streamer.confirmed_s
                if at >= began_s
            )
            marks = [began_s, *times, ended_s]
            pauses[partition] = max(b - a for a, b in pairwise(marks))
        return pauses
