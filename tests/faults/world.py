"""The world of a run: a hub with two shards and two gateways, its home, and what else the fault breaks."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tests.aftercare import Aftercare
from tests.faults.disk import Disk
from tests.faults.homes import Server, running_home
from tests.hub_process import HubProcess, free_port
from tests.processes import alive, command_of, cpu_seconds, memory_bytes
from tests.ray_cluster import RayCluster

Machines = Literal["one", "two", "networks"]
HUB_CLASSES = ("Shard", "GatewayActor", "Directory")
REQUESTS_PER_MINUTE = "10000000"


class Needs(msgspec.Struct, frozen=True):
    """`machines`: one hub by itself, or a cluster of two nodes, each with a network of its own or not."""

    machines: Machines = "one"
    disk: bool = False
    redis: bool = False


class World:
    def __init__(self, home: str, needs: Needs, folder: Path) -> None:
        self.home = home
        self.needs = needs
        self.folder = folder
        self.provider_port = free_port()
        self.hub: HubProcess
        self.cluster: RayCluster | None = None
        self.database: Server | None = None
        self.redis: Server | None = None
        self.disk: Disk | None = None
        self.peak_bytes = 0
        self._cpu_s: dict[int, float] = {}

    @property
    def urls(self) -> list[str]:
        """The gateways, as the clients know them."""
        return [self.hub.url]

    # --- its processes --------------------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        found = self.hub.family()
        for node in (self.cluster.head, *self.cluster.nodes) if self.cluster else ():
            found += node.pids()
        return found

    def pids_of(self, name: str) -> list[int]:
        """The processes of one class of the hub."""
        return [pid for pid in self.pids() if f"ray::{name}" in command_of(pid) and alive(pid)]

    def busiest(self, name: str) -> int:
        """The one of them that has done most work since we began to look."""
        return max(self.pids_of(name), key=lambda pid: cpu_seconds(pid) - self._cpu_s.get(pid, 0.0))

    def weigh(self) -> None:
        """Look at the memory of all processes of the hub."""
        pids = [pid for name in HUB_CLASSES for pid in self.pids_of(name)]
        self.peak_bytes = max(self.peak_bytes, sum(memory_bytes(pid) for pid in pids))
        for pid in pids:
            self._cpu_s.setdefault(pid, cpu_seconds(pid))


@contextlib.contextmanager
def running_world(home: str, needs: Needs) -> Iterator[World]:
    """Everything in it has started; nothing of it is left afterwards, however this ends."""
    aftercare = Aftercare()
    with contextlib.ExitStack() as stack:
        stack.callback(aftercare.call_off)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-faults-")))
        world = World(home, needs, folder)
        if needs.disk:
            world.disk = Disk(aftercare)
            stack.callback(world.disk.close)
        world.database = stack.enter_context(running_home(home, world.disk.folder if world.disk else None))
        if needs.redis:
            world.redis = stack.enter_context(_running_redis())
        if needs.machines != "one":
            world.cluster = stack.enter_context(RayCluster(2, namespaces=needs.machines == "networks"))
        world.hub = _hub(world)
        stack.callback(world.hub.stop)
        world.hub.start()
        assert world.hub.process is not None
        aftercare.promise("kill", str(world.hub.process.pid))
        yield world


@contextlib.contextmanager
def _running_redis() -> Iterator[Server]:
    from tests.servers.redis import running_redis

    with running_redis() as server:
        yield server


def _hub(world: World) -> HubProcess:
    data_dir = world.folder / "data"
    if world.disk is not None and world.home == "sqlite":
        data_dir.symlink_to(world.disk.folder)
    env = {"HUB_WHATSAPP_API": f"http://127.0.0.1:{world.provider_port}"}
    if world.database is not None:
        env["HUB_STORAGE"] = world.database.url
    if world.redis is not None:
        env["HUB_REDIS"] = world.redis.url
    if world.cluster is not None:
        env |= {k: v for k, v in world.cluster.environment.items() if k.startswith("RAY_")}
        env["HUB_RAY_ADDRESS"] = world.cluster.address
    return HubProcess(data_dir, None, args=("--shards", "2", "--gateways", "2"), **env)


def is_root() -> bool:
    return os.geteuid() == 0 and subprocess.run(["ip", "netns"], capture_output=True, check=False).returncode == 0
