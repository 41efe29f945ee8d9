"""The hub keeps its promises in every world of these seeds, and every world is fully determined by its seed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.simulation.world import run

CHUNK_SEEDS = 25
CHUNKS = 4


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_all_promises_hold_after_faults_and_healing(chunk: int) -> None:
    for seed in range(chunk * CHUNK_SEEDS, (chunk + 1) * CHUNK_SEEDS):
        violations = run(seed).violations
        assert not violations, f"python -m tests.simulation --seed {seed} --trace\n" + "\n".join(violations[:10])


@pytest.mark.parametrize("seed", [3, 17, 29])
def test_a_seed_determines_the_whole_run(seed: int) -> None:
    assert run(seed).digest == run(seed).digest


def test_a_run_does_not_depend_on_the_process_it_runs_in() -> None:
    """Neither the order of sets nor any randomness of the operating system may matter."""
    program = "from tests.simulation.world import run; print([run(seed).digest for seed in (5, 8)])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, check=True
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_different_seeds_make_different_worlds() -> None:
    assert len({run(seed, steps=40).digest for seed in range(6)}) == 6
