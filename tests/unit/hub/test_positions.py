"""Positions are opaque to clients, exact to us."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import positions
from hub.ids import PARTITIONS_MAX, SPREAD_MAX_PARTITIONS

VECTORS = st.dictionaries(
    st.integers(0, PARTITIONS_MAX - 1), st.integers(0, 10**18 - 1), min_size=1, max_size=SPREAD_MAX_PARTITIONS
)


@given(VECTORS)
def test_a_position_says_what_was_put_into_it_up_to_the_largest_spread(vector: dict[int, int]) -> None:
    assert positions.decode(positions.encode(vector)) == vector


@given(VECTORS, st.data())
def test_what_stands_around_one_part_makes_the_whole_with_it(vector: dict[int, int], data: st.DataObject) -> None:
    partition = data.draw(st.sampled_from(sorted(vector)))
    before, after = positions.around(vector, partition)
    assert f"{before}{partition}-{vector[partition]}{after}" == positions.encode(vector)


@pytest.mark.parametrize(
    "token", ["", "x", "3", "3-", "3-1_", "_3-1", "3-1_x", "3--1", "3-1 ", "3-1\n", "３-1", "3-1_" * 64 + "3-1"]
)
def test_what_never_was_a_position_is_recognised(token: str) -> None:
    assert positions.decode(token) is None
