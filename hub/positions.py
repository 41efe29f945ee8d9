"""Positions: where a subscription stands in the journal, as an opaque token.

A tenant's events live in one partition, or in several where it is spread; a position names an offset in
each: `3-1041` or `3-1041_7-88`.
"""

from __future__ import annotations

import re

from hub.ids import SPREAD_MAX_PARTITIONS

_TOKEN = re.compile(rf"\d{{1,4}}-\d{{1,18}}(_\d{{1,4}}-\d{{1,18}}){{0,{SPREAD_MAX_PARTITIONS - 1}}}", re.ASCII)


def encode(offsets: dict[int, int]) -> str:
    return "_".join(f"{partition}-{offset}" for partition, offset in sorted(offsets.items()))


def around(offsets: dict[int, int], partition: int) -> tuple[str, str]:
    """What stands before and after `{partition}-{offset}` in a position whose other parts are these."""
    before = after = ""
    for other, offset in sorted(offsets.items()):
        if other < partition:
            before += f"{other}-{offset}_"
        elif other > partition:
            after += f"_{other}-{offset}"
    return before, after


def decode(token: str) -> dict[int, int] | None:
    """Offsets by partition, or None where this never was a position."""
    if not _TOKEN.fullmatch(token):
        return None
    pairs = (part.split("-") for part in token.split("_"))
    return {int(partition): int(offset) for partition, offset in pairs}
