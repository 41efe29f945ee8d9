"""The host: a shard without Ray. Owns partitions, their activations, the committer, timers and readers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from actors.calls import Call, Ticket
from actors.commit import Committer
from actors.entry import Entry
from actors.partition import ANY_TENANT, Partition, Phase
from actors.publication import Publication, publication
from actors.readers.courier import Courier, Sender
from actors.readers.publisher import Publisher
from actors.readers.views import ViewsReader
from actors.timers import Timers
from hub.clock import Clock
from hub.commands import Answer, FireTimer, Invocation, Refused
from hub.errors import BY_CODE, HubError, Internal, NotFound, StoreUnavailable, Unavailable
from hub.ids import customer_of, stream_partition
from hub.ports import Store, StoredSnapshot
from hub.sealing import Keyring

log = logging.getLogger("hub.host")

TIMER_TICK_MAX_S = 0.5
TIMER_RETRY_MS = 500
PASSIVATE_AFTER_MS = 600_000
ACTIVATIONS_MAX_COUNT = 1_000_000
SWEEP_EVERY_S = 10.0
OPEN_BACKOFF_FIRST_S = 0.1
OPEN_BACKOFF_MAX_S = 2.0
REPLAY_MAX_EVENTS = 10_000
FLUSH_TIMEOUT_S = 1.0
RELEASE_TIMEOUT_S = 10.0
"""Less than the directory waits, so that it hears of the end rather than guessing it."""


class Host:
    def __init__(
        self,
        *,
        name: str,
        incarnation: int,
        store: Store,
        keyring: Keyring,
        clock: Clock,
        sender: Sender,
        on_lost: Callable[[int], None] | None = None,
    ) -> None:
        self.name = name
        self.store = store
        self._keyring = keyring
        self._clock = clock
        self._on_lost = on_lost
        self.partitions: dict[int, Partition] = {}
        self._timers: dict[int, Timers] = {}
        self._opening: dict[int, asyncio.Lock] = {}
        self.wanted: set[int] = set()
        """What this host is to own: what is being opened for it to be given away meanwhile is closed again."""
        self.committer = Committer(store.journal)
        self.views = ViewsReader(store)
        self.courier = Courier(store=store, sender=sender, ask=self.ask)
        self.publisher = Publisher(name, incarnation, self._durable)
        self._tasks: list[asyncio.Task[None]] = []
        self._writing: set[asyncio.Task[None]] = set()
        self._timer_wake = asyncio.Event()
        self._store_lock = asyncio.Lock()
        self._closed_for: dict[int, HubError] = {}
        """Why a partition of ours could not be opened at the last try."""
        self.commands = 0
        self.timers_fired = 0

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        for work in (self.committer.run(), self.views.run(), self.courier.run(), self._run_timers(), self._sweep()):
            self._tasks.append(loop.create_task(_guard(work)))

    # --- partitions -----------------------------------------------------------------------------------------------

    def open(self, numbers: list[int]) -> Awaitable[None]:
        """Take ownership of partitions, however long the store needs."""
        # At once, as in `release`: what is abandoned before the opening has its turn must not be wanted again by it.
        self.wanted.update(numbers)
        return self._open_all(numbers)

    async def _open_all(self, numbers: list[int]) -> None:
        await asyncio.gather(*(self._open_until_done(number) for number in numbers))

    async def _open_until_done(self, number: int) -> None:
        backoff_s = OPEN_BACKOFF_FIRST_S
        # Two openings of one partition at once would fence each other, and then again, for ever.
        lock = self._opening.setdefault(number, asyncio.Lock())
        while number in self.wanted:
            try:
                async with lock:
                    if number in self.wanted:
                        await self._open(number)
                break
            except Exception as error:
                # Whatever it is: nobody else will open it as long as it is ours.
                unforeseen = not isinstance(error, HubError)
                if number in self.wanted:
                    self._closed_for[number] = error if isinstance(error, HubError) else Internal()
                log.warning("partition %d cannot be opened yet: %s", number, error, exc_info=unforeseen)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, OPEN_BACKOFF_MAX_S)
        if number in self.wanted:
            self._closed_for.pop(number, None)
        else:
            self.abandon([number])

    async def _open(self, number: int) -> None:
        partition = Partition(
            number,
            store=self.store,
            keyring=self._keyring,
            clock=self._clock,
            wake_committer=self.committer.wake,
            on_entries=self._on_entries,
            on_closed=self._on_closed,
        )
        held = self.partitions.get(number)
        if held is not None:
            # We had it, another shard took it, it is ours again: what is in memory may have missed something.
            self._close(held, Unavailable("this partition is being opened anew", retry_after_s=0.05))
        try:
            self._timers[number] = await self._catch_up(partition)
        except BaseException:
            partition.close(Unavailable())
            self._forget(partition)
            raise
        self.partitions[number] = partition
        partition.activate()
        self.publisher.opened(partition)
        self.courier.start(partition)
        self._timer_wake.set()

    async def _catch_up(self, partition: Partition) -> Timers:
        await partition.open()
        timers = Timers()
        # One partition at a time: rebuilding is heavy reading, and finishing some early beats all late.
        async with self._store_lock:
            await self.views.open(partition)
            for conversation, due in await self.store.views.timers(partition.number):
                timers.set(conversation, due)
            await self.courier.open(partition)
        return timers

    def abandon(self, numbers: list[int]) -> None:
        """Somebody else is to own these, or does already: forget them, without a word to the store."""
        for number in numbers:
            self.wanted.discard(number)
            self._closed_for.pop(number, None)
            partition = self.partitions.get(number)
            if partition is not None:
                self._close(partition, Unavailable("this partition has moved", retry_after_s=0.05))

    def _on_closed(self, partition: Partition) -> None:
        if self.partitions.get(partition.number) is not partition:
            return
        del self.partitions[partition.number]
        self._forget(partition)
        if self._on_lost is not None:
            self._on_lost(partition.number)

    def _forget(self, partition: Partition) -> None:
        self._timers.pop(partition.number, None)
        self.views.close(partition)
        self.courier.close(partition)

    def release(self, numbers: list[int]) -> Awaitable[None]:
        """Give partitions up cleanly: what was decided is durable, what was read is checkpointed, no send is half-way.

        Where the store does not let that happen in time they are given up all the same: what was not told is not lost.
        """
        # At once, not when somebody waits for it: whoever is told to open one of these afterwards must not find that forgotten.
        for number in numbers:
            self.wanted.discard(number)
            self._closed_for.pop(number, None)
        return self._release_all(numbers)

    async def _release_all(self, numbers: list[int]) -> None:
        await asyncio.gather(*(self._release(number) for number in numbers))

    async def _release(self, number: int) -> None:
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                # One that is just being opened must be closed again before anybody else takes it: our own taking of it
                # would fence them.
                async with self._opening.setdefault(number, asyncio.Lock()):
                    pass
                partition = self.partitions.get(number)
                if partition is not None and number not in self.wanted:
                    await self._finish(partition)
        except (HubError, TimeoutError) as error:
            log.warning("partition %d was given up in haste: %s", number, error or "timeout")
        if number not in self.wanted:
            self.abandon([number])

    async def _finish(self, partition: Partition) -> None:
        # Snapshots and sends take their time, so they come while commands are still taken.
        await self._save_snapshots(partition, partition.passivate(idle_since=0, keep_max=ACTIVATIONS_MAX_COUNT))
        await self.courier.finish(partition)
        partition.retire()
        await partition.settled()
        # Nobody is served meanwhile. What the lists lack (of any partition here) its next owner can give them, too. Not
        # `timeout`: what is half-way to the lists when it is cancelled would be neither there nor known to be missing.
        writing = asyncio.get_running_loop().create_task(self._write_lists())
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.wait([writing], timeout=FLUSH_TIMEOUT_S)

    async def _write_lists(self) -> None:
        await self.views.flush()
        await self.courier.save_checkpoints()

    def _close(self, partition: Partition, error: HubError) -> None:
        """Close it without telling anybody that it was lost."""
        self._on_lost, on_lost = None, self._on_lost
        partition.close(error)
        self._on_lost = on_lost

    async def close(self) -> None:
        """Drain everything; see `release`."""
        await self.release(sorted(self.wanted | self.partitions.keys()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- commands -------------------------------------------------------------------------------------------------

    async def submit(self, invocations: list[Invocation]) -> list[Answer]:
        """Answers in the order asked, each once it is durable or refused."""
        call = Call(len(invocations), asyncio.get_running_loop())
        self.commands += len(invocations)
        for index, invocation in enumerate(invocations):
            number = stream_partition(invocation.stream, self.store.partitions)
            partition = self.partitions.get(number)
            ticket = call.ticket(index)
            if partition is None:
                # Where the store is what keeps it from opening, callers are told so rather than kept waiting.
                away = Unavailable(f"partition {number} is not here", retry_after_s=0.05)
                ticket.refuse(self._closed_for.get(number, away))
            else:
                self._hand_over(partition, invocation, ticket)
        await call.done
        return call.answers  # type: ignore[return-value]

    def _hand_over(self, partition: Partition, invocation: Invocation, ticket: Ticket) -> None:
        """One command that nobody can make sense of must not take the rest of its call down."""
        try:
            partition.submit(invocation, ticket)
        except Exception:
            log.exception("a command for %s cannot be taken", invocation.stream)
            ticket.refuse(Internal())

    async def ask(self, invocation: Invocation) -> Answer:
        [answer] = await self.submit([invocation])
        return answer

    def _on_entries(self, partition: Partition, entries: list[Entry]) -> None:
        self.publisher.note(partition, entries)
        self.views.note(partition, entries)
        self.courier.note(partition, entries)
        timers = self._timers.get(partition.number)
        if timers is None:
            return
        for entry in entries:
            row = entry.conversation
            if row is not None:
                timers.set(row.id, row.wake_at)
                if row.wake_at is not None:
                    self._timer_wake.set()

    # --- reading --------------------------------------------------------------------------------------------------

    def _durable(self) -> dict[int, int]:
        return {number: partition.durable for number, partition in self.partitions.items()}

    def heads(self) -> dict[int, int]:
        """The newest durable offset of every partition that is open here."""
        return {n: p.durable for n, p in self.partitions.items() if p.phase is Phase.ACTIVE}

    async def replay(self, partition: int, tenant: str, after: int, upto: int) -> list[Publication]:
        """What `tenant` missed in (after, upto]. Raises NotFound where that is more than we replay."""
        owner = self._owned(partition)
        if upto - after > REPLAY_MAX_EVENTS:
            raise NotFound(f"more than {REPLAY_MAX_EVENTS} events behind")
        if upto > owner.durable:
            raise NotFound("that position is not in this journal")
        made = (publication(entry) for entry in await owner.replay(after, upto, tenant))
        return [item for item in made if item is not None]

    async def reach(self, partition: int, offset: int) -> None:
        """Return once lists and settings show everything up to `offset`."""
        self._owned(partition)
        await self.views.reach(partition, offset)

    def _owned(self, number: int) -> Partition:
        partition = self.partitions.get(number)
        if partition is None or partition.phase is not Phase.ACTIVE:
            raise Unavailable(f"partition {number} is not here", retry_after_s=0.05)
        return partition

    def metrics(self) -> dict[str, float]:
        """Counters and gauges of this shard, by name."""
        return {
            "commands": self.commands,
            "events": self.committer.events,
            "commits": self.committer.commits,
            "commit_failures": self.committer.failures,
            "commit_seconds": self.committer.seconds,
            "activations": sum(len(p.activations) for p in self.partitions.values()),
            "partitions": len(self.partitions),
            "timers": sum(len(timers) for timers in self._timers.values()),
            "timers_fired": self.timers_fired,
            "view_flushes": self.views.flushes,
            "courier_sent": self.courier.sent,
            "courier_failed": self.courier.failed,
        }

    # --- time -----------------------------------------------------------------------------------------------------

    async def _run_timers(self) -> None:
        while True:
            # Those of a partition that is recovering cannot fire now: waiting for them must not spin.
            ready = [timers for number, timers in self._timers.items() if self._is_active(number)]
            due = [d for timers in ready if (d := timers.next_due()) is not None]
            wait_s = TIMER_TICK_MAX_S
            if due:
                wait_s = min(max((min(due) - self._clock.now()) / 1000, 0.0), wait_s)
            # Not `wait_for`: on Python 3.11 it swallows a cancellation that comes together with the event.
            try:
                async with asyncio.timeout(wait_s):
                    await self._timer_wake.wait()
            except TimeoutError:
                pass
            self._timer_wake.clear()
            await self._fire_due()

    async def _fire_due(self) -> None:
        now = self._clock.now()
        for number, timers in list(self._timers.items()):
            fired = timers.pop_due(now) if self._is_active(number) else []
            if not fired:
                continue
            answers = await self.submit([self._timer_command(number, name, due) for name, due in fired])
            for (name, due), answer in zip(fired, answers, strict=True):
                if isinstance(answer, Refused) and BY_CODE.get(answer.code, HubError).retryable:
                    timers.set_again(name, max(due, now + TIMER_RETRY_MS))
                else:
                    self.timers_fired += 1

    def _is_active(self, number: int) -> bool:
        partition = self.partitions.get(number)
        return partition is not None and partition.phase is Phase.ACTIVE

    def _timer_command(self, number: int, conversation: str, due: int) -> Invocation:
        stream = customer_of(conversation) or conversation
        command = FireTimer(conversation=conversation, name="snooze", due=due)
        return Invocation(ANY_TENANT, stream, command)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            for partition in list(self.partitions.values()):
                share = ACTIVATIONS_MAX_COUNT // max(len(self.partitions), 1)
                idle_since = self._clock.now() - PASSIVATE_AFTER_MS
                await self._save_snapshots(partition, partition.passivate(idle_since=idle_since, keep_max=share))

    async def _save_snapshots(self, partition: Partition, snapshots: list[StoredSnapshot]) -> None:
        if not snapshots:
            return
        try:
            await self.store.snapshots.save(partition.number, partition.epoch, snapshots)
        except StoreUnavailable as error:
            log.warning("snapshots of partition %d were not saved: %s", partition.number, error)


async def _guard(work: Awaitable[None]) -> None:
    """A background loop that dies of a defect must be seen to have died."""
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("a background loop of this shard has died")
        raise
