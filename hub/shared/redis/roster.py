"""Who is where, over all gateways: a sorted set for each place, scored by when each one's time is up."""

from __future__ import annotations

import asyncio

from hub.shared import PRESENT_MAX_COUNT, WAIT_MAX_S
from hub.shared.process import LocalRoster
from hub.shared.redis.lane import Lane

# Times are the server's own. A place outlives the last one there by nothing.
ENTER = """
local t = redis.call('TIME')
local until_ms = t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], until_ms, ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
"""
PRESENT = """
local t = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', t[1] * 1000 + math.floor(t[2] / 1000))
return redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1)
"""


class RedisRoster:
    def __init__(self, lane: Lane, prefix: str) -> None:
        self._lane = lane
        self._prefix = prefix
        self._local = LocalRoster()
        self.fallbacks = 0

    def enter(self, place: str, who: str, for_s: float) -> None:
        self._local.enter(place, who, for_s)
        self._lane.tell("EVAL", ENTER, 1, self._prefix + place, who, round(for_s * 1000))

    def leave(self, place: str, who: str) -> None:
        self._local.leave(place, who)
        self._lane.tell("ZREM", self._prefix + place, who)

    async def present(self, place: str) -> list[str]:
        """Those of this gateway alone while Redis is away."""
        if self._lane.up:
            answer = self._lane.call("EVAL", PRESENT, 1, self._prefix + place, PRESENT_MAX_COUNT)
            await asyncio.wait((answer,), timeout=WAIT_MAX_S)
            if answer.done() and answer.result() is not None:
                return [who.decode() for who in answer.result()]
        self.fallbacks += 1
        return self._local.known(place)
