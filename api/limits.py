"""Rate limits: a token bucket for each client, in this process."""

from __future__ import annotations

import time

from hub.errors import RateLimited

CLIENTS_MAX_COUNT = 50_000


class RateLimits:
    """`per_minute` requests a minute for each client, with a burst of as many."""

    def __init__(self, per_minute: int) -> None:
        self._per_second = per_minute / 60
        self._burst = float(per_minute)
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, client: str) -> None:
        """Raises RateLimited with the seconds until the next token."""
        now = time.monotonic()
        tokens, since = self._buckets.get(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._per_second)
        if tokens < 1:
            raise RateLimited(retry_after_s=(1 - tokens) / self._per_second)
        if len(self._buckets) >= CLIENTS_MAX_COUNT and client not in self._buckets:
            self._buckets.clear()  # a flood of new clients must not fill the memory; everyone starts full again
        self._buckets[client] = (tokens - 1, now)
