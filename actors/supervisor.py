"""The supervisor: starts Ray, the directory, and shards and gateways on every node; keeps an eye on them. Off the data path."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import ray

from actors import directory, processes, shard
from hub.config import Config, is_loopback, marks

log = logging.getLogger("hub.supervisor")

WATCH_EVERY_S = 1.0
PING_TIMEOUT_S = 10.0
NODES_TIMEOUT_S = 10.0
START_TIMEOUT_S = 90.0
DRAIN_TIMEOUT_S = 25.0
LINGER_S = 2.0
"""How long a draining gateway still takes requests, for the load balancer to notice."""
OBJECT_STORE_BYTES = 128 * 1024 * 1024
LOCAL = "local"
"""The only node there is, where the hub runs on a Ray of its own."""
# Ray runs workers at nice 15, which starves a server that shares its machine; it reports every call of an actor
# to its control store, which costs more than our calls do; the rest we neither read nor want sent anywhere.
RAY_ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_metrics_report_interval_ms": "60000",
    "RAY_event_stats": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}


class Node(msgspec.Struct):
    """What runs on one node. `ray_id` is None for the only node there is."""

    name: str
    ray_id: str | None
    shards: dict[str, Any] = {}
    gateways: dict[str, Any] = {}
    draining: asyncio.Task[None] | None = None
    drained: bool = False

    @property
    def handles(self) -> dict[str, Any]:
        return {**self.shards, **self.gateways}


class Supervisor:
    def __init__(self, config: Config, partitions: int, start_gateway: Callable[..., Any]) -> None:
        self._config = config
        self._partitions = partitions
        self._start_gateway = start_gateway
        self._directory: Any = None
        self.lost_ray = False
        """Ray itself is gone: what it started may live on, but nobody would start it again."""
        self._pids: dict[str, int] = {}
        self._pings: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.nodes: dict[str, Node] = {}

    # --- starting -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; returns before it is ready. Raises ValueError where the cluster cannot carry the hub."""
        _start_ray(self._config)
        nodes = self._present()
        if not nodes:
            raise ValueError("no node of the Ray cluster has a CPU to give; start one with: ray start --address=…")
        if not _one_machine(nodes) and self._config.storage.startswith("sqlite:"):
            raise ValueError("embedded storage serves one machine; give --storage postgresql://… or mongodb://…")
        expected = self._config.shards * len(nodes)
        self._directory = directory.start(self._config, self._partitions, expected, clustered=self._clustered)
        if self._clustered:
            self._adopt(nodes)
        for name, found in nodes.items():
            if name not in self.nodes:
                self._start_shards(self._settle(name, found["id"]), self._config.shards)

    def _adopt(self, nodes: dict[str, dict[str, Any]]) -> None:
        """The hub of an earlier `hub serve` may be running here: it goes on, if it is the one that we would start.

        Raises ValueError where it is another one.
        """
        get: Any = ray.get
        running = get(self._directory.marks.remote(), timeout=START_TIMEOUT_S)
        mine = marks(self._config)
        others = [name for name in mine if running.get(name) != mine[name]]
        if others:
            raise ValueError(
                f"a hub runs on this cluster that was started with another {', '.join(others)}; "
                "start with the same, or stop it first: hub drain"
            )
        for name in get(self._directory.status.remote(), timeout=START_TIMEOUT_S)["drained"]:
            if name in nodes:
                self.nodes[name] = Node(name, nodes[name]["id"], {}, {}, drained=True)

    @property
    def _clustered(self) -> bool:
        return self._config.ray_address is not None

    def _present(self) -> dict[str, dict[str, Any]]:
        """Nodes that can carry processes, by the name that we give them."""
        if not self._clustered:
            return {LOCAL: {"id": None, "ip": processes.own_address()}}
        return {
            str(node["NodeID"])[:8]: {"id": str(node["NodeID"]), "ip": str(node["NodeManagerAddress"])}
            for node in _ray_nodes()
            if node["Alive"] and node["Resources"].get("CPU", 0) > 0
        }

    def _settle(self, name: str, ray_id: str | None) -> Node:
        node = self.nodes[name] = Node(name, ray_id, {}, {})
        for number in range(self._config.gateways):
            label = self._label("gateway", name, number)
            node.gateways[label] = self._start_gateway(label, name, self._config, **self._placed(node))
        return node

    def _start_shards(self, node: Node, count: int) -> None:
        for number in range(count):
            label = self._label("shard", node.name, number)
            if label not in node.shards:
                node.shards[label] = shard.start(label, node.name, self._config, **self._placed(node))

    def _placed(self, node: Node) -> dict[str, Any]:
        return {"on": node.ray_id, "detached": self._clustered}

    def _label(self, kind: str, node: str, number: int) -> str:
        return f"hub-{kind}-{number}" if node == LOCAL else f"hub-{kind}-{node}-{number}"

    async def ready(self) -> None:
        """Return once every shard owns its partitions and every gateway listens. Raises what stopped one."""
        async with asyncio.timeout(START_TIMEOUT_S):
            await self._directory.address.remote()
            calls = [handle.ping.remote() for node in self.nodes.values() for handle in node.handles.values()]
            for call in calls:
                await call
        # A standby is not needed to be ready, and starting it would delay those that are.
        for node in self.nodes.values():
            if not node.drained:
                self._start_shards(node, self._config.shards + self._config.standbys)

    # --- watching -------------------------------------------------------------------------------------------------

    async def watch(self, stop: asyncio.Event) -> None:
        """Nodes come and go, processes are restarted, operators drain; sets `stop` where the hub is told to stop."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            if self._clustered:
                try:
                    await self._follow_nodes()
                except Exception as error:  # whatever Ray raises while its control store is away
                    log.warning("the Ray cluster cannot be followed: %s; trying again", error or type(error).__name__)
            for node in self.nodes.values():
                for name, handle in node.handles.items():
                    self._ping_soon(name, handle)
            status = await self._status()
            if status.get("stopping") or self.lost_ray:
                stop.set()
            for name in status.get("draining", ()):
                found = self.nodes.get(name)
                if found is not None and found.draining is None:
                    found.draining = self._spawn(self._drain_node(found))

    async def _follow_nodes(self) -> None:
        async with asyncio.timeout(NODES_TIMEOUT_S):
            present = await asyncio.to_thread(self._present)
        for name in [name for name in self.nodes if name not in present]:
            log.warning("node %s is gone", name)
            for handle in self.nodes.pop(name).handles.values():
                processes.end(handle)
        for name, found in present.items():
            if name not in self.nodes:
                log.info("node %s has joined", name)
                self._join(name, found["id"])

    def _join(self, name: str, ray_id: str) -> None:
        try:
            self._start_shards(self._settle(name, ray_id), self._config.shards + self._config.standbys)
        except Exception:
            self.nodes.pop(name, None)  # begun again the next time: what runs already is found by its name
            raise

    async def _status(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                status: dict[str, Any] = await self._directory.status.remote()
                self._pids[directory.NAME] = status["pid"]
                return status
        except ray.exceptions.ActorDiedError:
            # It is restarted for ever, so this is not its own death.
            self.lost_ray = True
            return {}
        except Exception as error:
            log.warning("the directory is restarting: %s", type(error).__name__)
            return {}

    def _ping_soon(self, name: str, handle: Any) -> None:
        """A restarted process begins its work with the first call it gets: this one, at the latest."""
        if name not in self._pings:
            self._pings.add(name)
            self._spawn(self._ping(name, handle))

    async def _ping(self, name: str, handle: Any) -> None:
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                self._pids[name] = await handle.ping.remote()
        except Exception as error:
            log.warning("%s is restarting: %s", name, type(error).__name__)
        finally:
            self._pings.discard(name)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- draining -------------------------------------------------------------------------------------------------

    async def _drain_node(self, node: Node) -> None:
        """Its sessions go elsewhere while its partitions move; when both are done its processes end."""
        log.info("draining node %s", node.name)
        try:
            await _drain(node.gateways, LINGER_S)
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while node.name not in (await self._status()).get("emptied", ()):
                    await asyncio.sleep(WATCH_EVERY_S / 4)
            await _drain(node.shards)
            for handle in node.handles.values():
                processes.end(handle)
        except Exception as error:
            log.warning("node %s is not drained yet: %s; trying again", node.name, error or type(error).__name__)
            node.draining = None
            return
        node.shards, node.gateways, node.drained = {}, {}, True
        log.info("node %s is drained", node.name)

    async def drain(self) -> None:
        """Gateways first, so that nothing new comes in; then shards, so that what came in is finished."""
        nodes = [node for node in self.nodes.values() if not node.drained]
        await _drain({name: handle for node in nodes for name, handle in node.gateways.items()})
        await _drain({name: handle for node in nodes for name, handle in node.shards.items()})
        if self._clustered:
            for node in nodes:
                for handle in node.handles.values():
                    processes.end(handle)
            processes.end(self._directory)

    def bury(self) -> None:
        """End what a Ray that is gone has left behind: processes that nobody watches any more.

        Ray's own shutdown ends this process too where its raylet is dead.
        """
        for pid in (*self._pids.values(), *_children()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            pass


def _children() -> list[int]:
    """Processes this one has started: Ray's own servers."""
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


