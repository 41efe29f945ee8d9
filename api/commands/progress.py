"""How far a long command has come, on standard error: a line that is written over on a terminal, else one every few seconds."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable

from hub.archive.blocks import Block, Events, Header

TERMINAL_EVERY_S = 0.2
LOG_EVERY_S = 5.0
MB = 1_000_000


class Progress:
    def __init__(
        self, what: str, *, mb_per_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._bytes_per_s = mb_per_s * MB if mb_per_s else None
        self._clock = clock
        self._began = self._told = clock()
        self._terminal = sys.stderr.isatty()
        self.total = 0
        self.events = 0
        self.bytes = 0

    async def watch(self, blocks: AsyncIterator[Block]) -> AsyncIterator[Block]:
        """Pass the blocks on, no faster than we may."""
        async for block in blocks:
            yield block
            if isinstance(block, Header):
                self.total += block.events
            elif isinstance(block, Events):
                self.events += len(block.records)
                self.bytes += sum(len(record.body) for record in block.records)
                self._tell()
                await self._keep_pace()

    async def _keep_pace(self) -> None:
        if self._bytes_per_s is not None:
            ahead_s = self.bytes / self._bytes_per_s - (self._clock() - self._began)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)

    def _tell(self) -> None:
        now = self._clock()
        if now - self._told < (TERMINAL_EVERY_S if self._terminal else LOG_EVERY_S):
            return
        self._told = now
        line = f"{self._what}: {self.events:,} of {self.total:,} events, {self.bytes / MB:,.1f} MB{self._left(now)}"
        print(
            f"\r\x1b[K{line}" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def _left(self, now: float) -> str:
        left_s = (now - self._began) / max(self.events, 1) * (self.total - self.events)
        return f", {left_s:.0f} s left"

    def finish(self) -> float:
        """End the line. Returns the seconds it took."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        return self._clock() - self._began
