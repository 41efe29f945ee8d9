"""The wire: who may connect, what comes back to whom, and what a broken connection means."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from actors import wire
from actors.wire import Disconnected, Link, Listener, proof
from hub.errors import HubError, NotFound, StaleReply

SECRET = b"k" * 32
HEAD = struct.Struct(">IB")
ECHO, HOLD, REFUSE, BREAK, NOTE, CODED, RAISE = b"cdefghi"
LIMIT_S = 5.0


class Side:
    """What one process does with frames: echoes, holds back, refuses, breaks, or notes what it is told."""

    def __init__(self, name: str = "s1") -> None:
        self.name = name
        self.told: list[bytes] = []
        self.may_answer = asyncio.Event()
        self.arrived = asyncio.Event()
        self.lost: list[str] = []
        self.peers: list[Link] = []

    def serve(self, link: Link, kind: int, payload: bytes) -> Awaitable[bytes] | None:
        if link not in self.peers:
            self.peers.append(link)
        if kind == NOTE:
            self.told.append(payload)
            return None
        if kind == CODED:
            msgspec.msgpack.decode(payload, type=list[int])
        if kind == RAISE:
            raise ZeroDivisionError
        return self._answer(kind, payload)

    async def _answer(self, kind: int, payload: bytes) -> bytes:
        self.arrived.set()
        if kind == HOLD:
            await self.may_answer.wait()
        if kind == REFUSE:
            raise StaleReply("he wrote meanwhile", retry_after_s=2.5)
        if kind == BREAK:
            raise ZeroDivisionError
        return payload

    def left(self, link: Link) -> None:
        self.lost.append(link.peer)


@pytest.fixture
def side() -> Side:
    return Side()


@pytest.fixture
async def listener(side: Side) -> AsyncIterator[Listener]:
    listener = Listener(SECRET, "s1", side.serve, on_lost=side.left)
    yield listener
    listener.close()


@pytest.fixture
async def port(listener: Listener) -> int:
    return await listener.open("127.0.0.1")


async def connect(port: int, name: str = "g1", secret: bytes = SECRET, side: Side | None = None) -> Link:
    return await wire.connect("127.0.0.1", port, secret=secret, name=name, serve=(side or Side(name)).serve)


async def until(condition: Callable[[], object]) -> None:
    """Real sockets: the kernel says when."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.001)


# --- introductions ------------------------------------------------------------------------------------------------


async def test_both_sides_learn_each_others_proven_name(side: Side, port: int) -> None:
    link = await connect(port, "g7")
    await link.call(ECHO, b"")
    assert (link.peer, side.peers[0].peer) == ("s1", "g7")


async def test_one_who_does_not_know_the_secret_is_refused_and_reaches_nothing(side: Side, port: int) -> None:
    with pytest.raises(Disconnected):
        await connect(port, secret=b"x" * 32)
    assert (side.peers, side.lost) == ([], [])


async def test_nobody_talks_to_a_listener_that_does_not_know_the_secret(side: Side) -> None:
    impostor = Listener(b"x" * 32, "s1", side.serve)
    with pytest.raises(Disconnected):
        await connect(await impostor.open("127.0.0.1"))
    impostor.close()


async def test_a_proof_that_was_overheard_is_worth_nothing(side: Side, port: int) -> None:
    overheard = proof(SECRET, "caller", b"n" * 16, "g1")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    payload = overheard + b"m" * 16 + b"g1"
    writer.write(HEAD.pack(len(payload), ord("H")) + payload)
    nonce_frame = HEAD.size + 16
    assert len(await reader.read()) == nonce_frame
    writer.close()


