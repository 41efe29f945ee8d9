"""Unit tests run without Ray: whatever they need of it has been put in the wrong place."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_ray() -> Iterator[None]:
    before = "ray" in sys.modules
    yield
    assert before or "ray" not in sys.modules, "a unit test imported ray"
