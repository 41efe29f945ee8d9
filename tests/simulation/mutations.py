"""Runtimes that are broken on purpose. Each must be caught, or the checkers do not check what they say.

A mutation patches one place of the real runtime, the way a careless change might.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from actors import conversation, customer, host
from actors.activation import Activation
from actors.assignment import Assignment
from actors.decision import Decision
from actors.desk import Desk
from actors.lanes import Lane, Lanes, Queue
from actors.membership import Membership, Seat
from actors.partition import Partition
from actors.readers import courier, views
from actors.readers.publisher import Outbox
from actors.router import Router
from actors.timers import Timers
from hub.commands import BeginDelivery, FireTimer
from hub.events import ConversationUpdated, DeliveryStarted, MessageReceived
from hub.storage.memory import MemoryJournal

Patch = Callable[[Any, str, Any], None]
MUTATIONS: dict[str, Callable[[Patch], None]] = {}


def mutation(breaks: Callable[[Patch], None]) -> Callable[[Patch], None]:
    MUTATIONS[breaks.__name__] = breaks
    return breaks


@contextmanager
def applied(name: str) -> Iterator[None]:
    before: list[tuple[Any, str, Any]] = []

    def patch(target: Any, attribute: str, value: Any) -> None:
        before.append((target, attribute, getattr(target, attribute, None)))
        setattr(target, attribute, value)

    MUTATIONS[name](patch)
    try:
        yield
    finally:
        for target, attribute, value in reversed(before):
            if value is None:
                delattr(target, attribute)
            else:
                setattr(target, attribute, value)


# --- the partition ------------------------------------------------------------------------------------------------


@mutation
def an_answer_leaves_before_it_is_durable(patch: Patch) -> None:
    patch(Partition, "_answer", lambda self, activation, ticket, answer: ticket.answer(answer))


@mutation
def a_repeat_is_answered_before_the_first_is_durable(patch: Patch) -> None:
    def answer(self: Partition, activation: Activation, ticket: Any, answer: Any) -> None:
        waits = activation.last_batch > self._committed_serial and not getattr(answer, "duplicate", False)
        (self._open.answers.append((ticket, answer)) if waits else ticket.answer(answer))

    patch(Partition, "_answer", answer)


@mutation
def a_failed_commit_leaves_its_activations_alive(patch: Patch) -> None:
    discard = Partition._discard

    def keep(self: Partition, error: Any) -> None:
        for batch in (self._in_flight, self._open):
            if batch is not None:
                batch.touched.clear()
        discard(self, error)

    patch(Partition, "_discard", keep)


@mutation
def a_failed_commit_forgets_only_its_own_batch(patch: Patch) -> None:
    discard = Partition._discard

    def spare_the_next(self: Partition, error: Any) -> None:
        self._open.touched.clear()
        discard(self, error)

    patch(Partition, "_discard", spare_the_next)


@mutation
def events_are_published_before_the_commit(patch: Patch) -> None:
    record = Partition._record

    def hasty(self: Partition, activation: Activation, decision: Any, now: int) -> Any:
        entries = record(self, activation, decision, now)
        self._on_entries(self, entries)
        return entries

    patch(Partition, "_record", hasty)


@mutation
def what_landed_unseen_is_not_published(patch: Patch) -> None:
    recover = Partition._recover

    async def quiet(self: Partition) -> None:
        tell, self._on_entries = self._on_entries, lambda partition, entries: None
        await recover(self)
        self._on_entries = tell

    patch(Partition, "_recover", quiet)


@mutation
def turns_run_while_the_partition_recovers(patch: Patch) -> None:
    def rise(self: Partition, activation: Activation, image: Any) -> None:
        if activation.gone:
            return
        activation.rise(image, self.keyring)
        activation.wake()
        mailbox, activation.mailbox = activation.mailbox, None
        for invocation, ticket in mailbox or ():
            self._turn(activation, invocation, ticket)

    patch(Partition, "_rise", rise)


@mutation
def a_failed_turn_leaves_its_half_changed_state(patch: Patch) -> None:
    turn = Partition._turn

    def forgiving(self: Partition, activation: Activation, invocation: Any, ticket: Any) -> None:
        def stay(other: Activation, error: Any) -> None:
            if other is not activation:
                Partition._drop(self, other, error)

        self._drop = stay  # type: ignore[assignment, method-assign]
        try:
            turn(self, activation, invocation, ticket)
        finally:
            del self._drop

    patch(Partition, "_turn", forgiving)


@mutation
def a_dropped_stream_is_loaded_without_its_undurable_events(patch: Patch) -> None:
    patch(Partition, "_unsure_serial", property(lambda self: 0, lambda self, value: None))


@mutation
def snapshots_hold_what_is_not_durable(patch: Patch) -> None:
    patch(Partition, "_at_rest", lambda self, activation: activation.active and not activation.mailbox)


@mutation
def a_partition_is_never_taken_anew(patch: Patch) -> None:
    async def give_up(self: Partition) -> None:
        return None

    patch(Partition, "_recover", give_up)


@mutation
def a_tenant_may_ask_for_anothers_stream(patch: Patch) -> None:
    patch(Activation, "adopted_by", lambda self, tenant: True)


# --- turns --------------------------------------------------------------------------------------------------------


@mutation
def redelivered_messages_are_new(patch: Patch) -> None:
    patch(customer, "find", lambda window, mark: None)


@mutation
def repeated_client_ids_are_new(patch: Patch) -> None:
    patch(conversation, "find", lambda window, mark: None)


@mutation
def every_first_message_opens_a_conversation(patch: Patch) -> None:
    contact = customer._contact

    def eager(image: Any, command: Any, name: Any) -> Any:
        known, image.customer.by_channel = image.customer.by_channel, {}
        try:
            return contact(image, command, name)
        finally:
            image.customer.by_channel = known

    patch(customer, "_contact", eager)


@mutation
def statuses_go_where_receipts_say(patch: Patch) -> None:
    patch(conversation, "moves_forward", lambda now, then: True)


@mutation
def apply_counts_on_something_that_is_not_in_the_event(patch: Patch) -> None:
    apply = customer._APPLY[MessageReceived]
    calls = iter(range(10**9))

    def moody(image: Any, event: Any, at: int) -> None:
        apply(image, event, at)
        image.customer.last_seen_at = next(calls)

    patch(customer, "_APPLY", {**customer._APPLY, MessageReceived: moody})


# --- timers -------------------------------------------------------------------------------------------------------


@mutation
def a_timer_fires_whatever_the_conversation_says(patch: Patch) -> None:
    def fire(state: Any, command: Any, now: int) -> Any:
        woken = ConversationUpdated(conversation=state.id, reason="snooze_due", status="open", snoozed_until=None)
        return Decision([woken], state.id)

    pop = Timers.pop_due

    def twice(self: Timers, now: int) -> Any:
        fired = pop(self, now)
        return [*fired, *fired]

    patch(conversation, "fire_timer", fire)
    patch(customer, "_DECIDE", {**customer._DECIDE, FireTimer: customer._in_conversation(fire, timed=True)})
    patch(Timers, "pop_due", twice)


@mutation
def timers_are_not_rebuilt(patch: Patch) -> None:
    opening = host.Host._open

    async def forgetful(self: Any, number: int) -> None:
        await opening(self, number)
        self._timers[number].clear()

    patch(host.Host, "_open", forgetful)


@mutation
def a_timer_that_was_refused_is_forgotten(patch: Patch) -> None:
    patch(Timers, "set_again", lambda self, name, due: None)


@mutation
def timers_of_a_recovering_partition_are_waited_for(patch: Patch) -> None:
    is_active, fire_due = host.Host._is_active, host.Host._fire_due

    async def fire_where_possible(self: host.Host) -> None:
        if all(is_active(self, number) for number in self.partitions):
            await fire_due(self)

    patch(host.Host, "_is_active", lambda self, number: True)
    patch(host.Host, "_fire_due", fire_where_possible)


# --- readers ------------------------------------------------------------------------------------------------------


@mutation
def the_courier_does_not_read_its_own_notes(patch: Patch) -> None:
    follow = courier._follow

    def blind(jobs: Any, entry: Any) -> None:
        if not isinstance(entry.event, DeliveryStarted):
            follow(jobs, entry)

    patch(courier, "_follow", blind)


@mutation
def the_courier_calls_before_it_writes(patch: Patch) -> None:
    journal = courier.Courier._journal

    async def later(self: Any, job: Any, command: Any) -> bool:
        if isinstance(command, BeginDelivery):
            asyncio.get_running_loop().create_task(journal(self, job, command))
            return True
        return await journal(self, job, command)

    patch(courier.Courier, "_journal", later)


@mutation
def the_courier_forgets_what_was_queued_before_a_crash(patch: Patch) -> None:
    patch(courier.Courier, "start", lambda self, partition: None)


@mutation
def a_failed_flush_loses_its_rows(patch: Patch) -> None:
    flush = views.ViewsReader.flush

    async def careless(self: Any) -> None:
        behind = set(self._behind)
        await flush(self)
        self._behind &= behind

    patch(views.ViewsReader, "flush", careless)


@mutation
def views_do_not_catch_up(patch: Patch) -> None:
    async def skip(self: Any, partition: Partition) -> None:
        self._flushed[partition.number] = partition.durable

    patch(views.ViewsReader, "_catch_up", skip)


@mutation
def a_gap_between_feeds_is_papered_over(patch: Patch) -> None:
    add = Outbox.add

    def seamless(self: Outbox, partition: int, after: int, upto: int, items: Any, settings: Any) -> None:
        shown = self.__dict__.setdefault("shown", {})
        add(self, partition, min(after, shown.get(partition, after)), upto, items, settings)
        shown[partition] = upto

    patch(Outbox, "add", seamless)


@mutation
def a_full_outbox_drops_what_does_not_fit(patch: Patch) -> None:
    add = Outbox.add

    def leaky(self: Outbox, partition: int, after: int, upto: int, items: Any, settings: Any) -> None:
        add(self, partition, after, upto, items[:2], settings)

    patch(Outbox, "add", leaky)


# --- ownership ----------------------------------------------------------------------------------------------------


@mutation
def the_store_does_not_look_at_epochs(patch: Patch) -> None:
    def append(self: MemoryJournal, append: Any) -> bool:
        append.epoch = self.epoch(append.partition)
        return kept(self, append)

    kept = MemoryJournal._append
    patch(MemoryJournal, "_append", append)


@mutation
def a_refused_append_counts_as_written(patch: Patch) -> None:
    patch(Partition, "fenced", Partition.committed)


@mutation
def a_shard_keeps_what_is_no_longer_its_own(patch: Patch) -> None:
    abandon = host.Host.abandon

    def hold_on(self: host.Host, numbers: list[int]) -> None:
        abandon(self, [number for number in numbers if number not in self.partitions])

    patch(host.Host, "abandon", hold_on)


@mutation
def a_fenced_partition_is_opened_again_without_asking(patch: Patch) -> None:
    async def reopen(self: Desk, partition: int) -> None:
        await asyncio.sleep(0.2)
        await self.host.open([partition])

    patch(Desk, "_reopen_if_mine", reopen)


@mutation
def a_release_does_not_wait_for_what_is_under_way(patch: Patch) -> None:
    release = host.Host.release

    async def hasty(self: host.Host, numbers: list[int]) -> None:
        async def at_once() -> None:
            return None

        for number in numbers:
            if number in self.partitions:
                self.partitions[number].settled = at_once  # type: ignore[method-assign]
        await release(self, numbers)

    patch(host.Host, "release", hasty)


@mutation
def partitions_move_without_a_release(patch: Patch) -> None:
    def decide(self: Membership, now: float) -> dict[str, list[int]]:
        for owner, partitions in kept(self, now).items():
            self.released(owner, partitions)
        kept(self, now)
        return {}

    kept = Membership.decide
    patch(Membership, "decide", decide)


@mutation
def two_shards_are_given_the_same_partition(patch: Patch) -> None:
    def of(self: Assignment, shard: str) -> list[int]:
        return [number for number, owner in enumerate(self.owners) if owner == shard or number == 0]

    patch(Assignment, "of", of)


@mutation
def a_stopped_shard_is_never_replaced(patch: Patch) -> None:
    def alive(self: Membership, seat: Seat, now: float) -> bool:
        return seat.connected or kept(self, seat, now)

    kept = Membership._alive
    patch(Membership, "_alive", alive)


@mutation
def a_broken_connection_is_nobodys_death(patch: Patch) -> None:
    patch(Membership, "lost", lambda self, name, now: None)


@mutation
def a_directory_that_starts_again_counts_from_nought(patch: Patch) -> None:
    begin = Membership.__init__

    def forgetful(self: Membership, *arguments: Any, era: int = 0, **more: Any) -> None:
        begin(self, *arguments, **more)

    patch(Membership, "__init__", forgetful)
    patch(Membership, "_is_news", lambda self, known, now: False)


@mutation
def a_directory_that_starts_again_does_not_ask_who_owns_what(patch: Patch) -> None:
    patch(Membership, "_is_news", lambda self, known, now: False)


# --- lanes --------------------------------------------------------------------------------------------------------


@mutation
def a_new_owner_is_asked_while_the_old_one_still_is(patch: Patch) -> None:
    def offer(self: Lane, queue: Queue) -> None:
        queue.flight = None
        kept(self, queue)

    kept = Lane.offer
    patch(Lane, "offer", offer)


@mutation
def a_call_to_a_stopped_shard_is_waited_for(patch: Patch) -> None:
    def patient(self: Router, assignment: Assignment) -> None:
        if all(assignment.owners):
            self.lanes.assign(assignment.owners, {*self.members, *self.lanes._lanes})
            for member in assignment.shards():
                self._connect_soon(member)

    patch(Router, "_assigned", patient)


@mutation
def what_is_tried_again_goes_to_the_end(patch: Patch) -> None:
    settle = Lanes._settle

    def at_the_end(self: Lanes, lane: Lane, batch: list[Any], answers: Any) -> None:
        queues = {waiting.queue: len(waiting.queue.commands) for waiting in batch}
        settle(self, lane, batch, answers)
        for queue, behind in queues.items():
            queue.commands.rotate(behind)

    patch(Lanes, "_settle", at_the_end)
