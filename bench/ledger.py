"""The ledger: what was sent, acknowledged and delivered, and whether the three agree."""

from __future__ import annotations

from array import array
from typing import Any


class Ledger:
    """Messages are numbered 0 … n-1; times are seconds on one monotonic clock."""

    def __init__(self, conversations: int) -> None:
        self.conversations = conversations
        self.intended = array("d")
        self.acked_at = array("d")
        self.delivered_at = array("d")
        self.doubled = 0
        self.out_of_order = 0
        self.errors = 0
        self.retries = 0
        self.refused: set[int] = set()
        """Told to come back later, and given up."""
        self._last_n = [-1] * conversations
        self._last_seq = [0] * conversations

    def plan(self, intended: float) -> int:
        """A message that should be sent at `intended`; returns its number."""
        self.intended.append(intended)
        self.acked_at.append(0.0)
        self.delivered_at.append(0.0)
        return len(self.intended) - 1

    def ack(self, n: int, at: float) -> None:
        if not self.acked_at[n]:
            self.acked_at[n] = at

    def deliver(self, n: int, conversation: int, seq: int, at: float) -> None:
        if self.delivered_at[n]:
            self.doubled += 1
            return
        self.delivered_at[n] = at
        if n < self._last_n[conversation] or seq <= self._last_seq[conversation]:
            self.out_of_order += 1
        self._last_n[conversation] = max(n, self._last_n[conversation])
        self._last_seq[conversation] = max(seq, self._last_seq[conversation])

    @property
    def acked(self) -> int:
        return sum(1 for at in self.acked_at if at)

    @property
    def delivered(self) -> int:
        return sum(1 for at in self.delivered_at if at)

    @property
    def lost(self) -> int:
        """Acknowledged, but never seen by the agent."""
        return sum(1 for acked, seen in zip(self.acked_at, self.delivered_at, strict=True) if acked and not seen)

    def complete(self) -> bool:
        """Nothing is waited for any more."""
        done = sum(1 for at in self.delivered_at if at)
        return done + len(self.refused) >= len(self.intended) and self.acked + len(self.refused) >= len(self.intended)

    def report(self) -> dict[str, Any]:
        return {
            "offered": len(self.intended),
            "acked": self.acked,
            "delivered": self.delivered,
            "errors": self.errors,
            "retries": self.retries,
            "refused": len(self.refused),
            "lost": self.lost,
            "doubled": self.doubled,
            "out_of_order": self.out_of_order,
            "ack_ms": percentiles(self.intended, self.acked_at),
            "deliver_ms": percentiles(self.intended, self.delivered_at),
        }


def percentiles(begun: array[float], ended: array[float]) -> dict[str, float]:
    """Milliseconds from the intended send time."""
    values = sorted((end - begin) * 1000 for begin, end in zip(begun, ended, strict=True) if end)
    if not values:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}

    def at(share: float) -> float:
        return round(values[min(len(values) - 1, int(share * len(values)))], 2)

    return {"p50": at(0.50), "p95": at(0.95), "p99": at(0.99), "max": round(values[-1], 2)}