async def test_a_proof_of_one_name_does_not_let_another_in(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    nonce = (await reader.readexactly(HEAD.size + 16))[HEAD.size :]
    payload = proof(SECRET, "caller", nonce, "g1") + b"m" * 16 + b"g2"
    writer.write(HEAD.pack(len(payload), ord("H")) + payload)
    assert await reader.read() == b""
    writer.close()


async def test_a_listeners_own_proof_cannot_be_turned_round_on_it(port: int) -> None:
    """Whoever connects twice must not be able to have one connection answer what the other asks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    nonce = (await reader.readexactly(HEAD.size + 16))[HEAD.size :]
    payload = proof(SECRET, "listener", nonce, "s1") + b"m" * 16 + b"s1"
    writer.write(HEAD.pack(len(payload), ord("H")) + payload)
    assert await reader.read() == b""
    writer.close()


async def test_frames_before_the_hello_are_not_taken(side: Side, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.pack(6, NOTE) + b"\0\0\0\0hi")
    await reader.read()
    assert side.told == []
    writer.close()


async def test_a_stranger_cannot_make_it_buffer_a_large_frame(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.pack(1 << 20, ord("H")))
    await reader.read()
    assert reader.at_eof()
    writer.close()


async def test_a_stranger_that_says_nothing_is_sent_away(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "INTRODUCTION_TIMEOUT_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(LIMIT_S):
        await reader.readexactly(HEAD.size + 16)
        assert await reader.read() == b""
    writer.close()


async def test_connecting_to_one_that_says_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CONNECT_TIMEOUT_S", 0.05)
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    with pytest.raises(TimeoutError):
        await connect(silent.sockets[0].getsockname()[1])
    silent.close()


# --- calls --------------------------------------------------------------------------------------------------------


async def test_answers_come_back_to_those_who_asked_in_whatever_order_they_are_ready(side: Side, port: int) -> None:
    link = await connect(port)
    slow = asyncio.ensure_future(link.call(HOLD, b"slow"))
    assert await link.call(ECHO, b"quick") == b"quick"
    assert not slow.done()
    side.may_answer.set()
    assert await slow == b"slow"


async def test_both_sides_may_call_each_other(side: Side, port: int) -> None:
    gateway = Side("g1")
    gateway.may_answer.set()
    link = await connect(port, side=gateway)
    await link.call(ECHO, b"")
    [back] = side.peers
    ours, theirs = await asyncio.gather(link.call(ECHO, b"to the shard"), back.call(HOLD, b"to the gateway"))
    assert (ours, theirs) == (b"to the shard", b"to the gateway")


async def test_a_refusal_crosses_as_the_error_it_is(port: int) -> None:
    link = await connect(port)
    with pytest.raises(StaleReply) as refused:
        await link.call(REFUSE, b"")
    assert (refused.value.detail, refused.value.retry_after_s) == ("he wrote meanwhile", 2.5)
    assert not isinstance(refused.value, NotFound)


async def test_a_defect_is_an_internal_error_and_the_connection_lives_on(port: int) -> None:
    link = await connect(port)
    with pytest.raises(HubError) as broken:
        await link.call(BREAK, b"")
    assert broken.value.code == "internal"
    assert "Zero" not in broken.value.detail
    assert await link.call(ECHO, b"still here") == b"still here"


async def test_a_large_frame_crosses_whole_both_ways(port: int) -> None:
    link = await connect(port)
    large = bytes(range(256)) * 40_000
    assert await link.call(ECHO, large) == large


async def test_a_frame_over_the_bound_ends_the_connection(side: Side, port: int) -> None:
    link = await connect(port)
    link._write(ECHO, b"\0\0\0\1" * 4)  # warm: nothing is wrong yet
    assert link.transport is not None
    link.transport.write(HEAD.pack(wire.FRAME_MAX_BYTES + 1, ECHO))
    await until(lambda: side.lost)
    assert side.lost == ["g1"]


async def test_one_who_stops_waiting_disturbs_nobody(side: Side, port: int) -> None:
    link = await connect(port)
    waiting = asyncio.ensure_future(link.call(HOLD, b"a"))
    await side.arrived.wait()
    waiting.cancel()
    side.may_answer.set()
    assert await link.call(ECHO, b"b") == b"b"
    assert link._waiting == {}


# --- telling ------------------------------------------------------------------------------------------------------


async def test_what_is_told_arrives_in_its_order_and_before_what_is_asked_later(side: Side, port: int) -> None:
    link = await connect(port)
    for number in range(2_000):
        link.push(NOTE, str(number).encode())
    await link.call(ECHO, b"")
    assert side.told == [str(number).encode() for number in range(2_000)]


async def test_each_is_told_what_is_meant_for_it(side: Side, port: int) -> None:
    one, two = Side("g1"), Side("g2")
    link, other = await connect(port, "g1", side=one), await connect(port, "g2", side=two)
    await link.call(ECHO, b"")
    await other.call(ECHO, b"")
    side.peers[1].push(NOTE, b"for two")
    # An answer sent after it shows that everything before has arrived.
    await other.call(ECHO, b"")
    await link.call(ECHO, b"")
    assert (one.told, two.told) == ([], [b"for two"])


async def test_one_that_takes_nothing_is_not_written_to_without_end(
    side: Side, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "BACKLOG_MAX_BYTES", 1 << 20)
    link = await connect(port)
    await link.call(ECHO, b"")
    [back] = side.peers
    assert link.transport is not None
    link.transport.pause_reading()
    pushed = 0
    with pytest.raises(Disconnected):
        for _ in range(1_000):
            back.push(NOTE, b"x" * 100_000)
            pushed += 100_000
            await asyncio.sleep(0)
    assert back.backlog_bytes < (1 << 20) + 200_000
    assert pushed < 100_000_000


# --- what cannot be understood ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(HEAD.pack(1, NOTE) + b"x", id="no number"),
        pytest.param(HEAD.pack(7, CODED) + b"\0\0\0\0abc", id="payload of another kind"),
        pytest.param(HEAD.pack(4, RAISE) + b"\0\0\0\0", id="the handler itself breaks"),
    ],
)
async def test_a_frame_that_cannot_be_understood_ends_the_connection(side: Side, port: int, frame: bytes) -> None:
    link = await connect(port)
    assert link.transport is not None
    link.transport.write(frame)
    link.push(NOTE, b"after it")
    await until(lambda: side.lost and not link.open)
    assert side.told == []


async def test_a_refusal_that_cannot_be_understood_ends_the_connection_and_the_waiting(side: Side, port: int) -> None:
    link = await connect(port)
    waiting = asyncio.ensure_future(link.call(HOLD, b"a"))
    await side.arrived.wait()
    side.peers[0]._write(wire.REFUSAL, b"\0\0\0\1", b"\xc1")
    with pytest.raises(Disconnected):
        await waiting


async def test_an_answer_that_nobody_waits_for_is_ignored(side: Side, port: int) -> None:
    link = await connect(port)
    await link.call(ECHO, b"")
    side.peers[0]._write(wire.ANSWER, b"\0\0\0\x63", b"")
    assert await link.call(ECHO, b"a") == b"a"


# --- the end of a connection --------------------------------------------------------------------------------------


async def test_what_waits_when_the_connection_breaks_is_told(side: Side, port: int, listener: Listener) -> None:
    link = await connect(port)
    waiting = asyncio.ensure_future(link.call(HOLD, b"a"))
    await side.arrived.wait()
    listener.close()
    with pytest.raises(Disconnected):
        await waiting
    assert not link.open
    with pytest.raises(Disconnected):
        await link.call(ECHO, b"b")
    with pytest.raises(Disconnected):
        link.push(NOTE, b"c")
    side.may_answer.set()


async def test_both_sides_hear_of_the_end(side: Side, port: int) -> None:
    link = await connect(port)
    lost: list[str] = []
    link.on_lost = lambda ended: lost.append(ended.peer)
    link.close()
    await until(lambda: lost and side.lost)
    assert (lost, side.lost) == (["s1"], ["g1"])


async def test_one_who_connects_again_is_not_lost_with_what_it_left_behind(side: Side, port: int) -> None:
    old = await connect(port, "g1")
    await old.call(ECHO, b"")
    again = Side("g1")
    new = await connect(port, "g1", side=again)
    await new.call(ECHO, b"")
    old.close()
    await until(lambda: side.lost)
    assert await new.call(ECHO, b"a") == b"a"
    side.peers[1].push(NOTE, b"x")
    await until(lambda: again.told)


async def test_an_answer_to_one_who_has_left_goes_nowhere_and_harms_nobody(side: Side, port: int) -> None:
    link = await connect(port, "g1")
    waiting = asyncio.ensure_future(link.call(HOLD, b"a"))
    await side.arrived.wait()
    link.close()
    with pytest.raises(Disconnected):
        await waiting
    side.may_answer.set()
    other = await connect(port, "g2")
    assert await other.call(ECHO, b"b") == b"b"
    assert not side.peers[0]._tasks


async def test_a_listener_that_closes_takes_its_strangers_along(port: int, listener: Listener) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readexactly(HEAD.size + 16)
    listener.close()
    async with asyncio.timeout(LIMIT_S):
        assert await reader.read() == b""
    writer.close()
