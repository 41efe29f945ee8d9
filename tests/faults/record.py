"""What the load saw: who was acknowledged when, and how long anybody waited for any answer at all."""

from __future__ import annotations

import time
from collections import Counter

import msgspec

RETRYABLE = frozenset({"unavailable", "store_unavailable", "overloaded", "rate_limited", "going_away", "too_slow"})
DISCONNECTED = "disconnected"
NO_ANSWER = "no_answer"
LONG_WAIT_S = 1.0
LONG_WAITS_MAX_COUNT = 200


class Ack(msgspec.Struct, frozen=True):
    """`took_s` counts from the message's first attempt, so every repeat is in it."""

    at: float
    took_s: float


class Record:
    """Times are `time.monotonic()`."""

    def __init__(self) -> None:
        self.acks: list[Ack] = []
        self.longest_wait_s = 0.0
        self.longest_wait_for = ""
        self.long_waits: list[str] = []
        """What they waited for, and when it ended, for the first few that took longer than a second."""
        self.refusals: Counter[str] = Counter()
        self._began = time.monotonic()

    def acked(self, first_attempt_at: float) -> None:
        now = time.monotonic()
        self.acks.append(Ack(now, now - first_attempt_at))

    def waited(self, seconds: float, refusal: str | None, what: str) -> None:
        """One attempt, from its first byte to an answer, a refusal or the end of the connection."""
        if refusal is not None:
            self.refusals[refusal] += 1
        if seconds > LONG_WAIT_S and len(self.long_waits) < LONG_WAITS_MAX_COUNT:
            ended = time.monotonic() - self._began
            self.long_waits.append(f"at {ended:.1f} s: {what} waited {seconds:.1f} s: {refusal or 'acknowledged'}")
        if seconds > self.longest_wait_s:
            self.longest_wait_s, self.longest_wait_for = seconds, f"{what}: {refusal or 'acknowledged'}"

    @property
    def errors(self) -> dict[str, int]:
        """Refusals that told a caller not to try again, though nothing was wrong with what it asked."""
        expected = RETRYABLE | {DISCONNECTED, NO_ANSWER}
        return {code: count for code, count in self.refusals.items() if code not in expected}
