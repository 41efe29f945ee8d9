"""The faults. Each does one thing to a world under load, and undoes it where it can be undone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable

import msgspec

from tests.faults.consumers import SlowConsumers
from tests.faults.homes import HOMES
from tests.faults.world import Needs, World
from tests.processes import alive, freeze, tell

PATIENCE_S = 20.0
FROZEN_FOR_S = 12.0
DOWN_FOR_S = 30.0
FULL_FOR_S = 15.0
CUT_FOR_S = 20.0
REFILL_EVERY_S = 0.1
DATABASES = ("postgres", "mongodb")
Step = Callable[[World], Awaitable[None]]


class Fault(msgspec.Struct, frozen=True):
    """`how` goes into the documentation. `strike` returns when the fault, outage included, has been done.

    An outage that lasts by definition (`outage`) is not the hub's to shorten: seconds count from its end.
    """

    key: str
    title: str
    how: str
    strike: Step
    needs: Needs = Needs()
    homes: tuple[str, ...] = HOMES
    outage: bool = False
    patience_s: float = PATIENCE_S
    felt_as: str = ""
    """A refusal that somebody must have met, or else the fault did not reach the hub."""


def kill_busiest(name: str) -> Step:
    async def strike(world: World) -> None:
        os.kill(world.busiest(name), signal.SIGKILL)

    return strike


async def kill_directory(world: World) -> None:
    [pid] = world.pids_of("Directory")
    os.kill(pid, signal.SIGKILL)


async def freeze_shard(world: World) -> None:
    pid = world.busiest("Shard")
    freeze(pid)
    try:
        await asyncio.sleep(FROZEN_FOR_S)
    finally:
        if alive(pid):
            tell(pid, signal.SIGCONT)
        world.healed_at = time.monotonic()


async def kill_raylet(world: World) -> None:
    os.kill(world.busiest_node().raylet(), signal.SIGKILL)


async def kill_node(world: World) -> None:
    await asyncio.to_thread(world.busiest_node().kill)


async def cut_network(world: World) -> None:
    assert world.cluster is not None
    node = world.busiest_node()
    world.cluster.cut(node)
    try:
        await asyncio.sleep(CUT_FOR_S)
    finally:
        world.cluster.heal(node)
        world.healed_at = time.monotonic()


async def restart_database(world: World) -> None:
    assert world.database is not None
    await asyncio.to_thread(world.database.kill)
    await asyncio.to_thread(world.database.start)


async def database_down(world: World) -> None:
    assert world.database is not None
    await asyncio.to_thread(world.database.stop)
    await asyncio.sleep(DOWN_FOR_S)
    await asyncio.to_thread(world.database.start)


async def full_disk(world: World) -> None:
    assert world.disk is not None
    until = time.monotonic() + FULL_FOR_S
    while time.monotonic() < until:
        await asyncio.to_thread(world.disk.fill)
        await asyncio.sleep(REFILL_EVERY_S)
    world.disk.free()
    if world.database is not None:
        # A database may end itself when it cannot write; whoever made room also starts it again.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(world.database.kill)
        await asyncio.to_thread(world.database.start)


async def restart_redis(world: World) -> None:
    assert world.redis is not None
    await asyncio.to_thread(world.redis.kill)
    await asyncio.to_thread(world.redis.start)


async def slow_consumers(world: World) -> None:
    async with SlowConsumers(world.urls) as consumers:
        await consumers.overwhelm()
        await consumers.expect_told()


CLUSTER = Needs(machines="two")
FAULTS = (
    Fault("shard", "kill -9 of a shard", "SIGKILL to the shard with the most work", kill_busiest("Shard")),
    Fault("gateway", "kill -9 of a gateway", "SIGKILL to the busier of two gateways", kill_busiest("GatewayActor")),
    Fault("directory", "kill -9 of the directory", "SIGKILL to the process of the directory", kill_directory),
    Fault("raylet", "kill -9 of a raylet", "SIGKILL to the raylet of the busier of two nodes", kill_raylet, CLUSTER),
    Fault("node", "kill -9 of a whole node", "SIGKILL to every process of the busier of two nodes", kill_node, CLUSTER),
    Fault(
        "frozen",
        "a shard frozen, then thawed",
        f"SIGSTOP to the shard with the most work, SIGCONT {FROZEN_FOR_S:.0f} s later: it wakes as a zombie",
        freeze_shard,
    ),
    Fault(
        "db-restart",
        "database restarted",
        "kill -9 of the database and a new start at once",
        restart_database,
        homes=DATABASES,
        outage=True,
    ),
    Fault(
        "db-down",
        f"database down {DOWN_FOR_S:.0f} s",
        f"the database is stopped, and started again {DOWN_FOR_S:.0f} s later",
        database_down,
        homes=DATABASES,
        outage=True,
        felt_as="store_unavailable",
    ),
    Fault(
        "disk",
        "full disk",
        f"the store's own disk is filled to the last byte for {FULL_FOR_S:.0f} s, then space is made; "
        "a database is then started anew",
        full_disk,
        Needs(disk=True),
        outage=True,
        felt_as="store_unavailable",
    ),
    Fault("redis", "Redis restarted", "kill -9 of Redis and a new start, empty", restart_redis, Needs(redis=True)),
    Fault(
        "slow",
        "slow consumers",
        "agents and customers that stop reading while a flood of events is due to them",
        slow_consumers,
    ),
    Fault(
        "cut",
        "network cut",
        f"the link of the busier of two nodes, each in a network namespace, is taken down for {CUT_FOR_S:.0f} s",
        cut_network,
        Needs(machines="networks"),
        homes=DATABASES,  # an embedded store is on one machine
        patience_s=5.0,
    ),
)
BY_KEY = {fault.key: fault for fault in FAULTS}
