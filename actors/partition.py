"""A partition: the unit of ownership, ordering and fencing.

Turns run at once and in memory; what they decide joins the *open batch*. The committer takes the open
batch of every partition, appends them in one journal write, and meanwhile the next batch fills: turns of
batch k+1 run while batch k commits. Answers and publications leave only when their batch is durable. An answer
without events of its own (a read, a repeat, a refusal) still waits for the batch that holds the state it saw.

If a commit fails, everything decided since is discarded: its callers get a retryable error, the
activations it touched are dropped, the partition takes ownership anew and replays what did get in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any

from actors.activation import SNAPSHOT_EVERY_EVENTS, Activation
from actors.calls import Ticket, refusal
from actors.decision import Decision
from actors.entry import Entry, Renderer
from actors.milestones import Milestones
from hub import render
from hub.clock import Clock
from hub.codec import decode_record, encode_record, encode_snapshot
from hub.commands import Answer, Done, Invocation
from hub.errors import Fenced, HubError, Internal, NotFound, Overloaded, StoreUnavailable, Unavailable
from hub.ids import ordinal_of, split_message
from hub.ports import Append, Store, StoredKey, StoredRecord, StoredSnapshot, StreamImage
from hub.sealing import Keyring

log = logging.getLogger("hub.partition")

PENDING_MAX_EVENTS = 20_000
ANY_TENANT = ""
"""Who asks is the hub itself, which knows a stream by its id only."""
LOAD_MAX_STREAMS = 512
REPLAY_CHUNK_EVENTS = 500
RECOVER_BACKOFF_FIRST_S = 0.05
RECOVER_BACKOFF_MAX_S = 1.0
RECOVER_QUIETLY_FOR_S = 0.5


class Phase(Enum):
    CLOSED = "closed"
    OPENING = "opening"
    ACTIVE = "active"
    RECOVERING = "recovering"
    RETIRING = "moving"


class Batch:
    """What one group commit will hold of this partition."""

    __slots__ = ("answers", "entries", "first_offset", "keys", "records", "serial", "touched")

    def __init__(self, serial: int, first_offset: int) -> None:
        self.serial = serial
        self.first_offset = first_offset
        self.records: list[StoredRecord] = []
        self.keys: list[StoredKey] = []
        self.entries: list[Entry] = []
        self.answers: list[tuple[Ticket, Answer]] = []
        self.touched: dict[Activation, None] = {}


class Partition:
    def __init__(
        self,
        number: int,
        *,
        store: Store,
        keyring: Keyring,
        clock: Clock,
        wake_committer: Callable[[Partition], None],
        on_entries: Callable[[Partition, list[Entry]], None],
        on_closed: Callable[[Partition], None],
    ) -> None:
        self.number = number
        self.store = store
        self.keyring = keyring
        self.clock = clock
        self.phase = Phase.CLOSED
        self.epoch = 0
        self.durable = 0
        """Offset of the newest event known to be committed."""
        self.discards = 0
        """How often undurable turns had to be forgotten."""
        self.activations: dict[str, Activation] = {}
        self._wake_committer = wake_committer
        self._on_entries = on_entries
        self._on_closed = on_closed
        self._serial = 0
        self._committed_serial = 0
        self._open = Batch(1, 1)
        self._in_flight: Batch | None = None
        self._next_offset = 1
        self._to_load: dict[str, Activation] = {}
        self._loading = False
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._settlements = Milestones()
        self._unsure_serial = 0
        """Batches up to this one hold events of an activation that was dropped: load nothing before they settle."""
        self._retiring = False
        """It is being given up, and does not become active again."""
        self._trouble: StoreUnavailable | None = None
        """What the store said when the partition last tried to recover."""
        self._owned = asyncio.Event()
        """Set while no write of ours can still land unseen; what is loaded before that may miss an event."""
        self._owned.set()

    # --- ownership ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take ownership. Raises StoreUnavailable; the caller decides whether to try again."""
        self.phase = Phase.OPENING
        owned = await self.store.journal.acquire(self.number)
        self.epoch = owned.epoch
        self._restart_at(owned.next_offset)
        self.durable = owned.next_offset - 1

    def activate(self) -> None:
        """Begin to take commands; readers have caught up by now."""
        self.phase = Phase.ACTIVE

    def retire(self) -> None:
        """Take no more commands; what was decided is still committed."""
        self._retiring = True
        if self.phase is Phase.ACTIVE:
            self.phase = Phase.RETIRING

    def close(self, error: HubError) -> None:
        """Forget everything: another owner has it, or the process is going."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        self._owned.set()
        self._discard(error)
        for activation in list(self.activations.values()):
            self._drop(activation, error)
        for task in self._tasks:
            task.cancel()
        self._on_closed(self)

    def _restart_at(self, next_offset: int) -> None:
        self._next_offset = next_offset
        self._in_flight = None
        self._committed_serial = self._serial
        self._serial += 1
        self._open = Batch(self._serial, next_offset)

    # --- commands -------------------------------------------------------------------------------------------------

    def submit(self, invocation: Invocation, ticket: Ticket) -> None:
        if self.phase is not Phase.ACTIVE:
            # While it may be back any moment, whoever asks keeps the command; once the store is known to be down, the
            # caller is told.
            away = Unavailable(f"partition {self.number} is {self.phase.value}", retry_after_s=0.05)
            ticket.refuse(self._trouble or away)
            return
        if len(self._open.records) >= PENDING_MAX_EVENTS:
            ticket.refuse(Overloaded("the journal cannot keep up", retry_after_s=1))
            return
        activation = self.activations.get(invocation.stream)
        if activation is None:
            activation = self._begin_activation(invocation.stream, invocation.tenant)
        if activation.active:
            self._turn(activation, invocation, ticket)
            return
        try:
            activation.enqueue(invocation, ticket)
        except Overloaded as error:
            ticket.refuse(error)

    def _turn(self, activation: Activation, invocation: Invocation, ticket: Ticket) -> None:
        if invocation.tenant not in (activation.tenant, ANY_TENANT) and not activation.adopted_by(invocation.tenant):
            ticket.refuse(NotFound())
            return
        command, now = invocation.command, self.clock.now()
        activation.last_used = now
        try:
            decision: Decision = activation.behaviour.decide(activation.image, command, now)
        except HubError as error:
            self._answer(activation, ticket, refusal(error))
            return
        except Exception:
            log.exception("deciding %s failed", type(command).__name__)
            self._answer(activation, ticket, refusal(Internal()))
            return
        try:
            entries = self._record(activation, decision, now) if decision.events else []
        except Exception:
            # The state may be half-changed: forget it. What was recorded before is safe in its batch.
            log.exception("applying %s failed", type(command).__name__)
            ticket.refuse(Internal())
            self._unsure_serial = max(self._unsure_serial, activation.last_batch)
            self._drop(activation, Internal())
            return
        self._answer(activation, ticket, self._done(activation, decision, entries))

    def _record(self, activation: Activation, decision: Decision, now: int) -> list[Entry]:
        stream, batch = activation.stream, self._open
        cipher = activation.cipher
        assert cipher is not None
        offset = self._next_offset
        records, entries = [], []
        for event in decision.events:
            body = encode_record(
                tenant=activation.tenant, stream=stream, offset=offset, at=now, event=event, cipher=cipher
            )
            records.append(StoredRecord(offset, stream, body))
            entries.append(Entry(self.number, offset, now, activation.tenant, stream, event))
            offset += 1
        for event in decision.events:
            activation.behaviour.apply(activation.image, event, now)
        if stream.startswith("cus_"):
            renderer = Renderer(self.number)
            for entry in entries:
                renderer.fill(entry, activation.image)
        if activation.new_key is not None:
            batch.keys.append(StoredKey(stream, activation.new_key))
            activation.new_key = None
        self._next_offset = offset
        batch.records += records
        batch.entries += entries
        batch.touched[activation] = None
        activation.last_batch = batch.serial
        activation.last_offset = offset - 1
        activation.events_since_snapshot += len(records)
        self._wake_committer(self)
        return entries

    def _done(self, activation: Activation, decision: Decision, entries: list[Entry]) -> Done:
        done = Done(self.number, activation.last_offset, decision.duplicate, decision.message, decision.conversation)
        done.revision = decision.revision
        if not activation.stream.startswith("cus_"):
            return done
        for entry in reversed(entries):
            if entry.message is not None and not done.message:
                done.message = entry.message.body
            if entry.conversation is not None and not done.conversation:
                done.conversation = entry.conversation.body
        self._show_state(activation, decision, done)
        return done

    def _show_state(self, activation: Activation, decision: Decision, done: Done) -> None:
        """Fill in what the turn's own events did not render."""
        image = activation.image
        if decision.conversation is None:
            done.customer = render.customer_json(image)
            return
        state = image.conversations.get(ordinal_of(decision.conversation))
        if state is not None and not done.conversation:
            done.conversation = render.conversation_json(state, image.customer)
        split = split_message(decision.message) if decision.message else None
        if state is not None and split is not None and not done.message:
            known = state.outbound.get(split[1])
            done.message = render.message_json(known) if known is not None else b""

    def _answer(self, activation: Activation, ticket: Ticket, answer: Answer) -> None:
        """Release an answer once the state it speaks of is durable."""
        if activation.last_batch <= self._committed_serial:
            ticket.answer(answer)
        elif self._in_flight is not None and activation.last_batch <= self._in_flight.serial:
            self._in_flight.answers.append((ticket, answer))
        else:
            self._open.answers.append((ticket, answer))

    # --- activation and passivation -------------------------------------------------------------------------------

    def _begin_activation(self, stream: str, tenant: str) -> Activation:
        """Raises Unavailable where the partition is closed: nobody would load it, and a reader would wait for ever."""
        if self.phase is Phase.CLOSED:
            raise Unavailable("this partition has moved", retry_after_s=0.05)
        activation = Activation(stream, tenant)
        activation.last_used = self.clock.now()
        self.activations[stream] = activation
        self._to_load[stream] = activation
        if not self._loading:
            self._loading = True
            self._spawn(self._load_waiting())
        return activation

    async def _load_waiting(self) -> None:
        """Load what waits, batch by batch: what arrives during one load shares the next."""
        await asyncio.sleep(0)
        while self._to_load:
            waiting = dict(list(self._to_load.items())[:LOAD_MAX_STREAMS])
            try:
                if self._unsure_serial > self._committed_serial:
                    await self.settled()
                await self._owned.wait()
                images = await self.store.journal.load(self.number, list(waiting))
            except Exception as error:
                if not isinstance(error, HubError):
                    log.exception("loading %d streams failed", len(waiting))
                for activation in waiting.values():
                    self._drop(activation, error if isinstance(error, HubError) else Internal())
                continue
            for activation, image in zip(waiting.values(), images, strict=True):
                if self._to_load.get(activation.stream) is activation:
                    del self._to_load[activation.stream]
                self._rise(activation, image)
        self._loading = False

    def _rise(self, activation: Activation, image: StreamImage) -> None:
        if activation.gone:
            return
        try:
            activation.rise(image, self.keyring)
        except Exception as error:
            log.exception("stream %s cannot be activated", activation.stream)
            self._drop(activation, error if isinstance(error, HubError) else Internal())
            return
        activation.wake()
        mailbox, activation.mailbox = activation.mailbox, None
        for invocation, ticket in mailbox or ():
            if activation.gone or self.phase is not Phase.ACTIVE:
                ticket.refuse(Unavailable(retry_after_s=0.05))
            else:
                self._turn(activation, invocation, ticket)

    def _drop(self, activation: Activation, error: HubError) -> None:
        activation.gone = True
        activation.active = False
        if self.activations.get(activation.stream) is activation:
            del self.activations[activation.stream]
        if self._to_load.get(activation.stream) is activation:
            del self._to_load[activation.stream]
        activation.wake()
        mailbox, activation.mailbox = activation.mailbox, None
        for _, ticket in mailbox or ():
            ticket.refuse(error)

    async def ensure(self, stream: str, tenant: str) -> Activation:
        """The active activation of a stream, as readers need it. Raises Unavailable where it cannot be loaded."""
        if self.phase is Phase.CLOSED:
            raise Unavailable(f"partition {self.number} has moved", retry_after_s=0.05)
        activation = self.activations.get(stream) or self._begin_activation(stream, tenant)
        if not activation.active:
            await activation.risen()
            if activation.gone:
                raise Unavailable(f"stream {stream} cannot be read now")
        return activation

    def passivate(self, *, idle_since: float, keep_max: int) -> list[StoredSnapshot]:
        """Evict what is idle or over the bound, oldest first; the returned snapshots are worth saving."""
        evictable = [a for a in self.activations.values() if self._at_rest(a)]
        excess = len(self.activations) - keep_max
        if excess > 0:
            evictable.sort(key=lambda a: a.last_used)
        snapshots = []
        for rank, activation in enumerate(evictable):
            evict = rank < excess or activation.last_used < idle_since
            if activation.events_since_snapshot >= (1 if evict else SNAPSHOT_EVERY_EVENTS):
                snapshots.append(self._snapshot(activation))
            if evict:
                self._drop(activation, Unavailable())
        return snapshots

    def _at_rest(self, activation: Activation) -> bool:
        return activation.active and not activation.mailbox and activation.last_batch <= self._committed_serial

    def _snapshot(self, activation: Activation) -> StoredSnapshot:
        stream, offset = activation.stream, activation.last_offset
        assert activation.cipher is not None
        body = encode_snapshot(activation.image, stream=stream, offset=offset, cipher=activation.cipher)
        activation.events_since_snapshot = 0
        return StoredSnapshot(stream, offset, body)

    # --- group commit ---------------------------------------------------------------------------------------------

    def seal_batch(self) -> Append | None:
        """Hand the open batch to the committer and begin the next one."""
        batch = self._open
        if self.phase not in (Phase.ACTIVE, Phase.RETIRING) or not batch.records or self._in_flight is not None:
            return None
        self._in_flight = batch
        self._serial += 1
        self._open = Batch(self._serial, self._next_offset)
        return Append(self.number, self.epoch, batch.first_offset, batch.records, batch.keys)

    def committed(self) -> None:
        batch = self._in_flight
        if batch is None:
            return
        self._in_flight = None
        self._committed_serial = batch.serial
        self.durable = batch.first_offset + len(batch.records) - 1
        for ticket, answer in batch.answers:
            ticket.answer(answer)
        self._on_entries(self, batch.entries)
        self._settlements.reach(batch.serial)
        if self._open.records:
            self._wake_committer(self)

    def fenced(self) -> None:
        """Another owner has the partition: nothing of ours was written, nothing may be said."""
        log.warning("partition %d was taken by another owner; epoch %d is over", self.number, self.epoch)
        self.close(Unavailable("this partition has moved", retry_after_s=0.1))

    def commit_failed(self, error: StoreUnavailable) -> None:
        """The outcome is unknown. Callers are told to retry; ownership is taken anew before anything else."""
        if self.phase not in (Phase.ACTIVE, Phase.RETIRING):
            return
        self.phase = Phase.RECOVERING
        self._owned.clear()
        self._discard(error)
        self._spawn(self._recover())
        # A store that is down may also take its time to say so again.
        asyncio.get_running_loop().call_later(RECOVER_QUIETLY_FOR_S, self._give_up_waiting, error)

    def _discard(self, error: HubError) -> None:
        doomed = [batch for batch in (self._in_flight, self._open) if batch is not None]
        self._restart_at(self.durable + 1)
        self.discards += 1
        for batch in doomed:
            for activation in batch.touched:
                self._drop(activation, error)
            for ticket, _ in batch.answers:
                ticket.refuse(error)
        self._settlements.reach(self._committed_serial)

    async def _recover(self) -> None:
        backoff_s = RECOVER_BACKOFF_FIRST_S
        while self.phase is Phase.RECOVERING:
            try:
                owned = await self.store.journal.acquire(self.number, self.epoch)
                self.epoch = owned.epoch
                self._owned.set()
                missed = await self.replay(self.durable, owned.next_offset - 1)
            except Fenced:
                self.fenced()
                return
            except Exception as error:
                unforeseen = not isinstance(error, HubError)
                if isinstance(error, StoreUnavailable):
                    self._give_up_waiting(StoreUnavailable(error.detail, retry_after_s=RECOVER_BACKOFF_MAX_S))
                log.warning("partition %d is not back yet: %s", self.number, error, exc_info=unforeseen)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, RECOVER_BACKOFF_MAX_S)
                continue
            self.durable = owned.next_offset - 1
            self._restart_at(owned.next_offset)
            self._trouble = None
            self.phase = Phase.RETIRING if self._retiring else Phase.ACTIVE
            if missed:
                self._on_entries(self, missed)

    def _give_up_waiting(self, trouble: StoreUnavailable) -> None:
        """The store is down for longer than a moment: tell those who wait for a stream to be loaded, too."""
        if self.phase is not Phase.RECOVERING:
            return
        self._trouble = trouble
        for activation in list(self._to_load.values()):
            self._drop(activation, trouble)

    async def settled(self) -> None:
        """Return once everything decided so far is durable or discarded."""
        newest = self._open.serial if self._open.records else self._open.serial - 1
        if newest > self._committed_serial:
            await self._settlements.wait(newest)

    # --- replay ---------------------------------------------------------------------------------------------------

    async def replay(self, after: int, upto: int, tenant: str | None = None, *, rendered: bool = True) -> list[Entry]:
        """Committed events in (after, upto] of one tenant or of all; `rendered` as they were published.

        A replayed event shows its conversation as it is now.
        """
        entries: list[Entry] = []
        discards = self.discards
        while after < upto:
            chunk = await self.store.journal.read(self.number, after, min(REPLAY_CHUNK_EVENTS, upto - after))
            if not chunk:
                break
            entries += await self._open_records(chunk, tenant, rendered)
            after = chunk[-1].offset
        await self.settled()
        if discards != self.discards:
            raise Unavailable("what was read has been undone by a failed commit", retry_after_s=0.05)
        return entries

    async def _open_records(self, chunk: list[StoredRecord], tenant: str | None, rendered: bool) -> list[Entry]:
        keys = await self.store.journal.keys(list({record.stream for record in chunk}))
        ciphers = {stream: self.keyring.unwrap(stream, wrapped) for stream, wrapped in keys.items()}
        entries = []
        for record in chunk:
            opened = decode_record(
                record.body, stream=record.stream, offset=record.offset, cipher=ciphers.get(record.stream)
            )
            if tenant is None or opened.tenant == tenant:
                entry = Entry(self.number, record.offset, opened.at, opened.tenant, record.stream, opened.event)
                entries.append(entry)
        if rendered:
            await self._render([entry for entry in entries if entry.stream.startswith("cus_")])
        return entries

    async def _render(self, entries: list[Entry]) -> None:
        """As they were published. All their streams begin to load before the first is waited for: one read, not hundreds."""
        for entry in entries:
            if entry.stream not in self.activations:
                self._begin_activation(entry.stream, entry.tenant)
        renderer = Renderer(self.number)
        for entry in entries:
            activation = await self.ensure(entry.stream, entry.tenant)
            renderer.fill(entry, activation.image)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
