"""The checkers see what they claim to see: a runtime that is broken on purpose is caught within a few seeds."""

from __future__ import annotations

import pytest

from tests.simulation.mutations import MUTATIONS, applied
from tests.simulation.world import run

SEEDS_MAX = 80


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_runtime_is_caught(name: str) -> None:
    with applied(name):
        assert any(run(seed).violations for seed in range(SEEDS_MAX)), f"{SEEDS_MAX} seeds did not notice: {name}"
