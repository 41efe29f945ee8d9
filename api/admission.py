"""Admission: what one gateway takes in from customers and programs, shared fairly between tenants.

Two bounds, both told at once with `Overloaded` and a time to come back:

* A tenant's own rate (`--tenant-messages-per-second`), where the operator has set one: nobody can use more than that,
  however much there is.
* Where this process cannot keep up (its event loop runs late), whoever has at least the average share of what came in
  lately is refused until it can. Refusing costs a tenth of taking, so the hub goes on at its full rate instead of
  queueing what nobody will wait for. Tenants below the average notice nothing.

What agents do, and what providers report, is never refused here: it is little, and follows from what was let in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hub.errors import Overloaded

LAG_EVERY_S = 0.02
LAG_SMOOTHING = 0.1
LAG_MAX_S = 0.15
"""How late the event loop may run, smoothed over about ten samples, before anybody is refused."""
BURST_S = 1.0
SHARE_WINDOW_S = 0.5
TENANTS_MAX_COUNT = 50_000


class Admission:
    def __init__(self, *, tenant_per_s: int, now: Callable[[], float] = time.monotonic) -> None:
        """`tenant_per_s`: messages a second that one tenant may send through this gateway; 0 for no bound."""
        self._tenant_per_s = tenant_per_s
        self._now = now
        self._buckets: dict[str, tuple[float, float]] = {}
        self._counts: dict[str, int] = {}
        self._counted = 0
        self.lag_s = 0.0
        self.refused = 0

    def refusal(self, tenant: str) -> Overloaded | None:
        """Why one more message of this tenant is not taken now; None where it is, and counts."""
        refused = self.late(tenant) or self._over_its_rate(tenant)
        if refused is not None:
            self.refused += 1
            return refused
        self._counts[tenant] = self._counts.get(tenant, 0) + 1
        self._counted += 1
        return None

    def late(self, tenant: str) -> Overloaded | None:
        """Whether this process is so late that this tenant has to wait; nothing is counted."""
        if self.lag_s <= LAG_MAX_S:
            return None
        mine = self._counts.get(tenant, 0)
        # `>=` of the average: where only one tenant is there, the flood is its own.
        if mine * len(self._counts) >= self._counted:
            return Overloaded("this gateway cannot keep up; try again in a moment", retry_after_s=1)
        return None

    def _over_its_rate(self, tenant: str) -> Overloaded | None:
        per_s = self._tenant_per_s
        if not per_s:
            return None
        now, burst = self._now(), per_s * BURST_S
        tokens, since = self._buckets.get(tenant, (burst, now))
        tokens = min(burst, tokens + (now - since) * per_s)
        if tokens < 1:
            return Overloaded(f"more than {per_s} messages a second", retry_after_s=(1 - tokens) / per_s)
        if len(self._buckets) >= TENANTS_MAX_COUNT and tenant not in self._buckets:
            self._buckets.clear()  # everyone starts full again
        self._buckets[tenant] = (tokens - 1, now)
        return None

    async def run(self) -> None:
        """Measure how late the event loop runs, and forget old counts."""
        loop = asyncio.get_running_loop()
        forget_at = loop.time() + SHARE_WINDOW_S
        while True:
            began = loop.time()
            await asyncio.sleep(LAG_EVERY_S)
            self.note(loop.time() - began - LAG_EVERY_S)
            if loop.time() >= forget_at:
                self.forget()
                forget_at = loop.time() + SHARE_WINDOW_S

    def note(self, late_s: float) -> None:
        """The loop came `late_s` seconds late to its appointment."""
        self.lag_s += (max(late_s, 0.0) - self.lag_s) * LAG_SMOOTHING

    def forget(self) -> None:
        """Halve the counts, so that the shares are those of the last second or so."""
        self._counts = {tenant: count // 2 for tenant, count in self._counts.items() if count > 1}
        self._counted = sum(self._counts.values())
