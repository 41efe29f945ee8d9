"""The wire: who may connect, what comes back to whom, and what a broken connection means."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from actors.wire import Disconnected, GatewaySide, Listener, proof
from hub.commands import Answer, Done, GetCustomer, Invocation, Refused

SECRET = b"k" * 32
HEAD = struct.Struct(">IB")


class Shard:
    """Answers each command with its stream's name, when told to."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.arrived = asyncio.Event()

    async def submit(self, invocations: list[Invocation]) -> list[Answer]:
        self.asked.append([invocation.stream for invocation in invocations])
        self.arrived.set()
        await self.may_answer.wait()
        return [Refused("not_found", invocation.stream) for invocation in invocations]


Connect = Callable[..., Awaitable[GatewaySide]]


@pytest.fixture
def shard() -> Shard:
    return Shard()


@pytest.fixture
async def listener(shard: Shard) -> AsyncIterator[Listener]:
    listener = Listener(SECRET, shard.submit)
    yield listener
    listener.close()


@pytest.fixture
async def port(listener: Listener) -> int:
    return await listener.open("127.0.0.1")


async def connect(
    port: int, gateway: str = "g1", secret: bytes = SECRET, feeds: list[bytes] | None = None
) -> GatewaySide:
    on_feeds = ([] if feeds is None else feeds).append
    return await GatewaySide.connect("127.0.0.1", port, secret=secret, gateway=gateway, on_feeds=on_feeds)


def asking(stream: str) -> Invocation:
    return Invocation("acme", stream, GetCustomer())


async def test_answers_come_back_to_those_who_asked_in_whatever_order_they_are_ready(shard: Shard, port: int) -> None:
    side = await connect(port)
    shard.may_answer.clear()
    both = asyncio.gather(side.submit([asking("a"), asking("b")]), side.submit([asking("c")]))
    await shard.arrived.wait()
    shard.may_answer.set()
    first, second = await both
    assert [answer.detail for answer in first if isinstance(answer, Refused)] == ["a", "b"]
    assert [answer.detail for answer in second if isinstance(answer, Refused)] == ["c"]


async def test_an_answer_crosses_whole(port: int, shard: Shard) -> None:
    done = Done(3, 9, message_id="msg_1", message=b'{"text":"\xc3\xb1"}', revision=2)

    async def submit(invocations: list[Invocation]) -> list[Answer]:
        return [done]

    listener = Listener(SECRET, submit)
    side = await connect(await listener.open("127.0.0.1"))
    assert await side.submit([asking("a")]) == [done]
    listener.close()


async def test_one_who_does_not_know_the_secret_is_refused_and_reaches_nothing(shard: Shard, port: int) -> None:
    with pytest.raises(Disconnected):
        await connect(port, secret=b"x" * 32)
    assert shard.asked == []


async def test_a_gateway_does_not_talk_to_a_shard_that_does_not_know_the_secret(shard: Shard) -> None:
    impostor = Listener(b"x" * 32, shard.submit)
    with pytest.raises(Disconnected):
        await connect(await impostor.open("127.0.0.1"))
    impostor.close()


async def test_a_proof_that_was_overheard_is_worth_nothing(shard: Shard, port: int, listener: Listener) -> None:
    overheard = proof(SECRET, "gateway", b"n" * 16, "g1")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    payload = overheard + b"m" * 16 + b"g1"
    writer.write(HEAD.pack(len(payload), ord("H")) + payload)
    nonce_frame = HEAD.size + 16
    assert len(await reader.read()) == nonce_frame
    assert listener.gateways == {}
    writer.close()


async def test_commands_before_the_hello_are_not_taken(shard: Shard, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.pack(6, ord("C")) + b"\0\0\0\1\x90\x90")
    await reader.read()
    assert shard.asked == []
    writer.close()


async def test_a_stranger_cannot_make_it_buffer_a_large_frame(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.pack(1 << 20, ord("H")))
    await reader.read()
    assert reader.at_eof()
    writer.close()


async def test_feeds_reach_the_gateway_they_are_for(port: int, listener: Listener) -> None:
    one: list[bytes] = []
    two: list[bytes] = []
    side, other = await connect(port, "g1", feeds=one), await connect(port, "g2", feeds=two)
    await listener.send_feeds("g2", b"for two")
    # An answer sent after it shows that everything before has arrived.
    await other.submit([asking("a")])
    await side.submit([asking("a")])
    assert (one, two) == ([], [b"for two"])


async def test_feeds_for_a_gateway_that_is_not_there_say_so(port: int, listener: Listener) -> None:
    with pytest.raises(Disconnected):
        await listener.send_feeds("g9", b"x")


async def test_what_waits_when_the_connection_breaks_is_told(shard: Shard, port: int, listener: Listener) -> None:
    side = await connect(port)
    shard.may_answer.clear()
    waiting = asyncio.ensure_future(side.submit([asking("a")]))
    await shard.arrived.wait()
    listener.close()
    with pytest.raises(Disconnected):
        await waiting
    assert not side.open
    with pytest.raises(Disconnected):
        await side.submit([asking("b")])
    shard.may_answer.set()


async def test_a_gateway_that_connects_again_takes_its_old_place(port: int, listener: Listener) -> None:
    old: list[bytes] = []
    new: list[bytes] = []
    await connect(port, "g1", feeds=old)
    side = await connect(port, "g1", feeds=new)
    await listener.send_feeds("g1", b"x")
    await side.submit([asking("a")])
    assert (old, new) == ([], [b"x"])
