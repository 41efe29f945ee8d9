"""The processes of a hub: shards around real `Host` objects, who owns what, and how callers reach them.

It does what `actors/shard.py`, `lanes.py` and the supervisor do around a host, with calls that take time, get
lost with their process, and may be answered after their caller has given up.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from actors.host import Host
from actors.readers.courier import Sender
from hub.commands import Answer, Done, Invocation, Refused
from hub.errors import BY_CODE, HubError, Unavailable
from hub.ids import stream_partition
from hub.sealing import Keyring
from tests.simulation.faults import FaultyStore
from tests.simulation.history import History
from tests.simulation.loop import PROCESS, Process, ProcessDied, VirtualClock, VirtualLoop, run_now

T = TypeVar("T")
CALL_TIMEOUT_S = 20.0
REOPEN_AFTER_S = 0.2
KEYRING = Keyring(b"the secret of a simulated installation")


class Shard:
    """One name; its process and host change with every restart."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.incarnation = 0
        self.process: Process | None = None
        self.host: Host | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and not self.process.dead


class Cluster:
    def __init__(
        self, *, shards: int, store: FaultyStore, loop: VirtualLoop, rng: Random, history: History, sender: Sender
    ) -> None:
        self.store = store
        self.loop = loop
        self.shards = [Shard(f"shard-{n}") for n in range(shards)]
        self.owners = [self.shards[p % shards] for p in range(store.partitions)]
        self._rng = rng
        self._history = history
        self._sender = sender
        self._clock = VirtualClock(loop)
        self._processes: list[Process] = []
        self._root = contextvars.copy_context()
        self.asking = 0

    # --- processes ------------------------------------------------------------------------------------------------

    def start(self, shard: Shard) -> None:
        assert not shard.alive
        shard.incarnation += 1
        shard.process = process = Process(f"{shard.name}.{shard.incarnation}", self.loop)
        self._processes.append(process)
        shard.host = process.context.run(self._host, shard, process)
        process.spawn(self._boot(shard, shard.host))
        self._history.trouble(f"{process.name} starts")

    def _host(self, shard: Shard, process: Process) -> Host:
        return Host(
            name=shard.name,
            incarnation=shard.incarnation,
            store=self.store,  # type: ignore[arg-type]  # only what the runtime uses
            keyring=KEYRING,
            clock=self._clock,
            sender=self._sender,
            on_lost=lambda partition: self._on_lost(shard, process, partition),
        )

    async def _boot(self, shard: Shard, host: Host) -> None:
        host.start()
        await host.open([p for p, owner in enumerate(self.owners) if owner is shard])

    def _on_lost(self, shard: Shard, process: Process, partition: int) -> None:
        self._history.trouble(f"{process.name} lost partition {partition}")
        process.spawn(self._reopen_if_its(shard, partition))

    async def _reopen_if_its(self, shard: Shard, partition: int) -> None:
        await asyncio.sleep(REOPEN_AFTER_S)
        host = shard.host
        if host is not None and self.owners[partition] is shard and partition not in host.partitions:
            await host.open([partition])
            self._history.trouble(f"{shard.name} has partition {partition} again")

    def kill(self, shard: Shard) -> None:
        if shard.process is not None and shard.alive:
            self._history.trouble(f"{shard.process.name} is killed")
            shard.process.kill()

    def bury(self) -> None:
        for process in self._processes:
            process.bury()

    async def move(self, partition: int, to: Shard, *, release: bool) -> None:
        """Hand a partition over, or take it while its owner does not even know."""
        before, self.owners[partition] = self.owners[partition], to
        self._history.trouble(f"partition {partition} moves from {before.name} to {to.name}, release={release}")
        if release and before is not to and before.alive and before.host is not None:
            host = before.host
            try:
                await self.call(before, lambda: host.release([partition]))
            except (HubError, TimeoutError, ProcessDied):
                self._history.trouble("release failed")
        if to.alive and to.host is not None and self.owners[partition] is to:
            host = to.host
            try:
                await self.call(to, lambda: host.open([partition]))
            except (TimeoutError, ProcessDied):
                pass
        self._history.trouble(f"partition {partition} has moved")

    # --- calls ----------------------------------------------------------------------------------------------------

    async def call(self, shard: Shard, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Raises ProcessDied or TimeoutError where nobody knows what became of it."""
        await asyncio.sleep(self._rng.uniform(0.0002, 0.003))
        if shard.process is None:
            raise ProcessDied(shard.name)
        async with asyncio.timeout(CALL_TIMEOUT_S):
            outcome = await shard.process.call(work)
            await asyncio.sleep(self._rng.uniform(0.0002, 0.003))
        return outcome

    async def submit(self, invocations: list[Invocation]) -> list[Answer] | None:
        """Answers of one call to one shard, or None where it got none."""
        shard = self.owners[stream_partition(invocations[0].stream, self.store.partitions)]
        host = shard.host
        if host is None:
            return None
        try:
            answers = await self.call(shard, lambda: host.submit(invocations))
        except (ProcessDied, TimeoutError):
            return None
        for invocation, answer in zip(invocations, answers, strict=True):
            journal, number = self.store.inner.journal, stream_partition(invocation.stream, self.store.partitions)
            partition = host.partitions.get(number)
            owned = partition is not None and partition.epoch == journal.epoch(number)
            self._history.tell(invocation, answer, run_now(journal.head(number)), owned=owned)
        return answers

    async def insist(self, invocation: Invocation, *, patience: int = 10_000) -> Answer:
        """Ask until there is an answer that is worth keeping, as every good client does."""
        self.asking += 1
        try:
            pause_s = 0.05
            for _ in range(patience):
                answers = await self.submit([invocation])
                if answers is not None and not retryable(answers[0]):
                    return answers[0]
                await asyncio.sleep(self._rng.uniform(0.5, 1.5) * pause_s)
                pause_s = min(pause_s * 2, 1.0)
            return Refused(Unavailable.code, "the client gave up")
        finally:
            self.asking -= 1

    def outside(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start something that no shard's death can stop, whoever asks for it."""
        assert self._root.get(PROCESS) is None
        return self.loop.create_task(coroutine, context=self._root.copy())


def retryable(answer: Answer) -> bool:
    return not isinstance(answer, Done) and BY_CODE.get(answer.code, HubError).retryable
