"""Fan-out to those who follow a tenant that is spread over partitions of two shards: everything, once, and in order."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors.publication import Publication
from api.fanout import INBOX, Fanout, Subscription
from api.sessions import TOO_SLOW, Session
from hub import commands as c
from hub import positions
from hub.errors import Unavailable
from hub.ids import customer_id, partitions_of, stream_partition
from tests.unit.actors.rig import KEYRING, TENANT, Gate, GatedStore, Rig, in_virtual_time, inbound

PARTITIONS = 4
MINE = partitions_of(TENANT, PARTITIONS, PARTITIONS)
SENDERS = [f"tel:+{number}" for number in range(12)]


def customer(identity: str) -> str:
    return customer_id(secret=KEYRING.identity_secret, tenant=TENANT, identity=identity, among=MINE)


def sender_in(partition: int) -> str:
    """Somebody who lives there."""
    return next(f"tel:+{n}" for n in range(1_000) if stream_partition(customer(f"tel:+{n}"), PARTITIONS) == partition)


class Shards:
    """What there is behind the routers of all gateways: hosts in memory. A feed can be held up, a replay too."""

    def __init__(self, store: GatedStore, hosts: dict[str, Rig]) -> None:
        self.store = store
        self._hosts = hosts
        self.members = list(hosts)
        self.down: set[str] = set()
        self.feeds: dict[str, Gate] = {name: Gate() for name in hosts}
        self.replays: dict[int, Gate] = {number: Gate() for number in range(PARTITIONS)}
        self.receive: dict[str, Callable[[bytes], None]] = {}

    def owner(self, partition: int) -> str:
        [name] = [name for name, rig in self._hosts.items() if partition in rig.host.partitions]
        return name

    async def attend(self, gateway: str, shard: str, tenants: list[str]) -> tuple[int, dict[int, int]]:
        if shard in self.down:
            raise Unavailable
        host = self._hosts[shard].host
        host.publisher.attend(gateway, tenants, lambda name: self._connect(shard, name))
        return 1, host.heads()

    def _connect(self, shard: str, gateway: str) -> Callable[[bytes], Awaitable[None]]:
        async def send(feeds: bytes) -> None:
            await self.feeds[shard].arrive()
            self.receive[gateway](feeds)

        return send

    async def replay(self, partition: int, tenant: str, after: int, upto: int) -> list[Publication]:
        await self.replays[partition].arrive()
        return await self._hosts[self.owner(partition)].host.replay(partition, tenant, after, upto)

    async def write(self, *senders: str) -> None:
        """One message of each, side by side."""
        work = []
        for sender in senders:
            command = inbound(f"in-{next(_numbers)}", sender)
            invocation = c.Invocation(TENANT, customer(sender), command)
            number = stream_partition(invocation.stream, PARTITIONS)
            work.append(self._hosts[self.owner(number)].host.submit([invocation]))
        for [answer] in await asyncio.gather(*work):
            assert isinstance(answer, c.Done), answer


class Router:
    """What a router is to a fan-out: one gateway's way to the shards."""

    def __init__(self, name: str, shards: Shards) -> None:
        self.partitions = PARTITIONS
        self.members = shards.members
        self.owner = shards.owner
        self.attend = functools.partial(shards.attend, name)
        self._shards = shards

    async def replay(self, partition: int, tenant: str, after: int, upto: int) -> list[Publication]:
        return await self._shards.replay(partition, tenant, after, upto)


_numbers = iter(range(10**9))


async def two_shards() -> Shards:
    store = GatedStore(PARTITIONS)
    hosts = {"one": Rig(store, name="one"), "two": Rig(store, name="two")}
    for rig, numbers in zip(hosts.values(), ([0, 1], [2, 3]), strict=True):
        rig.host.start()
        await rig.host.open(numbers)
    return Shards(store, hosts)


def gateway(shards: Shards, name: str = "gateway") -> Fanout:
    async def places(tenant: str) -> tuple[int, ...]:
        return MINE

    fanout = Fanout(Router(name, shards), lambda kind, id: None, places)  # type: ignore[arg-type]
    shards.receive[name] = fanout.receive
    asyncio.get_running_loop().create_task(fanout.run())
    return fanout


