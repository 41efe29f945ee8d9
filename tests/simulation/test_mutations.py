"""The checkers see what they claim to see: a runtime that is broken on purpose is caught within a few seeds."""

from __future__ import annotations

import pytest

from tests.simulation.mutations import MUTATIONS, applied
from tests.simulation.world import run

SEEDS_MAX = 80
# Seeds that showed what is seen seldom, when they were last looked for: where they come first, the search is short.
TRIED_FIRST = {
    "snapshots_hold_what_is_not_durable": 38,
    "timers_are_not_rebuilt": 27,
    "a_timer_that_was_refused_is_forgotten": 12,
    "the_courier_does_not_read_its_own_notes": 23,
    "the_courier_calls_before_it_writes": 64,
    "a_failed_flush_loses_its_rows": 12,
    "a_release_does_not_wait_for_what_is_under_way": 16,
    "a_broken_connection_is_nobodys_death": 40,
    "a_directory_that_starts_again_counts_from_nought": 8,
    "a_directory_that_starts_again_does_not_ask_who_owns_what": 8,
    "a_new_owner_is_asked_while_the_old_one_still_is": 24,
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_runtime_is_caught(name: str) -> None:
    with applied(name):
        seeds = [TRIED_FIRST.get(name, 0), *range(SEEDS_MAX)]
        assert any(run(seed).violations for seed in seeds), f"{SEEDS_MAX} seeds did not notice: {name}"
