"""Timers remember the latest wish of each name, and give each back once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.timers import Timers


def test_what_is_due_comes_earliest_first_and_only_once() -> None:
    timers = Timers()
    for name, due in (("b", 20), ("a", 10), ("c", 30)):
        timers.set(name, due)
    assert timers.pop_due(20) == [("a", 10), ("b", 20)]
    assert timers.pop_due(20) == []
    assert timers.next_due() == 30


def test_a_new_wish_replaces_the_old_one() -> None:
    timers = Timers()
    timers.set("a", 10)
    timers.set("a", 30)
    assert timers.pop_due(20) == []
    assert timers.pop_due(30) == [("a", 30)]


def test_a_wish_withdrawn_is_forgotten() -> None:
    timers = Timers()
    timers.set("a", 10)
    timers.set("a", None)
    timers.set("b", None)
    assert (timers.next_due(), len(timers)) == (None, 0)


def test_a_wish_that_returns_fires_once() -> None:
    timers = Timers()
    timers.set("a", 10)
    timers.set("a", 20)
    timers.set("a", 10)
    assert timers.pop_due(99) == [("a", 10)]


def test_a_retry_does_not_replace_what_was_wished_meanwhile() -> None:
    timers = Timers()
    timers.set("a", 50)
    timers.set_again("a", 20)
    timers.set_again("b", 20)
    assert timers.pop_due(60) == [("b", 20), ("a", 50)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 50)))))
def test_it_behaves_like_a_dictionary(wishes: list[tuple[str, int | None]]) -> None:
    timers, model = Timers(), dict[str, int]()
    for name, due in wishes:
        timers.set(name, due)
        if due is None:
            model.pop(name, None)
        else:
            model[name] = due
    assert timers.next_due() == min(model.values(), default=None)
    assert sorted(timers.pop_due(50)) == sorted(model.items())
