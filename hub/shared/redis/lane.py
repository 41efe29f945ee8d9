"""The lane to Redis: one call in flight, and what arrives meanwhile goes into the next one.

So a busy gateway pays for a round trip once for many commands, no caller ever holds a connection, and one place
knows whether Redis answers. While it does not, commands are turned away at once, and a probe asks again twice a
second. The probe is a write: a server that is full or read-only would answer a ping.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from hub.clock import rfc3339
from hub.shared import WAIT_MAX_S

log = logging.getLogger("hub.shared")

QUEUE_MAX_COMMANDS = 10_000
BATCH_MAX_COMMANDS = 500
CALL_TIMEOUT_S = 0.5
PROBE_EVERY_S = 0.5
CANCEL_AGAIN_EVERY_S = 0.05
CONNECTIONS_MAX_COUNT = 4

Argument = str | bytes | int | float
_Waiting = tuple[tuple[Argument, ...], "asyncio.Future[Any] | None"]


def connect(url: str) -> Redis:
    """A client that fails soon and never retries by itself. Raises ValueError where the URL cannot be read."""
    return Redis.from_url(
        url,
        socket_connect_timeout=CALL_TIMEOUT_S,
        socket_timeout=CALL_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        max_connections=CONNECTIONS_MAX_COUNT,
        protocol=2,
    )


async def end(task: asyncio.Task[None]) -> None:
    """Cancel until it is over: the client library takes a cancellation for itself when it comes as it connects."""
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=CANCEL_AGAIN_EVERY_S)
    if not task.cancelled():
        task.exception()


class Lane:
    def __init__(self, url: str, probe_key: str) -> None:
        self._client = connect(url)
        self._probe_key = probe_key
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._slow = False
        self._failing = True
        self._away_since_ms = time.time_ns() // 1_000_000
        self._task: asyncio.Task[None] | None = None
        self.answered = asyncio.Event()
        self.errors = 0

    @property
    def up(self) -> bool:
        """Whether it is worth waiting for an answer."""
        return not (self._failing or self._slow)

    @property
    def away_since(self) -> str:
        return rfc3339(self._away_since_ms)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task)
        self._turn_away(list(self._queue))
        self._queue.clear()
        await self._client.aclose()

    # --- what callers do ------------------------------------------------------------------------------------------

    def tell(self, *command: Argument) -> None:
        """Send without an answer. Lost where Redis is away; the oldest is lost where too many wait."""
        if not self._failing:
            self._put(command, None)

    def call(self, *command: Argument) -> asyncio.Future[Any]:
        """The answer, or None where there is none."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._failing:
            future.set_result(None)
        else:
            self._put(command, future)
        return future

    def _put(self, command: tuple[Argument, ...], future: asyncio.Future[Any] | None) -> None:
        if len(self._queue) >= QUEUE_MAX_COMMANDS:
            self._turn_away([self._queue.popleft()])
            self.errors += 1
        self._queue.append((command, future))
        self._wake.set()

    # --- the lane -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._probe()
            while not self._failing:
                await self._rest()
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_MAX_COMMANDS))]
                await self._send(batch or [(self._probe_command(), None)])

    async def _rest(self) -> None:
        """Until there is something to send, or it is time to see whether Redis is still there."""
        if not self._queue and not self._slow:
            self._wake.clear()
            try:
                async with asyncio.timeout(PROBE_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _probe(self) -> None:
        while self._failing:
            began = asyncio.get_running_loop().time()
            await self._send([(self._probe_command(), None)])
            if self._failing:
                await asyncio.sleep(max(0.0, began + PROBE_EVERY_S - asyncio.get_running_loop().time()))

    def _probe_command(self) -> tuple[Argument, ...]:
        return ("SET", self._probe_key, "1", "PX", 10_000)

    async def _send(self, batch: list[_Waiting]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for command, _ in batch:
            pipe.execute_command(*command)
        overdue = asyncio.get_running_loop().call_later(WAIT_MAX_S, self._is_slow)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                answers = await pipe.execute(raise_on_error=False)
        except Exception as error:  # whatever a broken connection makes the client library raise: the lane outlives it
            await self._failed(error, batch)
            return
        finally:
            overdue.cancel()
        refused = [answer for answer in answers if isinstance(answer, RedisError)]
        if refused:
            await self._failed(refused[0], batch)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if future is not None and not future.done():
                future.set_result(answer)
        self._came_back()

    def _is_slow(self) -> None:
        """Nobody waits for Redis until it answers again; what waits already goes on without it in the same moment."""
        if self.up:
            self._away_since_ms = time.time_ns() // 1_000_000
        self._slow = True

    async def _failed(self, error: BaseException, batch: list[_Waiting]) -> None:
        self.errors += 1
        if self.up:
            self._away_since_ms = time.time_ns() // 1_000_000
        if not self._failing:
            log.warning("redis does not answer (%s): this gateway goes by what it knows itself", type(error).__name__)
        self._failing = True
        self._turn_away([*batch, *self._queue])
        self._queue.clear()
        with contextlib.suppress(Exception):
            await self._client.connection_pool.disconnect(inuse_connections=True)

    def _turn_away(self, waiting: list[_Waiting]) -> None:
        for _, future in waiting:
            if future is not None and not future.done():
                future.set_result(None)

    def _came_back(self) -> None:
        if self._failing and self.errors:
            log.warning("redis answers again")
        self._failing = self._slow = False
        self.answered.set()
