"""A reader that has much to catch up with says every few seconds how far it has come."""

from __future__ import annotations

import asyncio
import logging

TELL_EVERY_S = 5.0


class CatchUp:
    def __init__(self, log: logging.Logger, what: str, partition: int, after: int, upto: int) -> None:
        self._log = log
        self._what = what
        self._partition = partition
        self._after = after
        self._upto = upto
        self._loop = asyncio.get_running_loop()
        self._began = self._told = self._loop.time()

    def reached(self, offset: int) -> None:
        now = self._loop.time()
        if now - self._told < TELL_EVERY_S:
            return
        self._told = now
        rate = (offset - self._after) / (now - self._began)
        left_s = (self._upto - offset) / rate if rate else 0
        self._log.info(
            "partition %d: %s up to event %d of %d, %.0f events/s, %.0f s left",
            self._partition, self._what, offset, self._upto, rate, left_s,
        )  # fmt: skip
