"""A head and two nodes, started by cluster.yaml's own commands and the service's own entry point: all serve, any may go."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.faults.evidence import gather
from tests.faults.load import Load
from tests.hub_process import (
    KEY,
    HubProcess,
    agent_stream,
    client,
    deliver,
    free_port,
    one_client_for_each_gateway,
    whatsapp_payload,
    whatsapp_text,
)
from tests.ray_cluster import Node, RayCluster
from tests.servers.postgres import PostgresServer

TAKEOVER_MAX_S = 10.0
PAUSE_MAX_S = 2.0
SHARES_WITHIN_S = 40.0
DRAIN_WITHIN_S = 60
PATIENCE_S = 5.0
ADOPTED_WITHIN_S = 30.0

pytestmark = pytest.mark.timeout(180)


class Cluster:
    def __init__(self, nodes: RayCluster, hub: HubProcess, provider_port: int) -> None:
        self.nodes = nodes
        self.hub = hub
        self.provider_port = provider_port

    async def status(self) -> dict[str, Any]:
        """As some gateway sees it."""
        async with client(self.hub) as http:
            return dict((await http.get("/v1/status")).json())

    async def shared_out(self, *nodes: Node) -> float:
        """Return once exactly these nodes have a gateway and a part of the partitions; the seconds it took."""
        wanted, began = {node.hub_name for node in nodes}, time.monotonic()
        while True:
            try:
                status = await self.status()
            except httpx.TransportError:
                status = {"nodes": [], "members": []}
            if _carry(status) == wanted and _at_work(status) == wanted:
                return time.monotonic() - began
            assert time.monotonic() - began < SHARES_WITHIN_S, f"{sorted(wanted)} do not share the work: {status}"
            await asyncio.sleep(0.2)

    def hub_pids(self) -> set[int]:
        """Shards, gateways and the directory."""
        found = self.nodes.head.pids_of("Directory")
        for node in self.nodes.nodes:
            found += node.pids_of("Shard") + node.pids_of("GatewayActor")
        return set(found)


def _carry(status: dict[str, Any]) -> set[str]:
    return {node["name"] for node in status["nodes"] if node["partitions"] and node["state"] == "serving"}


def _at_work(status: dict[str, Any]) -> set[str]:
    return {member["node"] for member in status["members"] if member["role"] == "gateway"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    database = PostgresServer().start()
    with contextlib.ExitStack() as stack:
        stack.callback(database.remove)
        nodes = stack.enter_context(RayCluster(nodes=2))
        provider_port = free_port()
        environment = nodes.environment | {"RAY_ADDRESS": nodes.address}
        environment["HUB_STORAGE"] = f"{database.url}/postgres"
        environment["HUB_WHATSAPP_API"] = f"http://127.0.0.1:{provider_port}"
        hub = HubProcess(
            tmp_path_factory.mktemp("cluster") / "data", command=nodes.deployment.hub_command(), **environment
        )
        stack.callback(hub.stop)
        yield Cluster(nodes, hub.start(), provider_port)


@contextlib.asynccontextmanager
async def under_load(cluster: Cluster) -> AsyncIterator[Load]:
    """At the end every acknowledged message is where it belongs, once, and nobody was told that it cannot be."""
    load = Load([cluster.hub.url], patience_s=PATIENCE_S)
    try:
        await load.provider.open(cluster.provider_port)
        await load.start()
        yield load
        assert await load.finish() == 0, "writers never got their last message acknowledged"
        evidence = await gather(load, [cluster.hub.url])
        assert (evidence.lost, evidence.doubled, evidence.reordered, evidence.problems) == (0, 0, 0, [])
        assert load.record.errors == {}
    finally:
        await load.close()


async def everyone_served(load: Load) -> None:
    """Return once every writer has been acknowledged two messages more: one at least that it wrote after this began."""
    wanted = {writer: writer.acked + 2 for writer in load.writers}
    async with asyncio.timeout(TAKEOVER_MAX_S):
        while any(writer.acked < count for writer, count in wanted.items()):
            await asyncio.sleep(0.05)


def longest_ack_s(load: Load, since: float) -> float:
    return max(ack.took_s for ack in load.record.acks if ack.at > since)


# --- what a cluster is ------------------------------------------------------------------------------------------------


async def test_every_node_has_a_gateway_and_a_share_of_the_partitions(cluster: Cluster) -> None:
    await cluster.shared_out(*cluster.nodes.nodes)
    status = await cluster.status()
    assert sum(node["partitions"] for node in status["nodes"]) == 16
    assert {node["partitions"] for node in status["nodes"]} == {8}
    assert cluster.nodes.head.pids_of("Shard") == [] and len(cluster.nodes.head.pids_of("Directory")) == 1


async def test_any_gateway_serves_any_tenant_and_shows_what_came_in_through_another(cluster: Cluster) -> None:
    async with one_client_for_each_gateway(cluster.hub) as gateways, agent_stream(cluster.hub) as stream:
        assert {(await http.get("/v1/status", headers=KEY)).json()["node"] for http in gateways} == {
            node.hub_name for node in cluster.nodes.nodes
        }
        for number, http in enumerate(gateways):
            assert (await http.get("/v1/me", headers={"X-API-Key": "demo2-key"})).json()["tenant"] == "demo2"
            assert (await http.get("/readyz")).status_code == 200
            answer = await deliver(
                http, whatsapp_payload(whatsapp_text(f"5841200000{number}", f"wamid.c{number}", "hola"))
            )
            assert answer.status_code == 200
            seen = await stream.event("message.received")
            assert seen["event"]["message"]["external_id"] == f"wamid.c{number}"


async def test_the_supervisor_may_be_killed_and_finds_everything_running_when_it_is_back(cluster: Cluster) -> None:
    """What systemd would do: it is started again by the same command."""
    before, old = cluster.hub_pids(), cluster.hub.process
    assert old is not None
    old.send_signal(signal.SIGKILL)
    old.wait()
    async with client(cluster.hub) as http:
        answer = await deliver(http, whatsapp_payload(whatsapp_text("58412000010", "wamid.orphan", "hola")))
        assert answer.status_code == 200
    await asyncio.to_thread(cluster.hub.start)
    await logged(cluster.hub, "is ready", 2)
    assert before <= cluster.hub_pids()


async def logged(hub: HubProcess, text: str, times: int) -> None:
    give_up = time.monotonic() + ADOPTED_WITHIN_S
    while hub.log().count(text) < times:
        assert time.monotonic() < give_up and hub.process is not None and hub.process.poll() is None, hub.log()[-2000:]
        await asyncio.sleep(0.1)


# --- nodes go and come ------------------------------------------------------------------------------------------------


async def test_a_node_may_die_under_load_and_gets_its_share_back(cluster: Cluster) -> None:
    lost, left = cluster.nodes.nodes
    async with under_load(cluster) as load:
        died = time.monotonic()
        await asyncio.to_thread(lost.kill)
        await cluster.shared_out(left)
        await everyone_served(load)
        took_s = longest_ack_s(load, died)
        assert took_s < TAKEOVER_MAX_S
        await asyncio.to_thread(lost.start)
        back = time.monotonic()
        shared_s = await cluster.shared_out(lost, left)
        await everyone_served(load)
        pause_s = longest_ack_s(load, back)
    print(f"node died: longest ack {took_s:.2f} s; back: share after {shared_s:.1f} s, longest ack {pause_s:.2f} s")
    print(dict(load.record.refusals))
    assert pause_s < PAUSE_MAX_S


async def test_a_rolling_restart_under_load_loses_nothing_and_refuses_nothing(cluster: Cluster) -> None:
    async with under_load(cluster) as load:
        began = time.monotonic()
        restarted: list[Node] = []
        while len(restarted) < 2:
            # First whichever node answers, by what a pod does before it ends; then the other one, by its name.
            names = [node.hub_name for node in cluster.nodes.nodes if node not in restarted]
            which = ["--node", names[0]] if restarted else ["--here", cluster.hub.url]
            name = await drained(cluster, *which)
            [node] = [node for node in cluster.nodes.nodes if node.hub_name == name]
            restarted.append(node)
            assert node.pids_of("Shard") == node.pids_of("GatewayActor") == []
            await asyncio.to_thread(node.stop)
            await asyncio.to_thread(node.start)
            await cluster.shared_out(*cluster.nodes.nodes)
            await everyone_served(load)
        took_s, longest_s = time.monotonic() - began, longest_ack_s(load, began)
    print(f"rolling restart in {took_s:.1f} s, longest ack {longest_s:.2f} s, {dict(load.record.refusals)}")
    assert longest_s < PAUSE_MAX_S
    assert set(load.record.refusals) <= {"going_away"}


async def drained(cluster: Cluster, *which: str) -> str:
    """The name of the node that was."""
    hub = [cluster.nodes.deployment.hub_command()[0], "drain", *which, "--timeout", str(DRAIN_WITHIN_S)]
    hub += ["--url", cluster.hub.url, "--data-dir", str(cluster.hub.data_dir)]
    done = await asyncio.create_subprocess_exec(*hub, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    said, _ = await done.communicate()
    assert done.returncode == 0, said.decode()
    [name] = re.findall(r"node (\w+) is drained", said.decode())
    return str(name)
