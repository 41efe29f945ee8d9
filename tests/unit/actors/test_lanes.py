"""Lanes: one call in flight for each shard, a fair turn for each tenant, and an order that nothing upsets."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import lanes
from actors.lanes import Lanes
from hub.commands import Answer, Done, GetConversation, GetCustomer, Invocation, Refused
from hub.ids import crockford
from tests.unit.actors.rig import in_virtual_time

MOVED = Refused("unavailable", "it has moved")


class Shards:
    """Takes calls; `verdicts` say how the next ones of a shard end, success when there are none left.

    A verdict is an exception, or the answers by stream. `gates` hold the calls of a shard back.
    """

    def __init__(self, partitions: int = 1, owners: list[str] | None = None) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.under_way: list[str] = []
        self.verdicts: dict[str, list[object]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.failures: list[str] = []
        self.takes_s = 0.0
        self.lanes = Lanes(partitions, self._call, self.failures.append)
        self.assign(owners or ["s1"] * partitions)

    def assign(self, owners: list[str], alive: set[str] | None = None) -> None:
        self.lanes.assign(owners, {"s1", "s2"} if alive is None else alive)

    def shut(self, shard: str = "s1") -> asyncio.Event:
        gate = self.gates[shard] = asyncio.Event()
        return gate

    async def _call(self, shard: str, invocations: list[Invocation]) -> list[Answer]:
        streams = [name_of(invocation) for invocation in invocations]
        self.calls.append((shard, streams))
        self.under_way.append(shard)
        try:
            await asyncio.sleep(self.takes_s)
            if shard in self.gates:
                await self.gates[shard].wait()
            verdicts = self.verdicts.get(shard)
            verdict = verdicts.pop(0) if verdicts else None
            if isinstance(verdict, Exception):
                raise verdict
            told = verdict if isinstance(verdict, dict) else {}
            return [told.get(stream, Done(0, 1)) for stream in streams]
        finally:
            self.under_way.remove(shard)

    def send(self, *names: str, tenant: str = "acme", partition: int = 0) -> list[asyncio.Future[Answer]]:
        return [self.lanes.send(asking(name, tenant, partition)) for name in names]


def asking(name: str, tenant: str = "acme", partition: int = 0) -> Invocation:
    return Invocation(tenant, f"cus_{crockford(partition, 3)}{name}", GetCustomer())


def name_of(invocation: Invocation) -> str:
    return invocation.stream[7:]


async def soon() -> None:
    await asyncio.sleep(0.001)


# --- batching -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_one_tick_brings_shares_a_call() -> None:
    shards = Shards()
    await asyncio.gather(*shards.send("a", "b", "c"))
    assert shards.calls == [("s1", ["a", "b", "c"])]


@in_virtual_time
async def test_what_arrives_during_a_call_goes_into_the_next() -> None:
    shards = Shards()
    gate = shards.shut()
    first = shards.send("a")
    await soon()
    rest = shards.send("b", "c")
    await soon()
    assert shards.calls == [("s1", ["a"])]
    gate.set()
    await asyncio.gather(*first, *rest)
    assert shards.calls == [("s1", ["a"]), ("s1", ["b", "c"])]


@in_virtual_time
async def test_shards_do_not_wait_for_each_other() -> None:
    shards = Shards(2, ["s1", "s2"])
    shards.shut("s1")
    slow = shards.send("a")
    assert await asyncio.gather(*shards.send("b", partition=1)) == [Done(0, 1)]
    assert not slow[0].done()


# --- fairness -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_flood_of_one_tenant_delays_another_by_one_call_at_most() -> None:
    shards = Shards()
    gate = shards.shut()
    flood = shards.send(*(f"f{n}" for n in range(10_000)), tenant="loud")
    await soon()
    [single] = shards.send("single", tenant="quiet")
    gate.set()
    await single
    assert "single" in shards.calls[1][1]
    assert len(shards.calls) == 2
    await asyncio.gather(*flood)


@in_virtual_time
async def test_many_tenants_share_a_call_evenly() -> None:
    shards = Shards()
    for tenant in range(5):
        shards.send(*(f"{tenant}-{n}" for n in range(1_000)), tenant=f"t{tenant}")
    await soon()
    shares = [sum(name.startswith(f"{tenant}-") for name in shards.calls[0][1]) for tenant in range(5)]
    assert sum(shares) == lanes.CALL_MAX_COMMANDS
    assert max(shares) - min(shares) <= lanes.TURN_MAX_COMMANDS


@in_virtual_time
async def test_a_full_lane_still_has_room_for_who_has_less_than_its_share() -> None:
    shards = Shards()
    shards.shut()
    shards.send(*["f"] * lanes.CALL_MAX_COMMANDS, tenant="loud")
    await soon()
    shards.send(*["f"] * (lanes.QUEUE_MAX_COMMANDS + lanes.CALL_MAX_COMMANDS), tenant="loud")
    await soon()
    [quiet] = shards.send("q", tenant="quiet")
    [loud] = shards.send("one too many", tenant="loud")
    await soon()
    assert (loud.done(), quiet.done()) == (True, False)


@in_virtual_time
async def test_a_lane_never_holds_more_than_its_bound_however_many_tenants_there_are() -> None:
    shards = Shards()
    shards.shut()
    answers = [shards.send("f", tenant=f"t{n}")[0] for n in range(lanes.LANE_MAX_COMMANDS + 10)]
    answers += [shards.send("f", tenant=f"u{n % 7}")[0] for n in range(lanes.LANE_MAX_COMMANDS)]
    assert shards.lanes.queued <= lanes.LANE_MAX_COMMANDS
    assert all(answer.done() for answer in answers[lanes.LANE_MAX_COMMANDS :])


# --- retries ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_call_that_failed_is_repeated_before_anything_newer() -> None:
    shards = Shards()
    shards.verdicts = {"s1": [ConnectionError()]}
    gate = shards.shut()
    first = shards.send("a", "b")
    await soon()
    later = shards.send("c")
    gate.set()
    assert await asyncio.gather(*first, *later) == [Done(0, 1)] * 3
    assert shards.calls == [("s1", ["a", "b"]), ("s1", ["a", "b", "c"])]
    assert shards.failures == ["s1"]


@in_virtual_time
async def test_only_what_is_unavailable_is_repeated() -> None:
    shards = Shards()
    shards.verdicts = {"s1": [{"a": Refused("not_found", ""), "b": MOVED, "d": Refused("store_unavailable", "")}]}
    answers = await asyncio.gather(*shards.send("a", "b", "c", "d"))
    assert [names for _, names in shards.calls] == [["a", "b", "c", "d"], ["b"]]
    assert [getattr(answer, "code", "done") for answer in answers] == [
        "not_found",
        "done",
        "done",
        "store_unavailable",
    ]


@in_virtual_time
async def test_a_partition_that_is_away_holds_up_nobody_elses_commands() -> None:
    shards = Shards(2)
    shards.verdicts = {"s1": [{"a": MOVED}]}
    [away] = shards.send("a")
    await soon()
    [other] = shards.send("b", partition=1)
    await soon()
    assert (other.done(), away.done()) == (True, False)
    await away


@in_virtual_time
async def test_what_comes_while_the_head_of_its_queue_waits_stays_behind_it() -> None:
    shards = Shards()
    shards.verdicts = {"s1": [{"a": MOVED, "b": MOVED}, {"a": MOVED, "b": MOVED, "c": MOVED}]}
    first = shards.send("a", "b")
    await soon()
    rest = shards.send("c")
    await asyncio.gather(*first, *rest)
    assert [names for _, names in shards.calls] == [["a", "b"], ["a", "b", "c"], ["a", "b", "c"]]


@in_virtual_time
async def test_patience_ends_and_the_caller_is_told_when_to_come_back() -> None:
    shards = Shards()
    shards.verdicts = {"s1": [ConnectionError() for _ in range(10_000)]}
    began = asyncio.get_running_loop().time()
    [answer] = await asyncio.gather(*shards.send("a"))
    assert isinstance(answer, Refused)
    assert (answer.code, answer.retry_after_s > 0) == ("unavailable", True)
    assert asyncio.get_running_loop().time() - began < lanes.RETRY_FOR_S + 2


@in_virtual_time
async def test_a_shard_that_hangs_uses_up_everybodys_patience_only_once() -> None:
    """Not once for every call that what waits would fill."""
    shards = Shards()
    shards.shut()
    began = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*shards.send(*["a"] * 10_000))
    assert {getattr(answer, "code", "done") for answer in answers} == {"unavailable"}
    assert asyncio.get_running_loop().time() - began < 2 * lanes.CALL_TIMEOUT_S


@in_virtual_time
async def test_answers_that_do_not_match_their_commands_are_a_failure_and_not_the_end_of_the_lane() -> None:
    shards = Shards()
    answered = shards.lanes._call
    wrong = [True]

    async def call(shard: str, invocations: list[Invocation]) -> list[Answer]:
        answers = await answered(shard, invocations)
        return answers[1:] if wrong and wrong.pop() else answers

    shards.lanes._call = call
    assert await asyncio.gather(*shards.send("a", "b")) == [Done(0, 1)] * 2


# --- moves --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_is_queued_goes_along_with_its_partition() -> None:
    shards = Shards(2)
    shards.shut()
    shards.send("other", partition=1)
    await soon()
    queued = shards.send("a", "b")
    shards.assign(["s2", "s1"])
    late = shards.send("c")
    await asyncio.gather(*queued, *late)
    assert shards.calls == [("s1", ["other"]), ("s2", ["a", "b", "c"])]


@in_virtual_time
async def test_nothing_is_sent_to_the_new_owner_before_the_old_one_has_answered() -> None:
    shards = Shards()
    gate = shards.shut("s1")
    shards.verdicts = {"s1": [{"a": MOVED}]}
    flying = shards.send("a", "b")
    await soon()
    shards.assign(["s2"])
    late = shards.send("c")
    await asyncio.sleep(5)
    assert [shard for shard, _ in shards.calls] == ["s1"]
    gate.set()
    await asyncio.gather(*flying, *late)
    assert shards.calls == [("s1", ["a", "b"]), ("s2", ["a", "c"])]


@in_virtual_time
async def test_a_call_to_a_dead_owner_is_cancelled_and_repeated_at_the_new_one_at_once() -> None:
    shards = Shards()
    shards.shut("s1")
    flying = shards.send("a", "b")
    await soon()
    shards.assign(["s2"], alive={"s2"})
    late = shards.send("c")
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*flying, *late)
    assert shards.calls == [("s1", ["a", "b"]), ("s2", ["a", "b", "c"])]
    assert shards.under_way == []
    assert asyncio.get_running_loop().time() - began < 0.01


@in_virtual_time
async def test_a_partition_that_comes_back_before_its_call_has_ended_keeps_its_order() -> None:
    shards = Shards()
    gate = shards.shut("s1")
    shards.verdicts = {"s1": [{"a": MOVED}]}
    flying = shards.send("a")
    await soon()
    shards.assign(["s2"])
    between = shards.send("b")
    shards.assign(["s1"])
    late = shards.send("c")
    gate.set()
    await asyncio.gather(*flying, *between, *late)
    assert shards.calls == [("s1", ["a"]), ("s1", ["a", "b", "c"])]


@in_virtual_time
async def test_a_queue_that_went_and_came_back_can_go_again() -> None:
    """It has one place in one ring: a second one would take a turn with nothing in it, and keep other lanes out."""
    shards = Shards(2)
    gate = shards.shut("s1")
    shards.send("other", partition=1)
    await soon()
    queued = shards.send("a")
    for tenant in range(20):
        queued += shards.send(*["x"] * lanes.TURN_MAX_COMMANDS, tenant=f"t{tenant}", partition=1)
    shards.assign(["s2", "s1"])
    shards.assign(["s1", "s1"])
    gate.set()
    await asyncio.gather(*queued)
    shards.assign(["s2", "s1"])
    assert await asyncio.wait_for(asyncio.gather(*shards.send("b")), 1) == [Done(0, 1)]
    assert shards.calls[-1] == ("s2", ["b"])


@in_virtual_time
async def test_who_has_left_is_forgotten() -> None:
    """Tenants and shards come and go; what is kept of them must not."""
    shards = Shards()
    await asyncio.gather(*(shards.send("a", tenant=f"t{n}")[0] for n in range(500)))
    shards.lanes.assign(["s2"], {"s2"})
    await asyncio.gather(*shards.send("a"))
    await soon()
    assert (shards.lanes._queues, list(shards.lanes._lanes)) == ({}, ["s2"])


@in_virtual_time
async def test_whoever_waits_when_the_gateway_ends_is_told() -> None:
    shards = Shards()
    shards.shut()
    flying = shards.send("a")
    await soon()
    waiting = shards.send("b")
    shards.lanes.close()
    answers = await asyncio.gather(*flying, *waiting, *shards.send("c"))
    assert {getattr(answer, "code", "done") for answer in answers} == {"unavailable"}
    await soon()
    assert shards.under_way == []


# --- overload -----------------------------------------------------------------------------------------------------


async def at_a_known_pace(shards: Shards) -> None:
    """A thousand commands a second."""
    shards.takes_s = lanes.CALL_MAX_COMMANDS / 1_000
    for _ in range(lanes.RATE_MIN_CALLS):
        await asyncio.gather(*shards.send(*["a"] * lanes.CALL_MAX_COMMANDS))


@in_virtual_time
async def test_what_would_wait_too_long_is_refused_at_once_and_told_for_how_long() -> None:
    shards = Shards()
    await at_a_known_pace(shards)
    answers = shards.send(*["a"] * 5_000, tenant="loud")
    await soon()
    answers += shards.send(*["a"] * 1_000, tenant="loud")
    refused = [answer.result() for answer in answers if answer.done()]
    assert 3_000 < len(refused) < 5_500
    assert all(isinstance(answer, Refused) and answer.code == "overloaded" for answer in refused)
    assert all(isinstance(a, Refused) and lanes.WAIT_MAX_S / 2 < a.retry_after_s < 5 for a in refused)
    [quiet] = shards.send("q", tenant="quiet")
    assert isinstance(await quiet, Done)


@in_virtual_time
async def test_a_shard_is_not_called_slow_before_it_has_warmed_up() -> None:
    shards = Shards()
    shards.takes_s = 1.0
    await asyncio.gather(*shards.send(*["a"] * 100))
    answers = shards.send(*["a"] * 5_000)
    assert not any(answer.done() for answer in answers)


@pytest.mark.parametrize("how", ["it hangs", "it refuses connections", "its partition is away"])
@in_virtual_time
async def test_nobody_is_refused_early_while_a_shard_is_being_replaced(how: str) -> None:
    shards = Shards()
    await at_a_known_pace(shards)
    if how == "it hangs":
        shards.shut()
    elif how == "it refuses connections":
        shards.verdicts = {"s1": [ConnectionError() for _ in range(1_000)]}
    else:
        shards.verdicts = {"s1": [{"a": MOVED} for _ in range(1_000)]}
    shards.send("a")
    await asyncio.sleep(2.5)
    answers = shards.send(*["a"] * 10_000)
    await asyncio.sleep(2.5)
    assert not any(answer.done() for answer in answers)


@in_virtual_time
async def test_a_full_lane_refuses_at_once() -> None:
    shards = Shards()
    gate = shards.shut()
    waiting = shards.send(*["a"] * lanes.QUEUE_MAX_COMMANDS)
    [refused] = shards.send("one too many")
    answer = await refused
    assert isinstance(answer, Refused)
    assert (answer.code, answer.retry_after_s) == ("overloaded", 1)
    gate.set()
    assert await asyncio.gather(*waiting) == [Done(0, 1)] * lanes.QUEUE_MAX_COMMANDS


# --- anything at any time -----------------------------------------------------------------------------------------

PARTITIONS, STREAMS, NAMES = 3, 2, ("s1", "s2", "s3")


class Model:
    """Shards with a shared store: who opened a partition last may execute; others say that it is not theirs.

    What is executed is remembered once, as the dedupe window does. A dead shard answers nobody, but may still execute
    what it had got, until another one opens the partition.
    """

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.holder = ["s1"] * PARTITIONS
        self.executed: dict[str, list[int]] = {}
        self.alive = set(NAMES)
        self.concurrent: dict[str, str] = {}

    async def call(self, shard: str, invocations: list[Invocation]) -> list[Answer]:
        names = {invocation.stream for invocation in invocations}
        for name in names:
            assert name not in self.concurrent, f"{name} is at {self.concurrent[name]} and at {shard}"
            self.concurrent[name] = shard
        try:
            await asyncio.sleep(self.rng.uniform(0, 0.02))
            if shard not in self.alive:
                raise ConnectionError
            answers = [self._execute(shard, invocation) for invocation in invocations]
            if self.rng.random() < 0.1:
                raise ConnectionError
            await asyncio.sleep(self.rng.uniform(0, 0.02))
            return answers
        finally:
            for name in names:
                del self.concurrent[name]

    def _execute(self, shard: str, invocation: Invocation) -> Answer:
        if self.holder[partition_of(invocation.stream)] != shard:
            return MOVED
        done = self.executed.setdefault(invocation.stream, [])
        assert isinstance(invocation.command, GetConversation)
        number = int(invocation.command.conversation)
        if number not in done:
            done.append(number)
        return Done(0, number)


def partition_of(stream: str) -> int:
    return int(stream[6])


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, PARTITIONS - 1), st.integers(0, STREAMS - 1)),
        st.tuples(st.just("move"), st.integers(0, PARTITIONS - 1), st.integers(0, 2)),
        st.tuples(st.just("kill"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 30), st.just(0)),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.integers(0, 2**16))
def test_whatever_happens_streams_keep_their_order_and_everybody_is_answered(
    told: list[tuple[str, int, int]], seed: int
) -> None:
    @in_virtual_time
    async def play() -> None:
        model = Model(seed)
        lanes = Lanes(PARTITIONS, model.call, lambda shard: None)
        owners = ["s1"] * PARTITIONS
        lanes.assign(list(owners), set(model.alive))
        answers: list[asyncio.Future[Answer]] = []
        for number, (what, one, two) in enumerate(told, start=1):
            if what == "send":
                answers.append(lanes.send(numbered(one, two, number)))
            elif what == "wait":
                await asyncio.sleep(one / 1000)
            elif what == "move":
                # The directory says so first; the new owner has it a moment later.
                owners[one] = NAMES[two] if NAMES[two] in model.alive else owners[one]
                lanes.assign(list(owners), set(model.alive))
            elif len(model.alive) > 1:
                model.alive.discard(NAMES[one])
                heir = sorted(model.alive)[0]
                owners = [owner if owner in model.alive else heir for owner in owners]
                lanes.assign(list(owners), set(model.alive))
            if seed % 2 == 0 or number % 3 == 0:
                model.holder = list(owners)
        model.holder = list(owners)
        outcomes = await asyncio.gather(*answers)
        assert all(isinstance(outcome, Done) for outcome in outcomes)
        for stream, numbers in model.executed.items():
            assert numbers == sorted(numbers), stream
        assert sum(map(len, model.executed.values())) == len(answers)
        assert lanes.queued == 0

    play()


def numbered(partition: int, stream: int, number: int) -> Invocation:
    return Invocation("acme", f"cus_{crockford(partition, 3)}{stream}", GetConversation(conversation=str(number)))