async def _drain(handles: dict[str, Any], *args: object) -> None:
    calls = {name: handle.drain.remote(*args) for name, handle in handles.items()}
    for name, call in calls.items():
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await call
        except Exception as error:
            log.warning("%s did not drain: %s", name, type(error).__name__)


def _one_machine(nodes: dict[str, dict[str, Any]]) -> bool:
    addresses = {node["ip"] for node in nodes.values()}
    return len(addresses) == 1 or all(is_loopback(address) for address in addresses)


def _ray_nodes() -> list[dict[str, Any]]:
    listing: Any = ray.nodes
    found: list[dict[str, Any]] = listing()
    return found


def _start_ray(config: Config) -> None:
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if config.ray_address:
        ray.init(address=config.ray_address, namespace=processes.NAMESPACE, log_to_driver=False)
        return
    _leave_out_what_one_machine_never_uses()
    # "local", or else it would join whatever cluster somebody has started on this machine.
    ray.init(
        address="local",
        include_dashboard=False,
        namespace=processes.NAMESPACE,
        log_to_driver=True,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
    )


def _leave_out_what_one_machine_never_uses() -> None:
    """A Ray of our own on one machine needs neither an autoscaler's monitor nor a dashboard's web server.

    Ray has no setting for either (`include_dashboard=False` still starts the server's process), and starting those
    two costs a small machine two seconds of every cold start.
    """
    from ray._private.node import Node as RayNode

    for name in ("start_monitor", "start_api_server"):
        if hasattr(RayNode, name):
            setattr(RayNode, name, _do_nothing)


def _do_nothing(*args: object, **kwargs: object) -> None:
    pass
