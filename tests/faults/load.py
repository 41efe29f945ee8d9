"""The load: a steady crowd of writers, agents that follow, a provider. One object to start, stop and ask."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.words import MARK
from tests.faults.followers import Follower
from tests.faults.provider import Provider
from tests.faults.record import Record
from tests.faults.writers import ApiWriter, ChatWriter, ReplyWriter, WebhookWriter, Writer

CHAT_WRITERS = 40
API_WRITERS = 10
WEBHOOK_WRITERS = 10
REPLY_WRITERS = 6
PAUSE_S = 0.2
WARM_ACKS = 3
WARM_TIMEOUT_S = 30.0
FINISH_TIMEOUT_S = 60.0
TENANTS = ("demo", "demo2")


class Load:
    """Two tenants, so that more than one partition has work. About 300 messages a second."""

    def __init__(self, urls: list[str], *, patience_s: float) -> None:
        self.run = f"{time.time_ns() // 1000 % 36**8:x}"
        self.mark = f"{MARK}{self.run}:"
        self.record = Record()
        parts: dict[str, Any] = {"run": self.run, "urls": urls, "record": self.record}
        parts |= {"patience_s": patience_s, "pause_s": PAUSE_S}
        self.writers: list[Writer] = []
        for kind, count in ((ApiWriter, API_WRITERS), (WebhookWriter, WEBHOOK_WRITERS), (ReplyWriter, REPLY_WRITERS)):
            self.writers += [kind(len(self.writers) + n, **parts) for n in range(count)]
        for n in range(CHAT_WRITERS):
            self.writers.append(ChatWriter(len(self.writers), tenant=TENANTS[n % len(TENANTS)], **parts))
        self.followers = [
            Follower(f"{tenant}/{n}", key=f"{tenant}-key", mark=self.mark, urls=urls)
            for tenant in TENANTS
            for n in range(2)
        ]
        self.provider = Provider(self.mark, urls)
        self._stop = asyncio.Event()
        self._writing: list[asyncio.Task[None]] = []
        self._following: list[asyncio.Task[None]] = []

    def of_tenant(self, tenant: str) -> list[Writer]:
        """The writers whose messages that tenant's agents see."""
        return [writer for writer in self.writers if writer.tenant == tenant]

    async def start(self) -> None:
        """Returns once every writer has been acknowledged a few times and every agent follows."""
        loop = asyncio.get_running_loop()
        self._following = [loop.create_task(follower.follow()) for follower in self.followers]
        async with asyncio.timeout(WARM_TIMEOUT_S):
            await asyncio.gather(*(follower.following.wait() for follower in self.followers))
            self._writing = [loop.create_task(writer.write(self._stop)) for writer in self.writers]
            while min(writer.acked for writer in self.writers) < WARM_ACKS:
                await asyncio.sleep(0.05)

    async def finish(self) -> int:
        """Nobody begins anything new. Returns how many writers could not get their last message acknowledged."""
        self._stop.set()
        _, late = await asyncio.wait(self._writing, timeout=FINISH_TIMEOUT_S)
        for task in late:
            task.cancel()
        return len(late)

    async def close(self) -> None:
        tasks = [*self._following, *self._writing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.provider.close()
