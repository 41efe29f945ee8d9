"""What must hold after every run, each rule on its own.

Every checker takes the evidence and yields one line for each violation it finds. They know the hub's promises
and the journal, and nothing of how the runtime keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from actors.activation import Activation
from actors.entry import PUBLIC, conversation_row, customer_row
from actors.readers.courier import ATTEMPTS_MAX_COUNT
from hub import commands as c
from hub import events as e
from hub import render
from hub.errors import Unavailable
from hub.ids import message_id, split_message
from hub.model import STATUS_RANK
from tests.simulation.cluster import KEYRING, retryable
from tests.simulation.gateway import Session
from tests.simulation.history import History, RealSend
from tests.simulation.journal import Fact, Journal
from tests.simulation.loop import EPOCH_MS, run_now
from tests.simulation.provider import KINDS

if TYPE_CHECKING:
    from hub.storage.memory import MemoryStore
    from tests.simulation.world import World

TIMER_LATE_MAX_MS = 1_000
TROUBLE_ECHO_S = 20.0
"""How long after something was done to the hub its timing may still suffer."""
SETTLED = ("read", "failed")


class Evidence:
    """What is left of a run."""

    def __init__(self, world: World, live: dict[str, Any]) -> None:
        self.history: History = world.history
        self.store: MemoryStore = world.inner
        self.sessions: list[Session] = [session for gateway in world.gateways for session in gateway.sessions]
        self.streamers = world.streamers
        self.journal = Journal.read(world.inner)
        self.replayed = self.journal.images()
        self.live = live
        """stream → builtins of the state that its owner has in memory."""
        self.poisoned = world.nemesis.plan.poison > 0


async def check_all(world: World) -> list[str]:
    live: dict[str, Any] = {}
    for shard in world.cluster.shards:
        host = shard.host
        if host is None or not shard.alive:
            return [f"{shard.name} is not there"]
        try:
            await world.cluster.call(shard, host.views.flush)
        except Exception as error:
            return [f"{shard.name} cannot flush its views: {type(error).__name__} {error}"]
        for partition in host.partitions.values():
            for stream, activation in partition.activations.items():
                if activation.active and world.cluster.owner(partition.number) is shard:
                    live[stream] = plain(activation.image)
    violations: list[str] = []
    try:
        evidence = Evidence(world, live)
        for checker in CHECKERS:
            violations += [f"{checker.__name__}: {line}" for line in checker(evidence)]
    except Exception as error:
        violations.append(f"what is stored cannot even be read: {type(error).__name__} {error}")
    return violations + await a_drain_ends_and_leaves_nothing_to_do(world)


async def a_drain_ends_and_leaves_nothing_to_do(world: World) -> list[str]:
    """The last thing a run does to its shards."""
    world.cluster.kill(world.cluster.directory)  # nobody is to take over
    for shard in world.cluster.shards:
        assert shard.desk is not None
        try:
            await world.cluster.call(shard, shard.desk.close)
        except TimeoutError:
            return [f"{shard.name} does not end its drain"]
    left = []
    for partition in range(world.inner.partitions):
        head = run_now(world.inner.journal.head(partition))
        if run_now(world.inner.views.checkpoint(partition)) < head:
            left.append(f"the views of partition {partition} have something to catch up with after a drain")
    return left


def plain(image: Any) -> Any:
    return msgspec.to_builtins(image)


# --- the journal --------------------------------------------------------------------------------------------------


def offsets_have_no_gap(evidence: Evidence) -> Iterator[str]:
    expected: dict[int, int] = {}
    for fact in evidence.journal.entries:
        wanted = expected.get(fact.partition, 1)
        if fact.offset != wanted:
            yield f"partition {fact.partition} goes from {wanted - 1} to {fact.offset}"
        expected[fact.partition] = fact.offset + 1


def messages_are_numbered_from_one_without_gap(evidence: Evidence) -> Iterator[str]:
    seqs: dict[str, int] = {}
    for _, event in evidence.journal.of(e.MessageReceived, e.MessageQueued, e.NoteAdded):
        wanted = seqs.get(event.conversation, 0) + 1
        if event.seq != wanted:
            yield f"{event.conversation} goes from {wanted - 1} to {event.seq}"
        seqs[event.conversation] = event.seq


def nothing_is_doubled(evidence: Evidence) -> Iterator[str]:
    seen: dict[tuple[str, ...], str] = {}
    for fact, event in evidence.journal.of(e.MessageReceived, e.MessageQueued, e.NoteAdded):
        inbound = isinstance(event, e.MessageReceived)
        name = ("in", fact.stream, external_id_of(event)) if inbound else ("out", event.conversation, event.client_id)
        message = message_id(event.conversation, event.seq)
        if name in seen:
            yield f"{name} is {seen[name]} and {message}"
        seen[name] = message


def first_contact_opens_one_conversation(evidence: Evidence) -> Iterator[str]:
    seen: dict[tuple[str, str], str] = {}
    for fact, event in evidence.journal.of(e.ConversationOpened):
        where = (fact.stream, event.channel)
        if where in seen:
            yield f"{where} has {seen[where]} and {event.conversation}"
        seen[where] = event.conversation


def statuses_only_move_forward(evidence: Evidence) -> Iterator[str]:
    now: dict[tuple[str, int], str] = {}
    for fact, event in evidence.journal.of(e.MessageStatusChanged):
        message = (event.conversation, event.seq)
        before, then = now.get(message, "queued"), event.status
        if then != before and (before in SETTLED or STATUS_RANK[then] < STATUS_RANK[before]):
            yield f"{message} goes from {before} to {then} at {fact.offset}"
        now[message] = then


def tenants_stay_apart(evidence: Evidence) -> Iterator[str]:
    owner: dict[str, str] = {}
    for fact in evidence.journal.entries:
        if owner.setdefault(fact.stream, fact.tenant) != fact.tenant:
            yield f"{fact.stream} belongs to {owner[fact.stream]} and to {fact.tenant}"


# --- what callers were told ---------------------------------------------------------------------------------------


def what_was_acknowledged_is_there(evidence: Evidence) -> Iterator[str]:
    """Every `Done` names a message that the journal holds, and held when it was said."""
    where = {message_id(ev.conversation, ev.seq): (fact, ev) for fact, ev in _messages(evidence.journal)}
    for told in evidence.history.told:
        answer, command = told.answer, told.invocation.command
        if not isinstance(answer, c.Done) or answer.message_id is None:
            continue
        found = where.get(answer.message_id)
        if found is None:
            if not isinstance(command, c.RecordReceipt):
                yield f"{type(command).__name__} was told {answer.message_id}, which does not exist"
            continue
        fact, event = found
        if fact.offset > told.head:
            yield f"{answer.message_id} was acknowledged at {told.at_s:.3f}s, before it was durable"
        if isinstance(command, c.ReceiveMessage):
            name, found_name = command.external_id, event.content.external_id
        elif isinstance(command, c.SendMessage | c.StartConversation):
            name, found_name = command.client_id, getattr(event, "client_id", None)
        else:
            continue
        if name != found_name:
            yield f"{name} was told {answer.message_id}, which is {found_name}"


def every_answer_names_the_same_message(evidence: Evidence) -> Iterator[str]:
    named: dict[tuple[str, ...], str | None] = {}
    for told in evidence.history.told:
        command, answer = told.invocation.command, told.answer
        if not isinstance(answer, c.Done):
            continue
        if isinstance(command, c.ReceiveMessage):
            name: tuple[str, ...] = (told.invocation.stream, command.external_id)
        elif isinstance(command, c.SendMessage | c.StartConversation):
            name = (told.invocation.stream, command.client_id)
        else:
            continue
        if named.setdefault(name, answer.message_id) != answer.message_id:
            yield f"{name} was told {named[name]} and {answer.message_id}"


def only_one_answer_is_the_first(evidence: Evidence) -> Iterator[str]:
    """Of all confirmations of one message, at most one says that it was not a repeat."""
    first: set[str] = set()
    for told in evidence.history.told:
        command, answer = told.invocation.command, told.answer
        if not isinstance(answer, c.Done) or not isinstance(command, c.ReceiveMessage | c.SendMessage):
            continue
        assert answer.message_id is not None
        if not answer.duplicate:
            if answer.message_id in first:
                yield f"{answer.message_id} was new twice"
            first.add(answer.message_id)


def what_was_shown_is_never_denied(evidence: Evidence) -> Iterator[str]:
    """A conversation that an answer named is found by everybody of its tenant from then on, and by nobody else."""
    shown: dict[str, str] = {}
    for told in evidence.history.said:
        answer, asked = told.answer, told.invocation
        if isinstance(answer, c.Done) and answer.conversation_id is not None:
            owner = shown.setdefault(answer.conversation_id, asked.tenant)
            if owner != asked.tenant:
                yield f"{answer.conversation_id} of {owner} was shown to {asked.tenant}"
        elif isinstance(answer, c.Refused):
            conversation = getattr(asked.command, "conversation", "")
            if answer.code == "not_found" and shown.get(conversation) == asked.tenant:
                yield f"{conversation} was not found at {told.at_s:.3f}s"


def a_customers_message_is_never_refused_for_good(evidence: Evidence) -> Iterator[str]:
    for told in evidence.history.said:
        command, answer = told.invocation.command, told.answer
        refused = isinstance(answer, c.Refused) and not retryable(answer)
        if refused and isinstance(command, c.ReceiveMessage):
            yield f"{command.external_id} at {told.at_s:.3f}s: {answer}"


def nothing_is_our_own_defect(evidence: Evidence) -> Iterator[str]:
    if evidence.poisoned:
        return
    for told in evidence.history.told:
        if isinstance(told.answer, c.Refused) and told.answer.code == "internal":
            yield f"{type(told.invocation.command).__name__} at {told.at_s:.3f}s: {told.answer.detail}"


# --- state --------------------------------------------------------------------------------------------------------


def live_state_equals_a_replay_from_zero(evidence: Evidence) -> Iterator[str]:
    for stream, image in evidence.live.items():
        known = evidence.replayed.get(stream)
        if known is not None and plain(known) != image:
            yield f"{stream}: {difference(plain(known), image)}"
        elif known is None and evidence_of_life(image):
            yield f"{stream} lives, and the journal has never heard of it"


def evidence_of_life(image: Any) -> bool:
    return bool(image.get("conversations") or image.get("tenant", {}).get("settings"))


def snapshot_and_tail_equal_a_replay_from_zero(evidence: Evidence) -> Iterator[str]:
    partition_of = {fact.stream: fact.partition for fact in evidence.journal.entries}
    for stream, known in evidence.replayed.items():
        [stored] = run_now(evidence.store.journal.load(partition_of[stream], [stream]))
        activation = Activation(stream, "")
        activation.rise(stored, KEYRING)
        if plain(activation.image) != plain(known):
            yield f"{stream}: {difference(plain(known), plain(activation.image))}"


def views_show_the_live_state(evidence: Evidence) -> Iterator[str]:
    views = evidence.store.views
    partition_of = {fact.stream: fact.partition for fact in evidence.journal.entries}
    for stream, image in evidence.replayed.items():
        if not stream.startswith("cus_"):
            continue
        for state in image.conversations.values():
            wanted = conversation_row(image, state, partition_of[stream])
            row = views._conversations.get(state.id)
            if row != wanted:
                yield f"{state.id}: {difference(plain(wanted), plain(row))}"
        yield from _customer_view(views._customers.get(stream), customer_row(image, partition_of[stream]))


def _customer_view(row: Any, wanted: Any) -> Iterator[str]:
    """`last_seen_at` and `updated_at` may lag: they are not worth a write for every message."""
    lag = ("last_seen_at", "updated_at")
    shown, live = (
        {k: v for k, v in msgspec.json.decode(r.body).items() if k not in lag} if r else None for r in (row, wanted)
    )
    if shown != live:
        yield f"{wanted.id}: {difference(live, shown)}"


def views_hold_every_message(evidence: Evidence) -> Iterator[str]:
    final = _final_statuses(evidence.journal)
    for fact, event in _messages(evidence.journal):
        body = run_now(evidence.store.views.message(event.conversation, event.seq))
        name = f"{event.conversation}/{event.seq}"
        if body is None:
            yield f"{name} is not there"
            continue
        message = render.message_from_json(body)
        status, error, external_id = final.get((event.conversation, event.seq), ("queued", None, None))
        wanted = render.message_of(event, fact.at, evidence.replayed[fact.stream].customer)
        if isinstance(event, e.MessageQueued):
            wanted.status, wanted.error, wanted.external_id = status, error, external_id
        else:
            # The name of a customer may have changed since; who wrote has not.
            message.author = wanted.author
        if message != wanted:
            yield f"{name}: {difference(plain(wanted), plain(message))}"


def settings_are_projected(evidence: Evidence) -> Iterator[str]:
    final: dict[tuple[str, str], tuple[str, bytes | None]] = {}
    for fact, event in evidence.journal.of(e.SettingChanged, e.SettingRemoved):
        changed = isinstance(event, e.SettingChanged)
        final[fact.tenant, event.id] = (event.kind, event.content.document if changed else None)
    for (tenant, id), (kind, body) in final.items():
        document = run_now(evidence.store.documents.get(kind, id))
        found = document.body if document is not None else None
        if found != body:
            yield f"{kind} {id} of {tenant} shows {found!r} instead of {body!r}"


# --- time ---------------------------------------------------------------------------------------------------------


def snoozes_end_once_and_in_time(evidence: Evidence) -> Iterator[str]:
    due: dict[str, int] = {}
    for fact, event in evidence.journal.of(e.ConversationUpdated, e.MessageReceived):
        until = due.get(event.conversation)
        if isinstance(event, e.ConversationUpdated) and event.reason == "snooze_due":
            if until is None:
                yield f"{event.conversation} was woken at {fact.at}, and did not sleep"
            elif fact.at < until:
                yield f"{event.conversation} was woken {until - fact.at} ms early"
        if until is not None and _too_late(evidence.history, until, fact.at):
            yield f"{event.conversation} was due at {_s(until)}s and slept until {_s(fact.at)}s"
        if isinstance(event, e.MessageReceived):
            due.pop(event.conversation, None)
        elif event.status is not msgspec.UNSET:
            due.pop(event.conversation, None)
            if event.status == "snoozed" and isinstance(event.snoozed_until, int):
                due[event.conversation] = event.snoozed_until
    now = EPOCH_MS + int(evidence.history.now_s * 1000)
    for conversation, until in due.items():
        if until + TIMER_LATE_MAX_MS < now:
            yield f"{conversation} was due at {_s(until)}s and sleeps for ever"


def _too_late(history: History, until: int, woken: int) -> bool:
    late = woken > until + TIMER_LATE_MAX_MS
    return late and history.calm_between(_s(until) - TROUBLE_ECHO_S, _s(woken))


def _s(ms: int) -> float:
    return (ms - EPOCH_MS) / 1000


# --- sending ------------------------------------------------------------------------------------------------------


def nothing_is_sent_twice(evidence: Evidence) -> Iterator[str]:
    """Where the provider cannot recognise a repeat, only its own clear no allows another request."""
    last: dict[str, RealSend] = {}
    for send in evidence.history.sends:
        before = last.get(send.message)
        if before is not None and not KINDS[send.kind].idempotent and not (before.outcome == "retry" and before.heard):
            yield f"{send.message} went out at {before.at_s:.3f}s ({before.outcome}) and at {send.at_s:.3f}s"
        last[send.message] = send


def messages_leave_in_order(evidence: Evidence) -> Iterator[str]:
    newest: dict[str, int] = {}
    known: set[str] = set()
    for send in evidence.history.sends:
        if send.message in known:
            continue
        known.add(send.message)
        split = split_message(send.message)
        assert split is not None
        conversation, seq = split
        if seq < newest.get(conversation, 0):
            yield f"{send.message} left after message {newest[conversation]}"
        newest[conversation] = seq


def every_message_reaches_an_end(evidence: Evidence) -> Iterator[str]:
    final = _final_statuses(evidence.journal)
    sends: dict[str, list[RealSend]] = {}
    for send in evidence.history.sends:
        sends.setdefault(send.message, []).append(send)
    for _, event in evidence.journal.of(e.MessageQueued):
        name = message_id(event.conversation, event.seq)
        status, error, _external = final.get((event.conversation, event.seq), ("queued", None, None))
        traits, tried = KINDS[event.channel_kind], sends.get(name, [])
        if status == "queued":
            yield f"{name} is still queued"
        elif status == "uncertain" and (traits.local or traits.idempotent):
            yield f"{name} is uncertain, though asking again would have been safe"
        elif status == "sent" and not traits.local and not any(send.accepted for send in tried):
            yield f"{name} is said to be sent, and no provider took it"
        elif status == "failed" and error.code == "busy" and len(tried) < ATTEMPTS_MAX_COUNT:
            yield f"{name} failed after {len(tried)} attempts"


# --- subscribers --------------------------------------------------------------------------------------------------


def sessions_see_everything_once_in_order(evidence: Evidence) -> Iterator[str]:
    for session in evidence.sessions:
        told = [fact for fact in evidence.journal.entries if fact.tenant == session.tenant]
        for number in {fact.partition for fact in told} | {number for number, _ in session.seen}:
            wanted = [
                (fact.offset, e.type_name(fact.event))
                for fact in told
                if fact.partition == number and isinstance(fact.event, PUBLIC)
            ]
            seen = [(item.offset, item.type) for partition, item in session.seen if partition == number]
            if seen != wanted:
                yield f"{session.tenant} in {number}: {_first_difference(seen, wanted)}"


def _first_difference(seen: list[Any], wanted: list[Any]) -> str:
    at = next((n for n, (a, b) in enumerate(zip(seen, wanted, strict=False)) if a != b), min(len(seen), len(wanted)))
    return f"item {at} is {seen[at : at + 2]} instead of {wanted[at : at + 2]}"


def external_id_of(event: e.Event) -> str:
    return (event.content.external_id if event.content is not None else None) or ""


# --- order --------------------------------------------------------------------------------------------------------


def who_does_not_wait_is_read_in_order(evidence: Evidence) -> Iterator[str]:
    """What was written through one gateway stands in the journal in that order, wherever the partition was meanwhile.

    Where a shard refused one for good (too many, a defect) and that answer was lost, the gateway tries it once more like all others
    of that call: it then comes later than it was sent, as if its writer had sent it again.
    """
    refused = {
        told.invocation.command.external_id
        for told in evidence.history.said
        if isinstance(told.invocation.command, c.ReceiveMessage)
        and isinstance(told.answer, c.Refused)
        and told.answer.code != Unavailable.code
    }
    found: dict[str, list[str]] = {}
    for fact, event in evidence.journal.of(e.MessageReceived):
        found.setdefault(fact.stream, []).append(external_id_of(event))
    for streamer in evidence.streamers:
        late = streamer.again | refused
        stands = [name for name in found.get(streamer.stream, []) if name not in late]
        sent = [name for name in streamer.sent if name not in late]
        if stands != sent:
            yield f"{streamer.stream}: {_first_difference(stands, sent)}"


# --- readings -----------------------------------------------------------------------------------------------------


def _messages(journal: Journal) -> list[tuple[Fact, Any]]:
    return journal.of(e.MessageReceived, e.MessageQueued, e.NoteAdded)


def _final_statuses(journal: Journal) -> dict[tuple[str, int], tuple[str, Any, str | None]]:
    final: dict[tuple[str, int], tuple[str, Any, str | None]] = {}
    for _, event in journal.of(e.MessageStatusChanged):
        key = (event.conversation, event.seq)
        learned = event.content.external_id if event.content is not None else None
        final[key] = (event.status, event.error, learned or final.get(key, ("", None, None))[2])
    return final


def difference(wanted: Any, found: Any, path: str = "") -> str:
    """Where two trees differ first."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in [*wanted, *(k for k in found if k not in wanted)]:
            if wanted.get(key) != found.get(key):
                return difference(wanted.get(key), found.get(key), f"{path}.{key}")
    return f"{path or 'it'} should be {wanted!r} and is {found!r}"


CHECKERS: list[Callable[[Evidence], Iterator[str]]] = [
    offsets_have_no_gap,
    messages_are_numbered_from_one_without_gap,
    nothing_is_doubled,
    first_contact_opens_one_conversation,
    statuses_only_move_forward,
    tenants_stay_apart,
    what_was_acknowledged_is_there,
    every_answer_names_the_same_message,
    only_one_answer_is_the_first,
    what_was_shown_is_never_denied,
    a_customers_message_is_never_refused_for_good,
    nothing_is_our_own_defect,
    live_state_equals_a_replay_from_zero,
    snapshot_and_tail_equal_a_replay_from_zero,
    views_show_the_live_state,
    views_hold_every_message,
    settings_are_projected,
    snoozes_end_once_and_in_time,
    nothing_is_sent_twice,
    messages_leave_in_order,
    every_message_reaches_an_end,
    sessions_see_everything_once_in_order,
    who_does_not_wait_is_read_in_order,
]