class Follower:
    """An agent's session that subscribes, and resumes, the way `api/stream.py` does."""

    def __init__(self, fanout: Fanout, topic: str = INBOX, tenant: str = TENANT) -> None:
        self.frames: list[dict[str, Any]] = []
        self.start = ""
        self.recovered: bool | None = None
        self.session = Session(self._send)
        self.closed_with: int | None = None
        self._fanout = fanout
        self._tenant = tenant
        self._subscription = Subscription(self.session, topic, lambda item, text: self.session.write(text))

    async def _send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            self.closed_with = message["code"]
        else:
            self.frames.append(json.loads(message["text"]))

    async def follow(self, since: str | None = None) -> Follower:
        fanout, subscription = self._fanout, self._subscription
        now = await fanout.subscribe(self._tenant, subscription)
        past = await fanout.past(self._tenant, subscription.topic, since) if since is not None else None
        self.recovered = past is not None or since is None
        self.start = positions.encode(now) if past is None or since is None else since
        for text in past.frames() if past is not None else ():
            self.session.write(text)
        fanout.caught_up(subscription, now if past is None else past.until)
        return self

    @property
    def seen(self) -> list[str]:
        return [names(frame) for frame in self.frames]


def names(frame: dict[str, Any]) -> str:
    event = frame["event"]
    return f"{event['type']} {event['conversation']['id']} {(event.get('message') or {}).get('seq', 0)}"


def of_each_conversation(frames: list[dict[str, Any]]) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for frame in frames:
        told.setdefault(frame["event"]["conversation"]["id"], []).append(names(frame))
    return told


async def settle() -> None:
    """Virtual time passes only when nobody has anything left to do."""
    await asyncio.sleep(0.001)


async def a_run(shards: Shards, fanout: Fanout, rounds: int = 4) -> Follower:
    """Everybody writes, and one agent sees it live."""
    live = await Follower(fanout).follow()
    for _ in range(rounds):
        await shards.write(*SENDERS)
        await settle()
    assert len(live.seen) == len(set(live.seen)) == len(SENDERS) * (rounds + 1)
    assert len({frame["event"]["conversation"]["id"] for frame in live.frames}) == len(SENDERS)
    return live


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elsewhere", [False, True], ids=["from memory", "from the journal"])
def test_resuming_after_any_event_of_a_run_tells_exactly_the_rest(elsewhere: bool) -> None:
    @in_virtual_time
    async def check() -> None:
        shards = await two_shards()
        first = gateway(shards)
        live = await a_run(shards, first)
        fanout = gateway(shards, "another") if elsewhere else first
        for index, position in enumerate([live.start, *(frame["position"] for frame in live.frames)]):
            again = await Follower(fanout).follow(position)
            await settle()
            rest = live.frames[index:]
            assert again.recovered and again.start == position
            assert sorted(again.seen) == sorted(names(frame) for frame in rest)
            assert of_each_conversation(again.frames) == of_each_conversation(rest)

    check()


@in_virtual_time
async def test_resuming_after_any_event_of_a_resumption_tells_exactly_the_rest() -> None:
    """A connection that drops while it catches up, and the next one too."""
    shards = await two_shards()
    fanout = gateway(shards)
    live = await a_run(shards, fanout, rounds=2)
    whole = await Follower(fanout).follow(live.start)
    await settle()
    for index, frame in enumerate(whole.frames):
        again = await Follower(fanout).follow(frame["position"])
        await settle()
        assert sorted(again.seen) == sorted(whole.seen[index + 1 :])


@in_virtual_time
async def test_what_happens_during_a_resumption_comes_after_it_once() -> None:
    shards = await two_shards()
    live = await a_run(shards, gateway(shards))
    fanout = gateway(shards, "another")
    for number in MINE:
        shards.replays[number].shut()
    again = Follower(fanout)
    work = asyncio.create_task(again.follow(live.start))
    for number in MINE:
        await shards.replays[number].reached(1)
        await shards.write(*SENDERS)
        await shards.replays[number].open()
    await work
    await shards.write(*SENDERS)
    await settle()
    assert sorted(again.seen) == sorted(live.seen)
    assert of_each_conversation(again.frames) == of_each_conversation(live.frames)
    for index, frame in enumerate(again.frames):
        third = await Follower(fanout).follow(frame["position"])
        await settle()
        assert sorted(third.seen) == sorted(again.seen[index + 1 :])


