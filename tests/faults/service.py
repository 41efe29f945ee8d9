"""When is service full again? Read from the times of the acknowledgements alone."""

from __future__ import annotations

from bisect import bisect_left

from tests.faults.record import Ack

WINDOW_S = 1.0
STEP_S = 0.1
RATE_SHARE = 0.8
SLOW_SHARE = 0.05
SLOW_FLOOR_S = 0.25
SLOW_FACTOR = 3.0


class Normal:
    """What service was like before the fault: acks a second, and the latency that 95 % kept below."""

    def __init__(self, acks: list[Ack], since: float, until: float) -> None:
        took = sorted(ack.took_s for ack in acks if since <= ack.at < until)
        self.rate = len(took) / (until - since)
        self.p95_s = took[int(0.95 * (len(took) - 1))] if took else 0.0
        self.slow_s = max(SLOW_FLOOR_S, SLOW_FACTOR * self.p95_s)

    def kept(self, window: list[Ack]) -> bool:
        """At least 80 % of the rate, and at most 5 % slower than three times the p95 before (or than 250 ms)."""
        if len(window) < RATE_SHARE * self.rate * WINDOW_S:
            return False
        return sum(ack.took_s > self.slow_s for ack in window) <= SLOW_SHARE * len(window)


def full_from(acks: list[Ack], normal: Normal, since: float, until: float) -> float | None:
    """Seconds after `since` from which on every window of a second is as before; None where the last one is not."""
    times = [ack.at for ack in acks]
    full = None
    steps = int((until - WINDOW_S - since) / STEP_S)
    for step in range(steps, -1, -1):
        begin = since + step * STEP_S
        window = acks[bisect_left(times, begin) : bisect_left(times, begin + WINDOW_S)]
        if not normal.kept(window):
            break
        full = step * STEP_S
    return full
