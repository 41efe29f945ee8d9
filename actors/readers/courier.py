"""The courier: the reader that hands outbound messages to their providers.

Before every attempt it journals `delivery.started`; after a definite no, `delivery.deferred`. So whatever
crashes, the journal tells which messages may have gone out without our knowing: those become `uncertain`
where the provider could not recognise a second send. Messages of one conversation leave in their order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from actors.entry import Entry
from actors.partition import Partition
from actors.readers.catch_up import CatchUp
from channels.adapter import Outcome, Outgoing
from hub.commands import Answer, BeginDelivery, Command, DeferDelivery, Invocation, RecordReceipt, Refused
from hub.errors import BY_CODE, HubError
from hub.events import DeliveryDeferred, DeliveryStarted, MessageQueued, MessageStatusChanged
from hub.ids import message_id
from hub.model import MessageError
from hub.ports import Checkpoint, Store

log = logging.getLogger("hub.courier")

READER = "courier"
IN_FLIGHT_MAX_SENDS = 64
ATTEMPTS_MAX_COUNT = 8
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0
JOURNAL_RETRY_S = 0.2
CHECKPOINT_EVERY_S = 2.0
FINISH_TIMEOUT_S = 5.0
CATCH_UP_CHUNK_EVENTS = 2_000


class Traits(msgspec.Struct, frozen=True):
    """`local`: leaves through our own sockets. `idempotent`: the provider recognises a second send."""

    local: bool
    idempotent: bool


class Sender(Protocol):
    def traits(self, kind: str) -> Traits: ...

    async def send(self, channel: str, kind: str, outgoing: Outgoing) -> Outcome:
        """Never raises but when cancelled."""
        ...


class Job(msgspec.Struct):
    partition: int
    offset: int
    tenant: str
    stream: str
    conversation: str
    seq: int
    channel: str
    kind: str
    address: str
    text: str
    attempt: int = 0
    open: bool = False
    """An attempt was begun and nobody wrote down how it ended."""


class Courier:
    def __init__(self, *, store: Store, sender: Sender, ask: Callable[[Invocation], Awaitable[Answer]]) -> None:
        self._store = store
        self._sender = sender
        self._ask = ask
        self._jobs: dict[int, dict[tuple[str, int], Job]] = {}
        self._queues: dict[str, deque[Job]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX_SENDS)
        self._sending: dict[str, Job] = {}
        """What is at a provider now, by conversation."""
        self._ended = asyncio.Event()
        self._finishing: set[int] = set()
        """Partitions that are being given up."""
        self._seen: dict[int, int] = {}
        self._saved: dict[int, int] = {}
        self._partitions: dict[int, Partition] = {}
        self.sent = 0
        self.failed = 0

    # --- following the journal ------------------------------------------------------------------------------------

    async def open(self, partition: Partition) -> None:
        """Find out from the journal what was still in hand."""
        number = partition.number
        jobs: dict[tuple[str, int], Job] = {}
        after = (await self._store.checkpoints.load(READER, number)).offset
        self._saved[number] = after
        progress = CatchUp(log, "outbound messages are looked through", number, after, partition.durable)
        while after < partition.durable:
            upto = min(after + CATCH_UP_CHUNK_EVENTS, partition.durable)
            for entry in await partition.replay(after, upto, rendered=False):
                _follow(jobs, entry)
            after = upto
            progress.reached(after)
        self._jobs[number], self._seen[number] = jobs, after
        self._partitions[number] = partition

    def start(self, partition: Partition) -> None:
        """Take up the work again; the partition takes commands by now."""
        for job in list(self._jobs[partition.number].values()):
            self._queue(job)

    async def finish(self, partition: Partition) -> None:
        """Begin no more sends of this partition, and return once those under way have ended and are written down.

        Its next owner takes up the rest. One that lasts too long is left behind, and will be told as uncertain.
        """
        if self._partitions.get(partition.number) is not partition:
            return  # it was lost meanwhile, and may even be open anew
        self._finishing.add(partition.number)
        try:
            async with asyncio.timeout(FINISH_TIMEOUT_S):
                while any(job.partition == partition.number for job in self._sending.values()):
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            log.warning("partition %d is given up with a send under way", partition.number)

    def close(self, partition: Partition) -> None:
        self._finishing.discard(partition.number)
        self._partitions.pop(partition.number, None)
        for job in self._jobs.pop(partition.number, {}).values():
            self._queues.pop(job.conversation, None)
            worker = self._workers.pop(job.conversation, None)
            if worker is not None:
                worker.cancel()

    def note(self, partition: Partition, entries: list[Entry]) -> None:
        jobs = self._jobs.get(partition.number)
        if jobs is None:
            return
        for entry in entries:
            if isinstance(entry.event, MessageQueued):
                _follow(jobs, entry)
                self._queue(jobs[entry.event.conversation, entry.event.seq])
        self._seen[partition.number] = entries[-1].offset

    async def run(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_EVERY_S)
            await self.save_checkpoints()

    async def save_checkpoints(self) -> None:
        for number, partition in list(self._partitions.items()):
            jobs = self._jobs.get(number, {})
            offset = min((job.offset - 1 for job in jobs.values()), default=self._seen.get(number, 0))
            if offset <= self._saved.get(number, 0):
                continue
            try:
                await self._store.checkpoints.save(READER, number, partition.epoch, Checkpoint(offset))
                self._saved[number] = offset
            except HubError as error:
                log.warning("the courier's checkpoint of partition %d was not saved: %s", number, error)

    # --- delivering -----------------------------------------------------------------------------------------------

    def _queue(self, job: Job) -> None:
        queue = self._queues.get(job.conversation)
        if queue is None:
            queue = self._queues[job.conversation] = deque()
            worker = asyncio.get_running_loop().create_task(self._work(job.conversation, queue))
            self._workers[job.conversation] = worker
        queue.append(job)

    async def _work(self, conversation: str, queue: deque[Job]) -> None:
        while queue and queue[0].partition not in self._finishing:
            job = queue[0]
            try:
                async with self._slots:
                    if job.partition in self._finishing:
                        break
                    self._sending[conversation] = job
                    delay_s = await self._deliver(job)
            except Exception:
                log.exception("delivering to %s failed", conversation)
                delay_s = BACKOFF_MAX_S
            finally:
                self._sending.pop(conversation, None)
                self._ended.set()
            if delay_s is not None:
                await asyncio.sleep(delay_s)
                continue
            queue.popleft()
            self._jobs.get(job.partition, {}).pop((job.conversation, job.seq), None)
        self._queues.pop(conversation, None)
        self._workers.pop(conversation, None)

    async def _deliver(self, job: Job) -> float | None:
        """One attempt. Returns seconds to wait before the next, or None where the story is over for us."""
        traits = self._sender.traits(job.kind)
        if traits.local:
            await self._settle(job, Outcome("sent"))
            return None
        if job.open and not traits.idempotent:
            job.open = False
            await self._settle(job, Outcome("unknown"))
            return None
        job.attempt += 1
        begin = BeginDelivery(conversation=job.conversation, seq=job.seq, attempt=job.attempt)
        if not await self._journal(job, begin):
            return None
        job.open = True
        outgoing = Outgoing(message_id(job.conversation, job.seq), job.address, job.text, job.attempt)
        outcome = await self._sender.send(job.channel, job.kind, outgoing)
        if outcome.kind == "unknown" and traits.idempotent:
            outcome = msgspec.structs.replace(outcome, kind="retry")
        if outcome.kind == "retry" and job.attempt < ATTEMPTS_MAX_COUNT:
            defer = DeferDelivery(
                conversation=job.conversation, seq=job.seq, attempt=job.attempt, code=outcome.code or "retry"
            )
            await self._journal(job, defer)
            job.open = False
            return outcome.retry_after_s or min(BACKOFF_FIRST_S * 2 ** (job.attempt - 1), BACKOFF_MAX_S)
        await self._settle(job, outcome)
        return None

    async def _settle(self, job: Job, outcome: Outcome) -> None:
        status = {"sent": "sent", "unknown": "uncertain"}.get(outcome.kind, "failed")
        error = None
        if status == "uncertain":
            error = MessageError(
                "outcome_unknown", "the provider may or may not have taken it; ask before sending again"
            )
        elif status == "failed":
            error = MessageError(outcome.code or "failed", outcome.detail or "the provider did not take it")
        receipt = RecordReceipt(
            channel=job.channel,
            status=status,  # type: ignore[arg-type]
            message=message_id(job.conversation, job.seq),
            external_id=outcome.external_id,
            error=error,
        )
        await self._journal(job, receipt)
        if status == "sent":
            self.sent += 1
        else:
            self.failed += 1

    async def _journal(self, job: Job, command: Command) -> bool:
        """Write it down, however long the store takes. False where the actor does not want it any more."""
        while True:
            answer = await self._ask(Invocation(job.tenant, job.stream, command))  # type: ignore[arg-type]
            if not isinstance(answer, Refused):
                return True
            if not BY_CODE.get(answer.code, HubError).retryable:
                return False
            await asyncio.sleep(max(answer.retry_after_s, JOURNAL_RETRY_S))


def _follow(jobs: dict[tuple[str, int], Job], entry: Entry) -> None:
    event = entry.event
    if isinstance(event, MessageQueued):
        content = event.content
        if content is None:
            return  # erased: there is nothing left to send
        jobs[event.conversation, event.seq] = Job(
            entry.partition,
            entry.offset,
            entry.tenant,
            entry.stream,
            event.conversation,
            event.seq,
            event.channel,
            event.channel_kind,
            content.address or "",
            content.text,
        )
    elif isinstance(event, DeliveryStarted | DeliveryDeferred):
        job = jobs.get((event.conversation, event.seq))
        if job is not None:
            job.attempt, job.open = event.attempt, isinstance(event, DeliveryStarted)
    elif isinstance(event, MessageStatusChanged):
        jobs.pop((event.conversation, event.seq), None)
