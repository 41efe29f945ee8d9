"""A lane: one call in flight, what arrives meanwhile goes into the next, and retries never overtake."""

from __future__ import annotations

import asyncio

from actors import lanes
from actors.lanes import Lane
from hub.commands import Answer, Done, GetCustomer, Invocation, Refused
from tests.unit.actors.rig import in_virtual_time


class Shard:
    """Takes calls one at a time; `verdicts` say how the next ones end, success when there are none left."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.verdicts: list[object] = []
        self.open = asyncio.Event()
        self.open.set()
        self.failures: list[str] = []
        self.lane = Lane("s1", self._call, self.failures.append)

    async def _call(self, invocations: list[Invocation]) -> list[Answer]:
        self.calls.append([invocation.stream for invocation in invocations])
        await self.open.wait()
        verdict = self.verdicts.pop(0) if self.verdicts else None
        if isinstance(verdict, Exception):
            raise verdict
        if isinstance(verdict, dict):
            return [verdict.get(invocation.stream, Done(0, 1)) for invocation in invocations]
        return [Done(0, 1) for _ in invocations]

    def send(self, *streams: str) -> list[asyncio.Future[Answer]]:
        return [self.lane.send(Invocation("acme", stream, GetCustomer())) for stream in streams]


@in_virtual_time
async def test_what_one_tick_brings_shares_a_call() -> None:
    shard = Shard()
    await asyncio.gather(*shard.send("a", "b", "c"))
    assert shard.calls == [["a", "b", "c"]]


@in_virtual_time
async def test_what_arrives_during_a_call_goes_into_the_next() -> None:
    shard = Shard()
    shard.open.clear()
    first = shard.send("a")
    await asyncio.sleep(0.01)
    rest = shard.send("b", "c")
    await asyncio.sleep(0.01)
    assert shard.calls == [["a"]]
    shard.open.set()
    await asyncio.gather(*first, *rest)
    assert shard.calls == [["a"], ["b", "c"]]


@in_virtual_time
async def test_a_call_that_failed_is_repeated_before_anything_newer() -> None:
    shard = Shard()
    shard.verdicts = [ConnectionError()]
    shard.open.clear()
    first = shard.send("a", "b")
    await asyncio.sleep(0.01)
    later = shard.send("c")
    shard.open.set()
    answers = await asyncio.gather(*first, *later)
    assert shard.calls == [["a", "b"], ["a", "b", "c"]]
    assert answers == [Done(0, 1)] * 3
    assert shard.failures == ["s1"]


@in_virtual_time
async def test_only_what_is_unavailable_is_repeated() -> None:
    shard = Shard()
    shard.verdicts = [{"a": Refused("not_found", ""), "b": Refused("unavailable", "")}]
    answers = await asyncio.gather(*shard.send("a", "b", "c"))
    assert shard.calls == [["a", "b", "c"], ["b"]]
    assert answers == [Refused("not_found", ""), Done(0, 1), Done(0, 1)]


@in_virtual_time
async def test_patience_ends_and_the_caller_is_told_when_to_come_back() -> None:
    shard = Shard()
    shard.verdicts = [ConnectionError() for _ in range(10_000)]
    began = asyncio.get_running_loop().time()
    [answer] = await asyncio.gather(*shard.send("a"))
    assert isinstance(answer, Refused)
    assert (answer.code, answer.retry_after_s > 0) == ("unavailable", True)
    assert asyncio.get_running_loop().time() - began < lanes.RETRY_FOR_S + 2


@in_virtual_time
async def test_a_full_lane_refuses_at_once() -> None:
    shard = Shard()
    shard.open.clear()
    waiting = shard.send(*["a"] * lanes.QUEUE_MAX_COMMANDS)
    [refused] = shard.send("one too many")
    answer = await refused
    assert isinstance(answer, Refused)
    assert (answer.code, answer.retry_after_s) == ("overloaded", 1)
    shard.open.set()
    assert await asyncio.gather(*waiting) == [Done(0, 1)] * lanes.QUEUE_MAX_COMMANDS
