"""The directory's desk and its followers: who is believed to be whom, and how soon a broken link is mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from actors import wire
from actors.assignment import Assignment, Member
from actors.follower import Follower
from actors.membership import LOST_GRACE_S, RELEASE_TIMEOUT_S
from actors.office import Office
from actors.router import Router
from actors.wire import Link, Listener
from hub.errors import BadRequest, Conflict, Unavailable

SECRET = b"k" * 32
HERE = "127.0.0.1"
LIMIT_S = 10.0


def shard(name: str, incarnation: int = 1, node: str = "a", port: int = 1) -> Member:
    return Member(name, "shard", node, HERE, port, incarnation)


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    office = Office(SECRET, 4, seats=1, expected=1)
    await office.open(HERE)
    yield office
    office.close()


class Following:
    """A member that follows an office, and what it has heard."""

    def __init__(self, member: Member, office: Office) -> None:
        self.office = office
        self.heard: list[Assignment] = []
        self.released: list[int] = []
        self.may_release = asyncio.Event()
        self.follower = Follower(
            member, secret=SECRET, find=self._find, on_assignment=self.heard.append, on_release=self._release
        )
        self.task = asyncio.get_running_loop().create_task(self.follower.run())

    async def _find(self) -> tuple[str, int]:
        return self.office.address

    async def _release(self, partitions: list[int]) -> None:
        self.released += partitions
        await self.may_release.wait()

    def break_link(self) -> None:
        assert self.follower._link is not None and self.follower._link.transport is not None
        self.follower._link.transport.abort()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.002)


async def link_to(office: Office, name: str) -> Link:
    def nothing(link: Link, kind: int, payload: bytes) -> Awaitable[bytes] | None:
        return None

    return await wire.connect(*office.address, secret=SECRET, name=name, serve=nothing)


def joining(member: Member) -> bytes:
    return msgspec.msgpack.encode((member, None))


async def test_a_link_that_breaks_is_mended_at_once_and_its_member_was_never_gone(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next beat only, when it would count as dead."""
    monkeypatch.setattr("actors.follower.BEAT_EVERY_S", 60.0)
    monkeypatch.setattr("actors.membership.BEAT_TIMEOUT_S", 60.0)
    monkeypatch.setattr("actors.membership.LOST_GRACE_S", 5.0)
    one, two = Following(shard("s0"), office), Following(shard("s1"), office)
    await one.follower.joined()
    await until(lambda: len(office.membership.assignment.members) == 2)
    version = office.membership.assignment.version
    for _ in range(3):
        await until(lambda: one.follower.connected and two.follower.connected)
        one.break_link()
        two.break_link()
    await until(lambda: one.follower.connected and two.follower.connected)
    assert office.membership.assignment.version == version
    one.task.cancel()
    two.task.cancel()


async def test_one_cannot_join_under_anothers_name(office: Office) -> None:
    link = await link_to(office, "s0")
    with pytest.raises(BadRequest, match="s0 cannot join as s1"):
        await link.call(wire.JOIN, joining(shard("s1")))
    assert office.membership.assignment.members == []


async def test_a_process_that_was_replaced_disturbs_its_successor_in_nothing(office: Office) -> None:
    successor = Following(shard("s0", incarnation=2), office)
    await successor.follower.joined()
    zombie = await link_to(office, "s0")
    with pytest.raises(Conflict):
        await zombie.call(wire.JOIN, joining(shard("s0", incarnation=1)))
    zombie.push(wire.BEAT, b"")
    zombie.close()
    heard = len(successor.heard)
    other = Following(Member("g0", "gateway", "a"), office)
    await until(lambda: len(successor.heard) > heard)
    await asyncio.sleep(LOST_GRACE_S * 2)
    assert office.membership.assignment.owners == ["s0"] * 4
    assert successor.follower.connected
    for member in (successor, other):
        member.task.cancel()


async def test_a_frame_that_the_directory_does_not_know_ends_the_link(office: Office) -> None:
    link = await link_to(office, "s0")
    link.push(wire.COMMANDS, b"")
    await until(lambda: not link.open)


async def test_a_release_is_asked_of_its_owner_and_waited_for(office: Office) -> None:
    one = Following(shard("s0"), office)
    await one.follower.joined()
    two = Following(shard("s1", node="b"), office)
    await until(lambda: len(one.released) == 2)
    assert office.membership.assignment.owners == ["s0"] * 4
    one.may_release.set()
    await until(lambda: office.membership.assignment.owners.count("s1") == 2)
    assert sorted(office.membership.assignment.of("s1")) == sorted(one.released)
    assert RELEASE_TIMEOUT_S > LIMIT_S
    for member in (one, two):
        member.task.cancel()


async def test_who_cannot_reach_the_directory_is_told(office: Office) -> None:
    member = Following(shard("s0"), office)
    await member.follower.joined()
    member.task.cancel()
    await until(lambda: not member.follower.connected)
    with pytest.raises(Unavailable):
        await member.follower.ask()


async def test_a_decision_that_fails_is_not_the_last(office: Office) -> None:
    decide, defects = office.membership.decide, [ZeroDivisionError()]

    def broken(now: float) -> dict[str, list[int]]:
        if defects:
            raise defects.pop()
        return decide(now)

    office.membership.decide = broken  # type: ignore[method-assign]
    await until(lambda: not defects)
    member = Following(shard("s0"), office)
    async with asyncio.timeout(LIMIT_S):
        await member.follower.joined()
    member.task.cancel()


async def test_a_router_links_to_the_process_behind_a_name_and_not_to_the_one_it_replaced(office: Office) -> None:
    """The old one may be stopped or cut off, with its end of the connection as open as ever."""
    asked: list[int] = []

    def serving(incarnation: int) -> wire.Serve:
        async def answer() -> bytes:
            asked.append(incarnation)
            return msgspec.msgpack.encode({})

        return lambda link, kind, payload: answer()

    listeners = [Listener(SECRET, "s0", serving(incarnation)) for incarnation in (1, 2)]
    ports = [await listener.open(HERE) for listener in listeners]
    old = Following(shard("s0", 1, port=ports[0]), office)
    linked: list[str] = []

    async def find() -> tuple[str, int]:
        return office.address

    router = Router(
        Member("g0", "gateway", "a"),
        4,
        secret=SECRET,
        find_directory=find,
        on_link=linked.append,
        on_feeds=lambda feeds: None,
    )
    await router.start()
    await until(lambda: linked)
    await router.metrics("s0")
    old.task.cancel()
    new = Following(shard("s0", 2, port=ports[1]), office)
    await until(lambda: len(linked) == 2)
    await router.metrics("s0")
    assert asked == [1, 2]
    assert router._connecting == {}
    await router.stop()
    new.task.cancel()
    for listener in listeners:
        listener.close()
