"""The world of a run: a hub with two shards and two gateways, its home, and what else the fault breaks."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from tests.aftercare import Aftercare
from tests.faults.disk import Disk
from tests.faults.homes import Server, running_home, storage_url
from tests.faults.relay import Relay
from tests.hub_process import HubProcess, free_port, running_hub
from tests.processes import alive, command_of, cpu_seconds, memory_bytes
from tests.ray_cluster import Node, RayCluster

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
        self.storage = ""
        """What the hub takes as `--storage`; nothing for its own."""
        self.healed_at: float | None = None
        """When a fault that has two moments, done and undone, was undone."""
        self.peak_bytes = 0
        self._cpu_s: dict[int, float] = {}

    @property
    def urls(self) -> list[str]:
        """The gateways, as the clients know them. Those of one machine share a port."""
        if self.cluster is None or self.needs.machines == "two":
            return [self.hub.url]
        return [f"http://{node.ip}:{self.hub.port}" for node in self.cluster.nodes]

    @property
    def host(self) -> str:
        """This machine, as the hub's processes reach it."""
        return self.cluster.host_ip if self.cluster and self.needs.machines == "networks" else "127.0.0.1"

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

    def busiest_node(self) -> Node:
        """The node that the busiest shard is on."""
        assert self.cluster is not None
        shard = self.busiest("Shard")
        return next(node for node in self.cluster.nodes if shard in node.pids())

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
        if world.database is not None:
            world.storage = storage_url(home, world.database)
            if world.host != "127.0.0.1":
                relay = Relay(world.host, world.storage)
                stack.callback(relay.close)
                world.storage = relay.url
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
    env = _environment(world)
    cluster = world.cluster
    if cluster is None:
        return HubProcess(data_dir, args=("--shards", "2", "--gateways", "2"), **env)
    env |= {name: value for name, value in cluster.environment.items() if name.startswith("RAY_")}
    clustered = ["--ray-address", cluster.address, "--shards", "1", "--gateways", "1"]
    if world.needs.machines == "two":
        return HubProcess(data_dir, args=clustered, **env)
    # Gateways of several networks cannot be on loopback, which demo tenants need: another hub makes them first.
    with running_hub(data_dir, **env):
        pass
    clustered += ["--host", "0.0.0.0", "--requests-per-minute", REQUESTS_PER_MINUTE]
    port = free_port()
    return HubProcess(
        data_dir, port, args=clustered, demo=False, ready_url=f"http://{cluster.nodes[0].ip}:{port}", **env
    )


def _environment(world: World) -> dict[str, Any]:
    env = {"HUB_WHATSAPP_API": f"http://{world.host}:{world.provider_port}"}
    if world.storage:
        env["HUB_STORAGE"] = world.storage
    if world.redis is not None:
        env["HUB_REDIS"] = world.redis.url
    return env
