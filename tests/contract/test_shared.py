"""What every home of `hub/shared` promises, and what the one in Redis promises while Redis is killed or paused."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from hub.errors import RateLimited
from hub.shared import WAIT_MAX_S, Shared, open_shared
from tests.servers.redis import RedisServer, running_redis

HOMES = ("process", "redis")
HEALED_WITHIN_S = 5.0
PER_MINUTE = 120
# Waiting is bounded by the hub; a busy machine adds to it.
SOON_S = WAIT_MAX_S + 0.25


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


async def until(holds: Callable[[], bool | Awaitable[bool]], within_s: float = HEALED_WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while True:
        found = holds()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline, "it did not come to hold in time"
        await asyncio.sleep(0.01)


@pytest.fixture(params=HOMES)
async def gateways(request: pytest.FixtureRequest) -> AsyncIterator[list[Shared]]:
    """Two gateways of one installation; without Redis there is only one, twice."""
    url = request.getfixturevalue("server").url if request.param == "redis" else None
    installation = secrets.token_hex(4)
    first = open_shared(url, installation=installation, per_minute=PER_MINUTE)
    second = open_shared(url, installation=installation, per_minute=PER_MINUTE) if url else first
    for home in (first, second):
        await home.start()
    yield [first, second]
    for home in (first, second):
        await home.close()


@pytest.fixture
async def pair() -> AsyncIterator[tuple[RedisServer, Shared, Shared]]:
    """A Redis to break, and two gateways on it."""
    with running_redis() as server:
        homes = [open_shared(server.url, installation="t", per_minute=PER_MINUTE) for _ in range(2)]
        for home in homes:
            await home.start()
        assert all(home.health().state == "ok" for home in homes)
        yield server, homes[0], homes[1]
        for home in homes:
            await home.close()


def unanswered(homes: list[Shared]) -> int:
    """Requests that a busy machine let go on without the shared server: they are not its to limit."""
    return sum(home.health().fallbacks for home in homes)


async def taken(homes: list[Shared], client: str, tries: int) -> int:
    """How many of so many requests were let through, asked at each gateway in turn."""
    granted = 0
    for n in range(tries):
        try:
            await homes[n % len(homes)].buckets.take(client)
            granted += 1
        except RateLimited:
            pass
    return granted


# --- every home -------------------------------------------------------------------------------------------------------


async def test_a_client_has_one_bucket_however_many_gateways_it_asks(gateways: list[Shared]) -> None:
    began = time.monotonic()
    granted = await taken(gateways, "agent:a", PER_MINUTE * 3)
    refilled = (time.monotonic() - began) * PER_MINUTE / 60
    assert PER_MINUTE - 2 <= granted <= PER_MINUTE + refilled + 1 + unanswered(gateways)
    with pytest.raises(RateLimited) as refused:
        for _ in range(PER_MINUTE):
            await gateways[0].buckets.take("agent:a")
    assert 0 < refused.value.retry_after_s <= 60 / PER_MINUTE + 0.05
    await gateways[1].buckets.take("agent:b")


async def test_a_bucket_refills_by_itself(gateways: list[Shared]) -> None:
    await taken(gateways, "agent:c", PER_MINUTE * 2)

    async def one_more() -> bool:
        return await taken(gateways[:1], "agent:c", 1) == 1

    await until(one_more)


async def test_parallel_requests_of_one_client_share_its_bucket(gateways: list[Shared]) -> None:
    began = time.monotonic()
    outcomes = await asyncio.gather(
        *(gateways[n % 2].buckets.take("agent:d") for n in range(PER_MINUTE * 2)), return_exceptions=True
    )
    granted = sum(outcome is None for outcome in outcomes)
    refilled = (time.monotonic() - began) * PER_MINUTE / 60
    assert all(outcome is None or isinstance(outcome, RateLimited) for outcome in outcomes)
    assert granted <= PER_MINUTE + refilled + 1 + unanswered(gateways)


async def test_those_who_enter_are_present_everywhere_until_they_leave_or_their_time_is_up(
    gateways: list[Shared],
) -> None:
    one, two = (home.roster for home in gateways)
    one.enter("demo/c1", "ana", 30)
    two.enter("demo/c1", "luis", 0.1)
    two.enter("demo/c2", "eva", 30)

    async def present(*wanted: str) -> bool:
        found = [await home.present("demo/c1") for home in (one, two)]
        return all(sorted(names) == list(wanted) for names in found)

    await until(lambda: present("ana"))
    one.leave("demo/c1", "ana")
    await until(lambda: present())
    assert await one.present("demo/c2") == ["eva"]


async def test_whoever_enters_again_stays(gateways: list[Shared]) -> None:
    roster = gateways[0].roster
    roster.enter("demo/c3", "ana", 0.05)
    roster.enter("demo/c3", "ana", 30)
    await asyncio.sleep(0.1)
    assert await roster.present("demo/c3") == ["ana"]


async def test_a_notice_does_not_come_back_to_the_gateway_that_told_it(gateways: list[Shared]) -> None:
    heard: list[bytes] = []
    gateways[0].notices.follow("settings", heard.append)
    gateways[0].notices.tell("settings", b"mine")
    await gateways[0].roster.present("anywhere")  # a round trip later it would have come
    assert heard == []


async def test_it_says_how_it_fares(gateways: list[Shared]) -> None:
    assert gateways[0].health().up
    assert gateways[0].health().state in ("in process", "ok")


# --- redis ------------------------------------------------------------------------------------------------------------


async def hears(teller: Shared, follower: Shared, topic: str) -> None:
    """Return once what one tells reaches the other."""
    heard: list[bytes] = []
    follower.notices.follow(topic, heard.append)

    def arrived() -> bool:
        teller.notices.tell(topic, b"hello")
        return b"hello" in heard

    await until(arrived)


async def test_a_notice_reaches_those_who_follow_its_topic_in_other_gateways(
    pair: tuple[RedisServer, Shared, Shared],
) -> None:
    _, one, two = pair
    heard: list[bytes] = []
    await hears(one, two, "a")
    two.notices.follow("b", heard.append)
    two.notices.unfollow("a")
    await hears(one, two, "c")
    one.notices.tell("a", b"not followed any more")
    one.notices.tell("b", b"1")
    one.notices.tell("b", b"2")
    await until(lambda: heard == [b"1", b"2"])


async def test_a_notice_that_cannot_be_taken_does_not_deafen(pair: tuple[RedisServer, Shared, Shared]) -> None:
    _, one, two = pair
    heard: list[bytes] = []

    def hear(notice: bytes) -> None:
        heard.append(notice)
        raise ValueError("of another version")

    two.notices.follow("a", hear)

    def twice() -> bool:
        one.notices.tell("a", b"x")
        return len(heard) >= 2

    await until(twice)


async def test_two_installations_on_one_server_do_not_meet(server: RedisServer) -> None:
    homes = [open_shared(server.url, installation=name, per_minute=1) for name in ("one", "two")]
    for home in homes:
        await home.start()
        await home.buckets.take("agent:a")
        home.roster.enter("place", home.health().state, 30)
    heard: list[bytes] = []
    homes[1].notices.follow("a", heard.append)
    homes[0].notices.tell("a", b"x")
    assert [len(await home.roster.present("place")) for home in homes] == [1, 1]
    assert heard == []
    for home in homes:
        await home.close()


async def test_a_busy_client_does_not_cost_a_round_trip_a_request(server: RedisServer) -> None:
    home = open_shared(server.url, installation="busy", per_minute=60_000)
    await home.start()
    import redis.asyncio

    watcher = redis.asyncio.Redis.from_url(server.url)
    before = (await watcher.info("commandstats")).get("cmdstat_eval", {"calls": 0})["calls"]
    for _ in range(5000):
        await home.buckets.take("agent:busy")
    calls = (await watcher.info("commandstats"))["cmdstat_eval"]["calls"] - before
    assert 1 <= calls <= 50
    await watcher.aclose()
    await home.close()


async def break_by_kill(server: RedisServer) -> None:
    server.kill()


async def break_by_pause(server: RedisServer) -> None:
    server.pause()


def mend(server: RedisServer, broken_by: object) -> None:
    if broken_by is break_by_kill:
        server.start()
    else:
        server.resume()


@pytest.mark.parametrize("break_it", [break_by_kill, break_by_pause])
async def test_while_redis_is_away_nothing_fails_and_nothing_waits_and_it_heals(
    pair: tuple[RedisServer, Shared, Shared], break_it: Callable[[RedisServer], Awaitable[None]]
) -> None:
    server, one, two = pair
    await hears(one, two, "before")
    await break_it(server)
    for n in range(30):
        began = time.monotonic()
        await one.buckets.take(f"agent:{n}")
        one.roster.enter("demo/c1", "ana", 30)
        assert await one.roster.present("demo/c1") == ["ana"]
        one.notices.tell("before", b"lost")
        assert time.monotonic() - began < 2 * SOON_S
    await until(lambda: one.health().state.startswith("degraded: redis does not answer since 2"))
    health = one.health()
    assert not health.up and health.fallbacks > 0
    granted = await taken([one], "agent:limited", PER_MINUTE * 2)
    assert PER_MINUTE <= granted <= PER_MINUTE + 10, "one gateway's own limit holds meanwhile"
    await until(lambda: one.health().errors > 0)

    mend(server, break_it)
    await until(lambda: one.health().state == "ok" and two.health().state == "ok")
    await hears(one, two, "after")
    two.roster.enter("demo/c9", "luis", 30)

    async def seen() -> bool:
        return await one.roster.present("demo/c9") == ["luis"]

    await until(seen)


async def test_a_restart_that_nobody_noticed_does_no_harm(pair: tuple[RedisServer, Shared, Shared]) -> None:
    server, one, two = pair
    await one.buckets.take("agent:a")
    server.restart()
    await one.buckets.take("agent:a")
    await until(lambda: one.health().up and two.health().up)
    await one.buckets.take("agent:a")
    await hears(two, one, "again")


async def test_a_gateway_starts_without_redis_and_finds_it_later() -> None:
    server = RedisServer()
    home = open_shared(server.url, installation="late", per_minute=PER_MINUTE)
    began = time.monotonic()
    await home.start()
    assert time.monotonic() - began < 3
    assert home.health().state.startswith("degraded")
    await home.buckets.take("agent:a")
    server.start()
    await until(lambda: home.health().state == "ok")
    await home.close()
    server.stop()


async def test_a_server_that_answers_but_takes_no_writes_counts_as_away(
    pair: tuple[RedisServer, Shared, Shared],
) -> None:
    import redis.asyncio

    server, one, _ = pair
    admin = redis.asyncio.Redis.from_url(server.url)
    await admin.config_set("min-replicas-to-write", 1)
    await until(lambda: not one.health().up)
    await one.buckets.take("agent:a")
    await admin.config_set("min-replicas-to-write", 0)
    await until(lambda: one.health().up)
    await admin.aclose()
