"""A whole cluster without Ray: directory, shards and a gateway's router over real sockets, with processes that die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from actors.assignment import STANDBY, Member
from actors.desk import Desk
from actors.office import EVERYTHING, Office
from actors.router import Router
from hub.commands import Done, GetConversation, Invocation, ReceiveMessage
from hub.ids import conversation_id, customer_id
from hub.storage.memory import MemoryStore
from tests.unit.actors.rig import KEYRING, TENANT, Provider

PARTITIONS = 8
LIMIT_S = 20.0
HERE = "127.0.0.1"


class Cluster:
    def __init__(self) -> None:
        self.store = MemoryStore(PARTITIONS)
        self.office: Office | None = None
        self.address = (HERE, 1)
        self.desks: dict[str, Desk] = {}
        self.opening: list[asyncio.Task[None]] = []
        self.linked: list[str] = []
        self.router = Router(
            Member("g0", "gateway", "a", incarnation=1),
            PARTITIONS,
            secret=KEYRING.derive("wire"),
            find_directory=self.find,
            on_link=self.linked.append,
            on_feeds=lambda feeds: None,
        )

    async def find(self) -> tuple[str, int]:
        return self.address

    async def open_office(self, expected: int = 2) -> None:
        self.office = Office(KEYRING.derive("wire"), PARTITIONS, seats=2, expected=expected)
        await self.office.open(HERE)
        self.address = self.office.address

    def start(self, name: str, node: str = "a") -> Desk:
        desk = self.desks[name] = Desk(name, node, time.time_ns(), store=self.store, keyring=KEYRING, sender=Provider())
        self.opening.append(asyncio.get_running_loop().create_task(desk.open(HERE, self.find)))
        return desk

    async def ready(self) -> None:
        await self.router.start()
        await until(lambda: set(self.linked) >= set(self.desks))

    def owned(self, name: str) -> list[int]:
        assert self.office is not None
        return self.office.membership.assignment.of(name)

    async def stop(self) -> None:
        await self.router.stop()
        for desk in self.desks.values():
            kill(desk)
        for task in self.opening:
            task.cancel()
        if self.office is not None:
            self.office.close()
        await asyncio.sleep(0)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    await cluster.open_office()
    for name in ("s0", "s1", "s2"):
        cluster.start(name)
    async with asyncio.timeout(LIMIT_S):
        await cluster.ready()
    yield cluster
    await cluster.stop()


def kill(desk: Desk) -> None:
    """As kill -9 does: sockets close, and no line of it runs any more."""
    if desk._listener._server is not None:
        desk._listener._server.close()
    assert desk._follower is not None
    for link in [*desk._listener.links, desk._follower._link]:
        if link is not None and link.transport is not None:
            for reply in link._tasks:
                reply.cancel()
            link.transport.abort()
    host = desk.host
    workers = list(host.courier._workers.values())
    for task in [*desk._tasks, *host._tasks, *workers, *(t for p in host.partitions.values() for t in p._tasks)]:
        task.cancel()


def cut_from_directory(desk: Desk) -> None:
    """It can reach the store and its gateways, and nobody who knows what it should own."""
    assert desk._follower is not None

    async def nowhere() -> tuple[str, int]:
        raise ConnectionError

    desk._follower._find = nowhere
    if desk._follower._link is not None and desk._follower._link.transport is not None:
        desk._follower._link.transport.abort()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.002)


class Traffic:
    """A customer in each partition writes without waiting for answers; every answer must name the next message."""

    def __init__(self, cluster: Cluster) -> None:
        self._router = cluster.router
        self._going = True
        self.acknowledged = 0
        self.slowest_s = 0.0
        self._customers = [asyncio.ensure_future(self._write(partition)) for partition in range(PARTITIONS)]

    async def _write(self, partition: int) -> None:
        identity = f"tel:+{partition}"
        stream = customer_id(secret=KEYRING.identity_secret, tenant=TENANT, identity=identity, among=(partition,))
        answers = []
        while self._going:
            command = ReceiveMessage(
                channel="wa",
                channel_kind="plain",
                identity=identity,
                address=str(partition),
                external_id=f"{partition}-{len(answers)}",
                text="Hola",
            )
            answers.append(asyncio.ensure_future(self._timed(Invocation(TENANT, stream, command))))
            await asyncio.sleep(0.003)
        outcomes = await asyncio.gather(*answers)
        conversation = conversation_id(stream, 1)
        assert [outcome.message_id for outcome in outcomes] == [
            f"msg_{conversation[4:]}-{number}" for number in range(1, len(outcomes) + 1)
        ]
        held = await self._router.send(Invocation(TENANT, stream, GetConversation(conversation=conversation)))
        assert isinstance(held, Done), held
        assert f'"seq":{len(outcomes)},' in held.conversation.decode()

    async def _timed(self, invocation: Invocation) -> Done:
        began = asyncio.get_running_loop().time()
        answer = await self._router.send(invocation)
        assert isinstance(answer, Done), answer
        self.acknowledged += 1
        self.slowest_s = max(self.slowest_s, asyncio.get_running_loop().time() - began)
        return answer

    async def more(self, count: int = 200) -> None:
        """Return once that many more have been acknowledged."""
        target = self.acknowledged + count
        async with asyncio.timeout(LIMIT_S):
            while self.acknowledged < target:
                for customer in self._customers:
                    if customer.done():
                        customer.result()
                await asyncio.sleep(0.002)

    async def end(self) -> None:
        self._going = False
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*self._customers)


async def test_commands_flow_to_whoever_owns_their_partition(cluster: Cluster) -> None:
    traffic = Traffic(cluster)
    await traffic.more()
    await traffic.end()
    served = {name: desk.host.commands for name, desk in cluster.desks.items() if desk.host.commands}
    assert len(served) == 2
    assert {name for name, desk in cluster.desks.items() if desk.host.partitions} == set(served)


async def test_a_standby_serves_within_a_second_of_a_kill_and_nothing_is_lost_or_doubled(cluster: Cluster) -> None:
    traffic = Traffic(cluster)
    await traffic.more()
    [standby] = [name for name in cluster.desks if not cluster.owned(name)]
    [victim, *_] = [name for name in cluster.desks if cluster.owned(name)]
    had = cluster.owned(victim)
    kill(cluster.desks[victim])
    await traffic.more(400)
    assert cluster.owned(standby) == had
    await traffic.end()
    assert traffic.slowest_s < 1.0


async def test_a_kill_without_a_standby_is_taken_over_by_the_others(cluster: Cluster) -> None:
    [standby] = [name for name in cluster.desks if not cluster.owned(name)]
    kill(cluster.desks.pop(standby))
    traffic = Traffic(cluster)
    await traffic.more()
    [victim, survivor] = cluster.desks
    kill(cluster.desks[victim])
    await traffic.more(400)
    assert cluster.owned(survivor) == list(range(PARTITIONS))
    await traffic.end()
    assert traffic.slowest_s < 2.0


async def test_partitions_move_to_a_new_node_and_off_again_under_load(cluster: Cluster) -> None:
    traffic = Traffic(cluster)
    await traffic.more()
    cluster.start("t0", node="b")
    cluster.start("t1", node="b")
    await until(lambda: len(cluster.owned("t0")) == len(cluster.owned("t1")) == PARTITIONS // 4)
    await traffic.more()
    drained = await cluster.router.directory.leave("a")
    assert b"draining" in drained
    assert cluster.office is not None
    await until(lambda: cluster.office is not None and cluster.office.membership.drained() == ["a"])
    await traffic.more()
    assert {owner[0] for owner in cluster.office.membership.assignment.owners} == {"t"}
    await traffic.end()
    assert traffic.slowest_s < 2.0
    assert all(not cluster.desks[name].host.partitions for name in ("s0", "s1", "s2"))


async def test_nobody_notices_a_directory_that_is_restarted_elsewhere(cluster: Cluster) -> None:
    traffic = Traffic(cluster)
    await traffic.more()
    assert cluster.office is not None
    before = cluster.office.membership.assignment
    owners, version = list(before.owners), before.version
    cluster.office.close()
    await traffic.more()
    await cluster.open_office()
    office = cluster.office
    await until(lambda: len(office.membership.assignment.members) == 4)
    await until(lambda: cluster.router.directory.connected)
    await traffic.more()
    await traffic.end()
    assert office.membership.assignment.owners == owners
    assert cluster.router.directory.assignment.version >= version
    assert traffic.slowest_s < 0.5


async def test_a_shard_that_is_cut_off_from_the_directory_does_not_take_its_partitions_back(cluster: Cluster) -> None:
    """It is replaced, fenced by its first write, and cannot be told that they are its own: so they are not."""
    traffic = Traffic(cluster)
    await traffic.more()
    [victim, *_] = [name for name in cluster.desks if cluster.owned(name)]
    had, desk = cluster.owned(victim), cluster.desks[victim]
    cut_from_directory(desk)
    await until(lambda: not cluster.owned(victim))
    await traffic.more(400)
    epochs = [cluster.store.journal.epoch(partition) for partition in range(PARTITIONS)]
    command = ReceiveMessage(
        channel="wa", channel_kind="plain", identity="tel:+z", address="z", external_id="z", text="Hola"
    )
    streams = [customer_id(secret=KEYRING.identity_secret, tenant=TENANT, identity="tel:+z", among=(p,)) for p in had]
    answers = await desk.host.submit([Invocation(TENANT, stream, command) for stream in streams])
    assert {getattr(answer, "code", "done") for answer in answers} == {"unavailable"}
    assert desk.host.partitions == {}
    await traffic.more(400)
    assert [cluster.store.journal.epoch(partition) for partition in range(PARTITIONS)] == epochs
    await traffic.end()


async def test_a_shard_that_was_replaced_is_a_standby_when_it_is_back(cluster: Cluster) -> None:
    [victim, *_] = [name for name in cluster.desks if cluster.owned(name)]
    desk = cluster.desks[victim]
    cut_from_directory(desk)
    await until(lambda: not cluster.owned(victim))
    assert desk._follower is not None
    desk._follower._find = cluster.find
    assert cluster.office is not None
    office = cluster.office
    await until(lambda: any(m.name == victim and m.seat == STANDBY for m in office.membership.assignment.members))
    await until(lambda: desk.host.partitions == {})
    traffic = Traffic(cluster)
    await traffic.more()
    await traffic.end()


async def test_a_stop_is_told_to_whoever_asks(cluster: Cluster) -> None:
    await cluster.router.directory.leave(EVERYTHING)
    assert cluster.office is not None
    assert cluster.office.status()["stopping"] is True


async def test_an_unknown_node_cannot_be_drained(cluster: Cluster) -> None:
    with pytest.raises(Exception, match="there is no node 'x'; there are a"):
        await cluster.router.directory.leave("x")
