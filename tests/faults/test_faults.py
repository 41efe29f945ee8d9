"""The short form of `make faults`: a fault of each kind, on each home at least one."""

from __future__ import annotations

import pytest

from tests.faults.catalogue import BY_KEY
from tests.faults.run import run

WAIT_MAX_S = 8.0
PAIRS = (
    ("frozen", "sqlite"),
    ("disk", "sqlite"),
    ("db-restart", "mongodb"),
    ("node", "sqlite"),
)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("fault", "home"), PAIRS)
def test_nothing_is_lost_doubled_or_reordered(fault: str, home: str) -> None:
    outcome = run(BY_KEY[fault], home)
    assert outcome.clean, outcome
    assert outcome.longest_wait_s < WAIT_MAX_S, outcome
