"""Admission: who is let in while there is not room for everybody."""

from __future__ import annotations

from api.admission import LAG_MAX_S, Admission


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def admitted(admission: Admission, tenant: str, count: int) -> int:
    return sum(admission.refusal(tenant) is None for _ in range(count))


def late(admission: Admission) -> None:
    for _ in range(100):
        admission.note(LAG_MAX_S * 2)


def test_a_tenant_gets_its_rate_and_not_more_and_learns_when_to_come_back() -> None:
    clock = Clock()
    admission = Admission(tenant_per_s=100, now=clock)
    assert admitted(admission, "noisy", 1000) == 100
    refused = admission.refusal("noisy")
    assert refused is not None and (refused.code, round(refused.retry_after_s, 3)) == ("overloaded", 0.01)
    assert admitted(admission, "other", 100) == 100
    clock.now_s = 0.5
    assert admitted(admission, "noisy", 1000) == 50


def test_without_a_rate_and_in_time_everybody_is_let_in() -> None:
    assert admitted(Admission(tenant_per_s=0), "any", 10_000) == 10_000


def test_a_late_gateway_refuses_whoever_has_more_than_the_average() -> None:
    admission = Admission(tenant_per_s=0)
    admitted(admission, "noisy", 900)
    admitted(admission, "quiet", 50)
    admitted(admission, "newer", 50)
    late(admission)
    assert admitted(admission, "noisy", 100) == 0
    assert admitted(admission, "quiet", 100) == 100
    assert admission.refused == 100


def test_one_tenant_alone_is_refused_while_late_and_let_in_again_in_time() -> None:
    admission = Admission(tenant_per_s=0)
    admitted(admission, "only", 10)
    late(admission)
    assert admitted(admission, "only", 10) == 0
    for _ in range(100):
        admission.note(0)
    assert admitted(admission, "only", 10) == 10


def test_one_late_moment_is_nobodys_fault() -> None:
    admission = Admission(tenant_per_s=0)
    admission.note(LAG_MAX_S * 5)
    assert admitted(admission, "any", 10) == 10


def test_shares_are_those_of_the_last_moments() -> None:
    admission = Admission(tenant_per_s=0)
    admitted(admission, "was noisy", 1000)
    for _ in range(12):
        admission.forget()
    admitted(admission, "is noisy", 100)
    admitted(admission, "was noisy", 1)
    late(admission)
    assert admitted(admission, "was noisy", 10) == 10
    assert admitted(admission, "is noisy", 10) == 0
