"""Rate limits over all gateways: one bucket for each client in Redis, spent by small leases.

A gateway takes several tokens at once for a client that asks often, so a busy client does not cost a round trip
for each request; near the limit a lease holds no more than is asked for, so the limit itself is exact. Before that every
request takes a token of this gateway's own bucket, which alone decides while Redis is away.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any

from hub.errors import RateLimited
from hub.shared import WAIT_MAX_S
from hub.shared.process import CLIENTS_MAX_COUNT, LocalBuckets
from hub.shared.redis.lane import Lane

LEASE_S = 2.0
LEASES_A_MINUTE = 50
"""A lease holds at most this fraction of what a client may ask in a minute."""

# Time is the server's own, so gateways need no common clock; should it jump, a bucket gains at most one burst.
TAKE = """
local rate, burst, needed, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(known[1] or burst), tonumber(known[2] or now)
tokens = math.min(burst, tokens + math.max(0, now - at) * rate)
local granted, wait_ms = 0, 0
if tokens < 1 then
  wait_ms = math.ceil((1 - tokens) / rate)
else
  granted = math.min(math.floor(tokens), math.max(needed, math.min(wanted, math.floor(tokens / 4))))
  tokens = tokens - granted
end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - tokens) / rate) + 1000)
return {granted, wait_ms}
"""


class Lease:
    """Tokens this gateway may spend for a client, or how long the client has to wait for the next."""

    __slots__ = ("asking", "refused_until", "size", "tokens", "until", "waiting")

    def __init__(self) -> None:
        self.tokens = 0
        self.size = 0
        self.waiting = 0
        self.until = 0.0
        self.refused_until = 0.0
        self.asking: asyncio.Future[Any] | None = None

    def next_size(self, now: float, most: int) -> int:
        """Double for a client that came back while its last lease held."""
        self.size = max(1, min(self.size * 2, most)) if now < self.until else 1
        return self.size


class RedisBuckets:
    def __init__(self, lane: Lane, prefix: str, per_minute: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._lane = lane
        self._prefix = prefix
        self._per_minute = per_minute
        self._lease_max_tokens = max(1, per_minute // LEASES_A_MINUTE)
        self._now = now
        self._local = LocalBuckets(per_minute, now)
        self._leases: dict[str, Lease] = {}
        self.fallbacks = 0

    async def take(self, client: str) -> None:
        self._local.spend(client)
        lease = self._leases.get(client)
        if lease is None:
            if len(self._leases) >= CLIENTS_MAX_COUNT:
                self._leases.clear()
            lease = self._leases[client] = Lease()
        elif self._spend(client, lease):
            return
        await self._take_shared(client, lease)

    def _spend(self, client: str, lease: Lease) -> bool:
        """Raises RateLimited while the shared bucket is known to be empty."""
        now = self._now()
        if lease.tokens and now < lease.until:
            lease.tokens -= 1
            return True
        if now < lease.refused_until and self._lane.up:
            self._local.give_back(client)
            raise RateLimited(retry_after_s=lease.refused_until - now)
        return False

    async def _take_shared(self, client: str, lease: Lease) -> None:
        lease.waiting += 1
        try:
            if not await self._spend_shared(client, lease):
                self.fallbacks += 1
        finally:
            lease.waiting -= 1

    async def _spend_shared(self, client: str, lease: Lease) -> bool:
        """Whether the shared bucket had its say in time. Raises RateLimited where it said no."""
        loop = asyncio.get_running_loop()
        until = loop.time() + WAIT_MAX_S
        while self._lane.up and (left := until - loop.time()) > 0:
            asking = lease.asking = lease.asking or self._ask(client, lease)
            await asyncio.wait((asking,), timeout=left)
            if not asking.done():
                break
            if lease.asking is asking:
                self._settle(lease, asking.result())
            if self._spend(client, lease):
                return True
        return False

    def _ask(self, client: str, lease: Lease) -> asyncio.Future[Any]:
        wanted = lease.next_size(self._now(), self._lease_max_tokens)
        key = self._prefix + hashlib.blake2b(client.encode(), digest_size=16).hexdigest()
        rate = f"{self._per_minute / 60_000:.9f}"
        return self._lane.call("EVAL", TAKE, 1, key, rate, self._per_minute, lease.waiting, wanted)

    def _settle(self, lease: Lease, answer: list[int] | None) -> None:
        lease.asking = None
        if answer is None:
            return
        now = self._now()
        lease.tokens, wait_ms = answer
        lease.until = now + LEASE_S
        lease.refused_until = now + wait_ms / 1000
