"""What one gateway keeps for itself: all there is without Redis, and what it goes by while Redis is away."""

from __future__ import annotations

import time
from collections.abc import Callable

from hub.errors import RateLimited
from hub.shared import PRESENT_MAX_COUNT, Health, Hear

CLIENTS_MAX_COUNT = 50_000
PLACES_MAX_COUNT = 50_000


class LocalBuckets:
    """A token bucket for each client: `per_minute` requests a minute, with a burst of as many."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_minute / 60
        self._burst = float(per_minute)
        self._now = now
        self._buckets: dict[str, tuple[float, float]] = {}

    def spend(self, client: str) -> None:
        """Raises RateLimited with the seconds until the next token."""
        now = self._now()
        tokens, since = self._buckets.get(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._per_second)
        if tokens < 1:
            raise RateLimited(retry_after_s=(1 - tokens) / self._per_second)
        if len(self._buckets) >= CLIENTS_MAX_COUNT and client not in self._buckets:
            self._buckets.clear()  # a flood of new clients must not fill the memory; everyone starts full again
        self._buckets[client] = (tokens - 1, now)

    def give_back(self, client: str) -> None:
        """The token that was spent last bought nothing."""
        known = self._buckets.get(client)
        if known is not None:
            self._buckets[client] = (known[0] + 1, known[1])

    async def take(self, client: str) -> None:
        self.spend(client)


class LocalRoster:
    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._places: dict[str, dict[str, float]] = {}

    def enter(self, place: str, who: str, for_s: float) -> None:
        if place not in self._places and len(self._places) >= PLACES_MAX_COUNT:
            self._sweep()
        there = self._places.setdefault(place, {})
        if who in there or len(there) < PRESENT_MAX_COUNT or self._leave_expired(place):
            there[who] = self._now() + for_s

    def leave(self, place: str, who: str) -> None:
        there = self._places.get(place, {})
        there.pop(who, None)
        if not there:
            self._places.pop(place, None)

    async def present(self, place: str) -> list[str]:
        return self.known(place)

    def known(self, place: str) -> list[str]:
        now = self._now()
        return [who for who, until in self._places.get(place, {}).items() if until > now]

    def _leave_expired(self, place: str) -> int:
        """How many left."""
        now, there = self._now(), self._places[place]
        gone = [who for who, until in there.items() if until <= now]
        for who in gone:
            del there[who]
        return len(gone)

    def _sweep(self) -> None:
        """Forget places where nobody is; where that makes no room, forget all: they are entered again soon."""
        for place in list(self._places):
            self._leave_expired(place)
            if not self._places[place]:
                del self._places[place]
        if len(self._places) >= PLACES_MAX_COUNT:
            self._places.clear()


class NoOthers:
    """The notices of the only gateway: there is nobody to tell."""

    def tell(self, topic: str, notice: bytes) -> None:
        pass

    def follow(self, topic: str, hear: Hear) -> None:
        pass

    def unfollow(self, topic: str) -> None:
        pass


class InProcess:
    def __init__(self, per_minute: int) -> None:
        self.buckets = LocalBuckets(per_minute)
        self.roster = LocalRoster()
        self.notices = NoOthers()

    def health(self) -> Health:
        return Health("in process", up=True)

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass
