"""Milestones: who waits for a growing number to get somewhere, such as the serial of the newest settled batch."""

from __future__ import annotations

import asyncio


class Milestones:
    def __init__(self) -> None:
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    async def wait(self, for_: int) -> None:
        """Return once `reach` has been told `for_` or more, from now on."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((for_, waiter))
        await waiter

    def reach(self, number: int) -> None:
        for wanted, waiter in self._waiting:
            if wanted <= number and not waiter.done():
                waiter.set_result(None)
        self._waiting = [(wanted, waiter) for wanted, waiter in self._waiting if wanted > number]
