"""The home in Redis, put together, and how it fares."""

from __future__ import annotations

import asyncio
import logging

from hub.shared import Health
from hub.shared.redis.buckets import RedisBuckets
from hub.shared.redis.lane import Lane
from hub.shared.redis.notices import RedisNotices
from hub.shared.redis.roster import RedisRoster

log = logging.getLogger("hub.shared")

START_TIMEOUT_S = 1.0


class InRedis:
    def __init__(self, url: str, *, installation: str, per_minute: int) -> None:
        prefix = f"hub:{installation}:"
        self._lane = Lane(url, f"{prefix}probe")
        self.buckets = RedisBuckets(self._lane, f"{prefix}limit:", per_minute)
        self.roster = RedisRoster(self._lane, f"{prefix}present:")
        self.notices = RedisNotices(self._lane, url, f"{prefix}notice:")

    def health(self) -> Health:
        listening = self.notices.listening.is_set()
        up = self._lane.up and listening
        if not self._lane.up:
            state = f"degraded: redis does not answer since {self._lane.away_since}"
        else:
            state = "ok" if listening else "degraded: redis answers, but notices are not heard yet"
        errors = self._lane.errors + self.notices.errors
        return Health(state, up, errors, self.buckets.fallbacks + self.roster.fallbacks)

    async def start(self) -> None:
        self._lane.start()
        self.notices.start()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._lane.answered.wait()
                await self.notices.listening.wait()
        except TimeoutError:
            log.warning("redis does not answer yet: this gateway goes by what it knows itself")

    async def close(self) -> None:
        await self.notices.close()
        await self._lane.close()
