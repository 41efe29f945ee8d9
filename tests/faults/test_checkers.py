"""A checker that cannot fail is worth nothing: each is shown what it exists to find."""

from __future__ import annotations

import pytest

from tests.faults.evidence import Evidence
from tests.faults.record import Ack, Record
from tests.faults.service import Normal, full_from

RATE = 100


def steady(since: float, until: float, took_s: float = 0.01) -> list[Ack]:
    return [Ack(since + n / RATE, took_s) for n in range(int((until - since) * RATE))]


def seconds_to_full_service(after_the_fault: list[Ack], until: float) -> float | None:
    before = steady(0, 4)
    return full_from(before + after_the_fault, Normal(before, 0, 4), 4, until)


def test_a_fault_that_nobody_feels_takes_no_time() -> None:
    assert seconds_to_full_service(steady(4, 10), 10) == 0


def test_silence_is_counted_until_the_last_late_message_is_acknowledged() -> None:
    late = [Ack(6.0, 2.0)] * 50
    found = seconds_to_full_service(late + steady(6.01, 12), 12)
    assert found is not None and 1.9 <= found <= 2.2


def test_half_the_rate_is_not_full_service() -> None:
    assert seconds_to_full_service(steady(4, 10)[::2], 10) is None


def test_the_same_rate_but_slower_is_not_full_service() -> None:
    assert seconds_to_full_service(steady(4, 10, took_s=0.5), 10) is None


def test_a_second_dip_counts() -> None:
    dip = steady(4, 6) + [Ack(8.0, 2.0)] * 50 + steady(8.01, 13)
    found = seconds_to_full_service(dip, 13)
    assert found is not None and found >= 3.9


@pytest.mark.parametrize(
    ("found", "lost", "doubled", "reordered"),
    [
        ([0, 1, 2], 0, 0, 0),
        ([0, 1, 2, 3], 0, 0, 0),  # written, but its answer never arrived
        ([0, 2], 1, 0, 0),
        ([], 3, 0, 0),
        ([0, 1, 1, 2], 0, 1, 0),
        ([0, 2, 1], 0, 0, 1),
        ([0, 1, 2, 0], 0, 1, 0),
    ],
)
def test_what_was_acknowledged_must_be_there_once_and_in_order(
    found: list[int], lost: int, doubled: int, reordered: int
) -> None:
    evidence = Evidence()
    evidence.compare("journal", {7: 3}, {7: found})
    assert (evidence.lost, evidence.doubled, evidence.reordered) == (lost, doubled, reordered)
    assert bool(evidence.problems) == bool(lost or doubled or reordered)


def test_a_refusal_that_says_not_to_try_again_is_an_error() -> None:
    record = Record()
    record.waited(0.1, "store_unavailable", "webhook")
    record.waited(0.2, "disconnected", "webhook")
    assert record.errors == {}
    record.waited(0.1, "unauthenticated", "webhook")
    assert record.errors == {"unauthenticated": 1}
    assert record.longest_wait_s == 0.2
