"""A Ray cluster of several nodes on this machine, by the very commands of cluster.yaml.

    with RayCluster(nodes=2) as cluster:
        cluster.address            # what `hub serve --ray-address` takes
        cluster.nodes[0].kill()    # everything of that node at once, as a power cut would
        cluster.nodes[0].start()   # and back again

Every node has an address, a temporary folder and processes of its own. With `namespaces=True` (root, iproute2) every
node but the head has a network of its own too, which `cut` and `heal` take away and give back. As a command,
`python -m tests.ray_cluster --nodes 2`, it stays up until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.aftercare import Aftercare
from tests.deployment import Deployment
from tests.namespaces import Bridge
from tests.processes import adopt_orphans, alive, command_of, descendants, end_family, tell

NODE_CPUS = 2
OBJECT_STORE_BYTES = 80 * 1024 * 1024
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


class Node:
    """One node: `ray start` and everything that comes from it."""

    def __init__(self, cluster: RayCluster, name: str, ip: str) -> None:
        self.name = name
        self.ip = ip
        self.netns: str | None = None
        self._cluster = cluster
        self._folder = cluster.folder / name
        self._process: subprocess.Popen[bytes] | None = None
        self.seconds_to_join = 0.0
        self._earlier: set[str] = set()
        """What it was called before: the cluster may not have noticed its end yet when it is started again."""

    @property
    def is_head(self) -> bool:
        return self is self._cluster.head

    # --- starting and stopping ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start it; it has not joined yet when this returns."""
        self._folder.mkdir(exist_ok=True)
        if self.seconds_to_join:
            self._earlier |= self._cluster.ids(self.ip)
        log = open(self._cluster.folder / f"{self.name}.log", "ab")  # noqa: SIM115 (lives as long as the process)
        prefix = ["ip", "netns", "exec", self.netns] if self.netns else []
        self._process = subprocess.Popen(
            [*prefix, "bash", "-c", self._command()],
            env=self._cluster.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=adopt_orphans,
        )
        log.close()
        self._cluster.aftercare.promise("kill", str(self._process.pid))

    def _command(self) -> str:
        """That of cluster.yaml, and what several nodes on one machine need: that each has its own of everything."""
        own = ["--block", "--include-log-monitor=false", f"--node-ip-address={self.ip}"]
        own += [f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={self._folder}"]
        own += ["--dashboard-agent-listen-port=0"]
        address, deployment = self._cluster.address, self._cluster.deployment
        if self.is_head:
            return " ".join([deployment.head_command(address), *own])
        return " ".join([deployment.node_command(address), *own, f"--num-cpus={NODE_CPUS}"])

    def start(self) -> None:
        """Start it, or start it again; returns once the cluster knows it as alive."""
        self.begin()
        self.wait_joined()

    def wait_joined(self) -> None:
        began = time.monotonic()
        while time.monotonic() - began < START_TIMEOUT_S:
            if self._cluster.ids(self.ip) - self._earlier:
                self.seconds_to_join = time.monotonic() - began
                return
            assert self._process is not None
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(f"node {self.name} did not join:\n{self.log()[-3000:]}")

    def log(self) -> str:
        """What `ray start` said."""
        return (self._cluster.folder / f"{self.name}.log").read_text(errors="replace")

    def kill(self) -> None:
        """kill -9 of every process of this node at once."""
        if self._process is not None:
            end_family(self._process.pid)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGTERM: Ray says goodbye to the cluster."""
        if self._process is None:
            return
        family = self.pids()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        for pid in family:
            tell(pid, signal.SIGKILL)
        self.kill()

    @property
    def hub_name(self) -> str:
        """What the hub calls it, for as long as Ray on it is not started again."""
        [id] = self._cluster.ids(self.ip) - self._earlier
        return id[:8]

    # --- its processes --------------------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """All processes of the node, `ray start` itself first."""
        if self._process is None:
            return []
        return [pid for pid in [self._process.pid, *descendants(self._process.pid)] if alive(pid)]

    def pids_of(self, name: str) -> list[int]:
        """Those of a Ray actor class: `Shard`, `GatewayActor`."""
        return [pid for pid in self.pids() if f"ray::{name}" in command_of(pid)]

    def raylet(self) -> int:
        [pid] = [pid for pid in self.pids() if command_of(pid).split(" ")[0].endswith("/raylet")]
        return pid


class RayCluster:
    """A head without CPUs and `nodes` nodes with two each."""

    def __init__(self, nodes: int = 2, *, namespaces: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rayc-", dir="/tmp"))  # sockets want short paths
        self.aftercare = Aftercare()
        self.deployment = Deployment(self.folder / "home")
        self.environment = self.deployment.environment
        self._bridge = Bridge(self.aftercare) if namespaces else None
        network = self._bridge.network if self._bridge else f"127.77.{os.getpid() % 250}"
        head_ip = f"{network}.1"
        self.address = f"{head_ip}:{_free_port(head_ip)}"
        self.head = Node(self, "head", head_ip)
        self.nodes = [self._planned(f"{network}.{n + 2}", f"node{n + 1}") for n in range(nodes)]

    def _planned(self, ip: str, name: str) -> Node:
        node = Node(self, name, ip)
        if self._bridge is not None:
            node.netns = self._bridge.connect(name, ip)
        return node

    @property
    def host_ip(self) -> str:
        """Where nodes reach servers of this machine."""
        return self.head.ip

    def __enter__(self) -> RayCluster:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the head, and all nodes at once as soon as its control store listens."""
        self.deployment.sign_in()
        self.head.begin()
        if not _listens(self.address):
            raise AssertionError(f"the head does not listen at {self.address}:\n{self.head.log()[-3000:]}")
        for node in self.nodes:
            node.begin()
        for node in (self.head, *self.nodes):
            node.wait_joined()

    def add(self) -> Node:
        """One node more. Returns it once it has joined."""
        network = self.head.ip.rpartition(".")[0]
        node = self._planned(f"{network}.{len(self.nodes) + 2}", f"node{len(self.nodes) + 1}")
        self.nodes.append(node)
        node.start()
        return node

    def close(self) -> None:
        for node in [*self.nodes, self.head]:
            node.kill()
        self.deployment.sign_out()
        if self._bridge is not None:
            self._bridge.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.aftercare.call_off()

    # --- the network ----------------------------------------------------------------------------------------------

    def cut(self, node: Node) -> None:
        """Nothing reaches the node any more, and it reaches nobody; its processes go on."""
        assert self._bridge is not None and node.netns is not None, "only nodes with a network of their own can be cut"
        self._bridge.cut(node.name)

    def heal(self, node: Node) -> None:
        assert self._bridge is not None
        self._bridge.heal(node.name)

    # --- what the cluster knows -----------------------------------------------------------------------------------

    def alive_ips(self) -> set[str]:
        """Addresses of the nodes that the control store takes for alive."""
        return {str(info["ip"]) for info in self._infos() if info["alive"]}

    def ids(self, ip: str) -> set[str]:
        """Of the node at that address: two, while the death of the first one has not been noticed."""
        return {str(info["id"]) for info in self._infos() if info["alive"] and info["ip"] == ip}

    def _infos(self) -> list[dict[str, Any]]:
        from ray._raylet import GcsClient

        with contextlib.suppress(Exception):
            found = GcsClient(address=self.address).get_all_node_info(timeout=2)
            # State 0 is alive: protobuf's GcsNodeInfo.GcsNodeState.
            return [
                {"id": info.node_id.hex(), "ip": info.node_manager_address, "alive": info.state == 0}
                for info in found.values()
            ]
        return []

    def wait_dead(self, node: Node, timeout_s: float = 60.0) -> float:
        """Seconds until the control store has noticed that the node is gone."""
        began = time.monotonic()
        while node.ip in self.alive_ips():
            if time.monotonic() - began > timeout_s:
                raise AssertionError(f"after {timeout_s} s the cluster still takes {node.name} for alive")
            time.sleep(0.02)
        return time.monotonic() - began


def _free_port(ip: str) -> int:
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    give_up = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with contextlib.suppress(KeyboardInterrupt):
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ray_cluster", description="A Ray cluster on this machine.")
    parser.add_argument("--nodes", type=int, default=2, help="nodes beside the head")
    parser.add_argument("--namespaces", action="store_true", help="a network for each node (root)")
    args = parser.parse_args()
    with until_interrupted(), RayCluster(args.nodes, namespaces=args.namespaces) as cluster:
        token = cluster.environment["RAY_AUTH_TOKEN_PATH"]
        print(f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token} hub serve --ray-address {cluster.address}", flush=True)
        for node in (cluster.head, *cluster.nodes):
            print(f"{node.name}: {node.ip}, raylet {node.raylet()}", flush=True)
        print("Ctrl-C ends it.", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
