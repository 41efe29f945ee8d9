"""Time as a port. Inside: UTC epoch milliseconds. Outside: RFC 3339 with milliseconds.

Code that decides never reads a clock; it is handed `now`. Code that waits uses the event loop's own
time, which the simulation replaces.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

# Wide enough for any real message, narrow enough that no timestamp overflows a database or a browser.
EARLIEST_MS = 946_684_800_000  # 2000-01-01
LATEST_MS = 4_102_444_800_000  # 2100-01-01


class Clock(Protocol):
    def now(self) -> int:
        """UTC epoch milliseconds."""
        ...


class SystemClock:
    def now(self) -> int:
        return time.time_ns() // 1_000_000


@lru_cache(maxsize=4096)
def _second(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(ms: int) -> str:
    """`1764000000123` → `2025-11-24T16:00:00.123Z`."""
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


def parse_rfc3339(text: str) -> int:
    """Milliseconds of an RFC 3339 instant. Raises ValueError where it is none or lies outside 2000–2100."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("an instant needs a time zone, such as 2026-01-31T12:00:00Z")
    ms = int(at.timestamp() * 1000)
    if not EARLIEST_MS <= ms <= LATEST_MS:
        raise ValueError("an instant must lie between the years 2000 and 2100")
    return ms


def plausible(ms: int | None, now: int) -> int:
    """A provider's own timestamp where it can be believed, else `now`: a wrong clock must not reorder an inbox."""
    if ms is None or not EARLIEST_MS <= ms <= now + 86_400_000:
        return now
    return ms
