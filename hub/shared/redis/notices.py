"""Notices between gateways: published through the lane, heard on a connection of their own.

A notice is told once or not at all: whoever follows must be right without it, only later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import Any

from hub.shared import Hear
from hub.shared.redis.lane import CALL_TIMEOUT_S, Lane, connect, end

log = logging.getLogger("hub.shared")

QUIET_PING_S = 1.0
QUIET_MAX_PINGS = 3
RECONNECT_EVERY_S = 0.3
ORIGIN_BYTES = 8


class RedisNotices:
    def __init__(self, lane: Lane, url: str, prefix: str) -> None:
        self._lane = lane
        self._client = connect(url)
        self._prefix = prefix
        self._origin = os.urandom(ORIGIN_BYTES)
        self._hear: dict[str, Hear] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.listening = asyncio.Event()
        self.errors = 0

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task)
        await self._client.aclose()

    def tell(self, topic: str, notice: bytes) -> None:
        self._lane.tell("PUBLISH", self._prefix + topic, self._origin + notice)

    def follow(self, topic: str, hear: Hear) -> None:
        self._hear[self._prefix + topic] = hear
        self._changed.set()

    def unfollow(self, topic: str) -> None:
        self._hear.pop(self._prefix + topic, None)
        self._changed.set()

    # --- listening ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            pubsub: Any = self._client.pubsub()
            following = asyncio.get_running_loop().create_task(self._follow(pubsub))
            try:
                await self._listen(pubsub, following)
            except Exception as error:  # whatever a broken connection makes the client library raise: connect anew
                self.errors += 1
                log.info("notices are not heard (%s): connecting again", type(error).__name__)
            finally:
                self.listening.clear()
                await end(following)
                with contextlib.suppress(Exception):
                    await pubsub.aclose()
                    await self._client.connection_pool.disconnect(inuse_connections=True)
            await asyncio.sleep(RECONNECT_EVERY_S)

    async def _follow(self, pubsub: Any) -> None:
        """Keep the connection's subscriptions what the followers want."""
        current: set[str] = set()
        while True:
            self._changed.clear()
            wanted = {self._prefix, *self._hear}
            async with asyncio.timeout(CALL_TIMEOUT_S):
                if wanted - current:
                    await pubsub.subscribe(*(wanted - current))
                if current - wanted:
                    await pubsub.unsubscribe(*(current - wanted))
            current = wanted
            await self._changed.wait()

    async def _listen(self, pubsub: Any, following: asyncio.Task[None]) -> None:
        """Raises once the connection is of no use."""
        quiet = 0
        while quiet <= QUIET_MAX_PINGS:
            if following.done():
                await following
            if not pubsub.subscribed:
                await asyncio.sleep(0.01)
                continue
            message = await pubsub.get_message(timeout=QUIET_PING_S)
            if message is None:
                quiet += 1
                await pubsub.ping()
                continue
            quiet = 0
            self._heard(message)
        raise TimeoutError

    def _heard(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self.listening.set()
        if message["type"] != "message" or message["data"].startswith(self._origin):
            return
        hear = self._hear.get(message["channel"].decode())
        if hear is None:
            return
        try:
            hear(message["data"][ORIGIN_BYTES:])
        except Exception:
            log.exception("a notice could not be taken: is another gateway of another version?")
