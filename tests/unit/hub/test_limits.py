"""The token bucket of one process, by a clock that stands still until told."""

from __future__ import annotations

import pytest

from hub.errors import RateLimited
from hub.shared import PRESENT_MAX_COUNT
from hub.shared.process import CLIENTS_MAX_COUNT, PLACES_MAX_COUNT, LocalBuckets, LocalRoster


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_of_a_minutes_worth_and_then_one_at_a_time() -> None:
    clock = Clock()
    buckets = LocalBuckets(60, clock)
    for _ in range(60):
        buckets.spend("a")
    with pytest.raises(RateLimited) as refused:
        buckets.spend("a")
    assert refused.value.retry_after_s == pytest.approx(1.0)
    buckets.spend("b")
    clock.now += 1
    buckets.spend("a")
    with pytest.raises(RateLimited):
        buckets.spend("a")
    buckets.give_back("a")
    buckets.spend("a")
    clock.now += 3600
    for _ in range(60):
        buckets.spend("a")
    with pytest.raises(RateLimited):
        buckets.spend("a")


def test_a_flood_of_clients_and_places_stays_within_its_bounds() -> None:
    buckets, roster = LocalBuckets(60, Clock()), LocalRoster(Clock())
    for n in range(CLIENTS_MAX_COUNT + 10):
        buckets.spend(str(n))
        roster.enter(str(n), "ana", 10)
    for n in range(PRESENT_MAX_COUNT + 10):
        roster.enter("full", str(n), 10)
    assert len(buckets._buckets) <= CLIENTS_MAX_COUNT
    assert len(roster._places) <= PLACES_MAX_COUNT
    assert len(roster.known("full")) == PRESENT_MAX_COUNT


def test_time_is_up_when_it_is_up() -> None:
    clock = Clock()
    roster = LocalRoster(clock)
    roster.enter("c1", "ana", 30)
    clock.now += 29
    assert roster.known("c1") == ["ana"]
    roster.enter("c1", "ana", 30)
    clock.now += 29
    assert roster.known("c1") == ["ana"]
    clock.now += 1
    assert roster.known("c1") == []