@in_virtual_time
async def test_one_conversation_is_resumed_without_the_others() -> None:
    shards = await two_shards()
    fanout = gateway(shards)
    live = await a_run(shards, fanout)
    told = of_each_conversation(live.frames)
    for id, wanted in told.items():
        again = await Follower(fanout, f"conversation:{id}").follow(live.start)
        await settle()
        assert again.seen == wanted


@pytest.mark.parametrize("token", ["", "nonsense", "0-1", "0-1_1-1_2-1", "0-1_1-1_2-1_3-1_4-1", "0-1_1-1_2-1_9-1"])
def test_a_position_of_something_else_is_not_recovered_and_no_error(token: str) -> None:
    @in_virtual_time
    async def check() -> None:
        shards = await two_shards()
        fanout = gateway(shards)
        await a_run(shards, fanout)
        again = await Follower(fanout).follow(token)
        assert again.recovered is False
        await shards.write(*SENDERS)
        await settle()
        assert len(again.seen) == len(SENDERS), "it goes on from now"

    check()


@in_virtual_time
async def test_a_position_from_beyond_the_journal_is_not_recovered() -> None:
    shards = await two_shards()
    fanout = gateway(shards)
    live = await a_run(shards, fanout)
    beyond = positions.decode(live.frames[-1]["position"]) or {}
    beyond[MINE[2]] += 1_000
    again = await Follower(fanout).follow(positions.encode(beyond))
    assert again.recovered is False


@in_virtual_time
async def test_too_much_is_told_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """All partitions together: each alone would be little enough."""
    shards = await two_shards()
    fanout = gateway(shards)
    live = await a_run(shards, fanout)
    monkeypatch.setattr("api.fanout.PAST_MAX_PUBLICATIONS", len(live.seen) - 1)
    again = await Follower(fanout).follow(live.start)
    await settle()
    assert (again.recovered, again.seen) == (False, [])


@in_virtual_time
async def test_a_position_of_a_faster_gateway_is_waited_for_and_nothing_comes_twice() -> None:
    """It knows more of one partition, and less of another: neither may show in what is sent from then on."""
    shards = await two_shards()
    fast, slow = gateway(shards, "fast"), gateway(shards, "slow")
    live = await a_run(shards, fast)
    await Follower(slow).follow()
    for feed in shards.feeds.values():
        feed.shut()
    ahead, behind = sender_in(0), sender_in(3)
    await shards.write(ahead, behind)
    await shards.feeds["one"].reached(shards.feeds["one"].calls)
    vector = positions.decode(live.frames[-1]["position"]) or {}
    vector[0] += 1  # a gateway that has passed on the one and not yet the other
    since = positions.encode(vector)
    again = Follower(slow)
    work = asyncio.create_task(again.follow(since))
    await shards.feeds["two"].open()
    await settle()
    assert again.recovered is None
    await shards.feeds["one"].open()
    await work
    await shards.write(behind, ahead)
    await settle()
    assert len(again.seen) == len(set(again.seen)) == 3
    for index, frame in enumerate(again.frames):
        assert all((positions.decode(frame["position"]) or {})[n] >= offset for n, offset in vector.items())
        third = await Follower(slow).follow(frame["position"])
        await settle()
        assert sorted(third.seen) == sorted(again.seen[index + 1 :])


# --- gaps -------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_gap_in_one_partition_does_not_stall_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.readers.publisher.OUTBOX_MAX_PUBLICATIONS", 2)
    shards = await two_shards()
    fanout = gateway(shards)
    live = await Follower(fanout).follow()
    shards.feeds["one"].shut()
    shards.replays[0].shut()
    gap, other = sender_in(0), sender_in(3)
    for _ in range(6):
        await shards.write(gap)
    await shards.feeds["one"].open()
    await shards.replays[0].reached(1)
    before = len(live.seen)
    for _ in range(3):
        await shards.write(other)
    await settle()
    assert [frame["event"]["conversation"]["id"][4:23] for frame in live.frames[before:]] == [customer(other)[4:]] * 4
    await shards.replays[0].open()
    await settle()
    assert len(live.seen) == len(set(live.seen)) == 7 + 4
    for index, frame in enumerate(live.frames):
        again = await Follower(fanout).follow(frame["position"])
        await settle()
        assert sorted(again.seen) == sorted(live.seen[index + 1 :])


