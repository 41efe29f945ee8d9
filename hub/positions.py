"""Positions: where a subscription stands in the journal, as an opaque token.

A tenant's events live in one partition, or in several where it is spread; a position names an offset in
each: `3-1041` or `3-1041_7-88`.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"^\d{1,4}-\d{1,18}(_\d{1,4}-\d{1,18}){0,63}$")


def encode(offsets: dict[int, int]) -> str:
    return "_".join(f"{partition}-{offset}" for partition, offset in sorted(offsets.items()))


def one(partition: int, offset: int) -> str:
    """The position of a tenant that lives in a single partition."""
    return f"{partition}-{offset}"


def latest(one: str, other: str) -> str:
    """The position of one who has seen what either has."""
    first, second = decode(one) or {}, decode(other) or {}
    return encode({p: max(first.get(p, 0), second.get(p, 0)) for p in first | second})


def decode(token: str) -> dict[int, int] | None:
    """Offsets by partition, or None where this never was a position."""
    if not _TOKEN.match(token):
        return None
    pairs = (part.split("-") for part in token.split("_"))
    return {int(partition): int(offset) for partition, offset in pairs}
