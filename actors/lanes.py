"""Lanes: how commands reach shards, by natural batching. Ray-free; the router gives it the actual call.

One call in flight per shard; what arrives meanwhile goes into the next one, in order. So idle latency is one
call, batches grow with load, and commands of one stream never overtake each other, retries included.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from actors.calls import refusal
from hub.commands import Answer, Invocation, Refused
from hub.errors import Overloaded, Unavailable

log = logging.getLogger("hub.lanes")

QUEUE_MAX_COMMANDS = 20_000
CALL_MAX_COMMANDS = 2_000
CALL_TIMEOUT_S = 20.0
RETRY_FOR_S = 15.0
RETRY_EVERY_S = 0.05
_RETRIED_HERE = "unavailable"


class Waiting:
    """A command in a lane, and who waits for its answer."""

    __slots__ = ("answer", "give_up_at", "invocation")

    def __init__(self, invocation: Invocation, answer: asyncio.Future[Answer], give_up_at: float) -> None:
        self.invocation = invocation
        self.answer = answer
        self.give_up_at = give_up_at


class Lane:
    """The way to one shard."""

    def __init__(
        self,
        shard: str,
        call: Callable[[list[Invocation]], Awaitable[list[Answer]]],
        on_failure: Callable[[str], None],
    ) -> None:
        self.shard = shard
        self._call = call
        self._on_failure = on_failure
        self._queue: deque[Waiting] = deque()
        self._running: asyncio.Task[None] | None = None
        self._failing = False
        self.calls = 0

    def send(self, invocation: Invocation) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if len(self._queue) >= QUEUE_MAX_COMMANDS:
            future.set_result(refusal(Overloaded(retry_after_s=1)))
            return future
        self._queue.append(Waiting(invocation, future, loop.time() + RETRY_FOR_S))
        if self._running is None:
            self._running = loop.create_task(self._run())
        return future

    async def _run(self) -> None:
        # One turn of the loop first: what this tick brings shares the first call.
        await asyncio.sleep(0)
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), CALL_MAX_COMMANDS))]
            self.calls += 1
            again = await self._try(batch)
            if again:
                self._queue.extendleft(reversed(again))
                await asyncio.sleep(RETRY_EVERY_S)
        self._running = None

    async def _try(self, batch: list[Waiting]) -> list[Waiting]:
        """Deliver answers; return what is worth another try, in order."""
        answers: list[Answer]
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                answers = await self._call([waiting.invocation for waiting in batch])
            self._failing = False
        except (msgspec.MsgspecError, TypeError):
            log.exception("a batch for %s cannot be coded", self.shard)
            answers = [refusal(Unavailable()) for _ in batch]
        except Exception as error:
            if not self._failing:
                log.warning("%s does not answer: %s", self.shard, type(error).__name__)
            self._failing = True
            self._on_failure(self.shard)
            answers = [refusal(Unavailable(f"{self.shard} is restarting", retry_after_s=1)) for _ in batch]
        return [waiting for waiting, answer in zip(batch, answers, strict=True) if not self._settle(waiting, answer)]

    def _settle(self, waiting: Waiting, answer: Answer) -> bool:
        if (
            isinstance(answer, Refused)
            and answer.code == _RETRIED_HERE
            and asyncio.get_running_loop().time() < waiting.give_up_at
        ):
            return False
        if not waiting.answer.done():
            waiting.answer.set_result(answer)
        return True