@in_virtual_time
async def test_a_gap_that_cannot_be_told_closes_every_session_of_the_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.readers.publisher.OUTBOX_MAX_PUBLICATIONS", 2)
    monkeypatch.setattr("actors.host.REPLAY_MAX_EVENTS", 3)
    shards = await two_shards()
    fanout = gateway(shards)
    live = await Follower(fanout).follow()
    shards.feeds["one"].shut()
    for _ in range(9):
        await shards.write(sender_in(0))
    await shards.feeds["one"].open()
    await settle()
    assert live.closed_with == TOO_SLOW
    again = await Follower(fanout).follow(live.start)
    assert again.recovered is False, "never a part of it"
    await shards.write(sender_in(0), sender_in(3))
    await settle()
    assert len(again.seen) == 1 + 2


# --- the first interest -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [False, True], ids=["nobody knows us", "both know us for another tenant"])
def test_a_subscription_begins_when_every_owner_knows_of_it(known: bool) -> None:
    @in_virtual_time
    async def check() -> None:
        shards = await two_shards()
        fanout = gateway(shards)
        if known:
            await Follower(fanout, tenant="blue").follow()
        shards.down = {"two"}
        live = Follower(fanout)
        work = asyncio.create_task(live.follow())
        await asyncio.sleep(5)
        assert not work.done()
        shards.down = set()
        await work
        await shards.write(*SENDERS)
        await settle()
        assert len(live.seen) == 2 * len(SENDERS)

    check()


@in_virtual_time
async def test_who_waits_too_long_for_a_shard_is_told_to_come_back() -> None:
    shards = await two_shards()
    shards.down = {"two"}
    with pytest.raises(Unavailable):
        await Follower(gateway(shards)).follow()


@in_virtual_time
async def test_a_feed_that_left_before_the_shard_knew_of_our_interest_is_not_what_a_subscriber_begins_with() -> None:
    """It says nothing of the tenant, though things happened: the position must be from behind it."""
    shards = await two_shards()
    fanout = gateway(shards)
    await asyncio.sleep(1)
    shards.feeds["one"].shut()
    unnoticed = sender_in(0)
    await shards.write(unnoticed)
    end = await shards.store.journal.head(0)
    live = Follower(fanout)
    work = asyncio.create_task(live.follow())
    await settle()
    assert not work.done()
    await shards.feeds["one"].open()
    await work
    assert (positions.decode(live.start) or {})[0] == end
    await shards.write(unnoticed)
    await settle()
    again = await Follower(fanout).follow(live.start)
    await settle()
    assert again.seen == live.seen
    assert len(live.seen) == 1


@in_virtual_time
async def test_a_tenant_whose_place_nobody_knows_yet_is_refused_and_not_remembered() -> None:
    shards = await two_shards()
    fanout = gateway(shards)
    known, fanout._partitions_of = fanout._partitions_of, _nobody_knows
    with pytest.raises(Unavailable):
        await Follower(fanout).follow()
    fanout._partitions_of = known
    live = await Follower(fanout).follow()
    await shards.write(*SENDERS)
    await settle()
    assert len(live.seen) == 2 * len(SENDERS)


async def _nobody_knows(tenant: str) -> tuple[int, ...]:
    raise Unavailable


@in_virtual_time
async def test_a_session_that_resumes_too_slowly_is_told_to_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.fanout.CATCHING_MAX_PUBLICATIONS", 3)
    shards = await two_shards()
    live = await a_run(shards, gateway(shards))
    fanout = gateway(shards, "another")
    shards.replays[MINE[0]].shut()
    slow = Follower(fanout)
    work = asyncio.create_task(slow.follow(live.start))
    await shards.replays[MINE[0]].reached(1)
    await shards.write(*SENDERS)
    await settle()
    assert slow.closed_with == TOO_SLOW
    work.cancel()
