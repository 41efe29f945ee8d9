"""Lanes: how commands reach shards, by natural batching. Ray-free; the router gives it the actual call.

One call in flight per shard; what arrives meanwhile goes into the next one. So idle latency is one call, and batches
grow with load. Commands wait in a queue for each tenant and partition, and a lane serves its queues in turns: a tenant
that sends a flood waits behind itself, not in front of the others. Within a queue the order is kept, retries and moves of
the partition included: when it changes hands, its queues go along, with what its old owner has not answered at the head.

Why commands of one stream never overtake each other: they are all in one queue; a queue stands in the ring of one lane
only, its owner's; and while a call holds commands of it no other lane takes any (`Queue.flight`). That call ends with
answers, with the connection, or by being cancelled; only then does what it left undone go back to the head, at once. A
call to a dead shard may still be obeyed there, but its writes are fenced as soon as the new owner has the partition.

What the hub cannot do soon it refuses soon: once the wait in a lane would pass `WAIT_MAX_S`, whoever has at
least the average share of it is told to come back later. A lane that stands still because its shard is being
replaced is not overloaded; there only the bounds on the lane count, and the room beyond `QUEUE_MAX_COMMANDS` is for
those with less than the average share.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable

import msgspec

from actors.calls import refusal
from hub.commands import Answer, Invocation, Refused
from hub.errors import Overloaded, Unavailable
from hub.ids import stream_partition

log = logging.getLogger("hub.lanes")

QUEUE_MAX_COMMANDS = 20_000
LANE_MAX_COMMANDS = 2 * QUEUE_MAX_COMMANDS
CALL_MAX_COMMANDS = 1_000
TURN_MAX_COMMANDS = 64
WAIT_MAX_S = 0.3
RATE_SMOOTHING = 0.2
RATE_MIN_CALLS = 10
"""How many calls a shard is given before its pace is believed: the first ones find everything still on disk."""
CALL_TIMEOUT_S = 20.0
RETRY_FOR_S = 15.0
RETRY_EVERY_S = 0.05
_RETRIED_HERE = "unavailable"


class Waiting:
    """A command in a lane, and who waits for its answer."""

    __slots__ = ("answer", "give_up_at", "invocation", "queue")

    def __init__(self, invocation: Invocation, answer: asyncio.Future[Answer], give_up_at: float, queue: Queue) -> None:
        self.invocation = invocation
        self.answer = answer
        self.give_up_at = give_up_at
        self.queue = queue

    def resolve(self, answer: Answer) -> None:
        if not self.answer.done():  # whoever asked may have gone
            self.answer.set_result(answer)


class Queue:
    """What one tenant wants of one partition, in order."""

    __slots__ = ("away", "blocked", "commands", "flight", "lane", "partition", "tenant")

    def __init__(self, tenant: str, partition: int, lane: Lane) -> None:
        self.tenant = tenant
        self.partition = partition
        self.lane = lane
        self.commands: deque[Waiting] = deque()
        self.blocked = False
        """It waits a moment before it is tried again."""
        self.away = False
        """Its partition has moved, or was not available when last asked for."""
        self.flight: Lane | None = None
        """The lane whose call holds commands of it. Until they are answered no other lane may send any."""


class Lane:
    """The way to one shard."""

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self.ring: OrderedDict[Queue, None] = OrderedDict()
        """Queues of this lane in the order of their turns, each once, and each with commands that may be sent."""
        self.queued = 0
        self.running: asyncio.Task[None] | None = None
        self.call: asyncio.Task[list[Answer]] | None = None
        self.flying: list[Waiting] = []
        self.failing = False
        self.called_at = 0.0
        self.commands_per_s = 0.0
        self.measured_calls = 0

    def put(self, waiting: Waiting) -> None:
        waiting.queue.commands.append(waiting)
        self.queued += 1
        self.offer(waiting.queue)

    def offer(self, queue: Queue) -> None:
        """Let a queue wait for its turn, where there is something in it."""
        if queue.commands and not queue.blocked and queue.flight in (None, self):
            self.ring.setdefault(queue)

    def take(self) -> list[Waiting]:
        """The next call: a turn for every queue in the ring, again and again, until it is full."""
        batch: list[Waiting] = []
        while self.ring and len(batch) < CALL_MAX_COMMANDS:
            queue, _ = self.ring.popitem(last=False)
            queue.flight = self
            commands = queue.commands
            for _ in range(min(len(commands), TURN_MAX_COMMANDS, CALL_MAX_COMMANDS - len(batch))):
                batch.append(commands.popleft())
            self.offer(queue)
        self.queued -= len(batch)
        return batch

    def measure(self, commands: int, seconds: float) -> None:
        """A small call tells how long a call takes, not how much the shard can do."""
        if commands < TURN_MAX_COMMANDS:
            return
        self.measured_calls += 1
        rate = commands / max(seconds, 1e-6)
        self.commands_per_s += (rate - self.commands_per_s) * (RATE_SMOOTHING if self.commands_per_s else 1.0)

    def refuses(self, queue: Queue, queues: int, now: float) -> Overloaded | None:
        """Whether one more command of this queue would only wait in vain. `queues`: how many there are at most."""
        if self.queued >= QUEUE_MAX_COMMANDS:
            greedy = len(queue.commands) * queues >= self.queued
            return Overloaded(retry_after_s=1) if greedy or self.queued >= LANE_MAX_COMMANDS else None
        bound = self.commands_per_s * WAIT_MAX_S
        if self.queued <= bound or queue.away or not self._moves(now):
            return None
        moving = sum(len(other.commands) for other in self.ring if not other.away)
        # `>=` of the average: where only one tenant is there, the flood is its own.
        if moving > bound and len(queue.commands) * len(self.ring) >= moving:
            return Overloaded(retry_after_s=moving / self.commands_per_s)
        return None

    def _moves(self, now: float) -> bool:
        """Whether its shard is at work, at a pace we know."""
        stuck = self.call is not None and now - self.called_at > WAIT_MAX_S
        return self.measured_calls >= RATE_MIN_CALLS and not self.failing and not stuck


class Lanes:
    """All ways out of one gateway, and which partition is at the end of which."""

    def __init__(
        self,
        partitions: int,
        call: Callable[[str, list[Invocation]], Awaitable[list[Answer]]],
        on_failure: Callable[[str], None],
    ) -> None:
        """`call` raises where nobody knows what became of the commands; `on_failure` is told of the shard then."""
        self._partitions = partitions
        self._call = call
        self._on_failure = on_failure
        self._owners: list[str] = []
        self._lanes: dict[str, Lane] = {}
        self._queues: dict[tuple[str, int], Queue] = {}
        """Those that hold commands, or whose commands are under way."""
        self.calls = 0
        self.refused = 0
        self._closed = False

    # --- who owns what --------------------------------------------------------------------------------------------

    def assign(self, owners: list[str], alive: set[str]) -> None:
        """A new assignment. What was on its way to a shard that is no longer `alive` goes to the new owners."""
        self._owners = owners
        for lane in list(self._lanes.values()):
            if lane.call is not None and lane.shard not in alive:
                lane.call.cancel()
        for queue in self._queues.values():
            lane = self._lane(owners[queue.partition])
            if lane is queue.lane:
                continue
            queue.lane.ring.pop(queue, None)
            queue.lane.queued -= len(queue.commands)
            lane.queued += len(queue.commands)
            queue.lane, queue.blocked, queue.away = lane, False, True
            self._go(lane, queue)
        for shard, lane in list(self._lanes.items()):
            if lane.running is None and not lane.queued and shard not in alive:
                del self._lanes[shard]

    def _lane(self, shard: str) -> Lane:
        lane = self._lanes.get(shard)
        if lane is None:
            lane = self._lanes[shard] = Lane(shard)
        return lane

    def _queue(self, tenant: str, partition: int) -> Queue:
        queue = self._queues.get((tenant, partition))
        if queue is None:
            lane = self._lane(self._owners[partition])
            queue = self._queues[tenant, partition] = Queue(tenant, partition, lane)
        return queue

    # --- sending --------------------------------------------------------------------------------------------------

    def send(self, invocation: Invocation) -> asyncio.Future[Answer]:
        """The answer comes once it is durable or refused; the future itself never fails."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if self._closed:
            future.set_result(refusal(_stopping()))
            return future
        queue = self._queue(invocation.tenant, stream_partition(invocation.stream, self._partitions))
        lane, now = queue.lane, loop.time()
        refused = lane.refuses(queue, len(self._queues), now)
        if refused is not None:
            self.refused += 1
            future.set_result(refusal(refused))
            self._forget(queue)
            return future
        lane.put(Waiting(invocation, future, now + RETRY_FOR_S, queue))
        if lane.running is None:
            lane.running = loop.create_task(self._pump(lane))
        return future

    def close(self) -> None:
        """This gateway ends: whoever still waits is told so."""
        self._closed = True
        for lane in self._lanes.values():
            if lane.running is not None:
                lane.running.cancel()
            for waiting in lane.flying:
                waiting.resolve(refusal(_stopping()))
        for queue in self._queues.values():
            for waiting in queue.commands:
                waiting.resolve(refusal(_stopping()))
        self._lanes.clear()
        self._queues.clear()

    @property
    def queued(self) -> int:
        return sum(lane.queued + len(lane.flying) for lane in self._lanes.values())

    def _go(self, lane: Lane, queue: Queue) -> None:
        lane.offer(queue)
        if lane.ring and lane.running is None:
            lane.running = asyncio.get_running_loop().create_task(self._pump(lane))

    async def _pump(self, lane: Lane) -> None:
        # One turn of the loop first: what this tick brings shares the first call.
        await asyncio.sleep(0)
        while batch := lane.take():
            self.calls += 1
            lane.flying = batch
            answers = await self._try(lane, batch) if not self._is_hopeless(lane, batch) else _gone(lane, batch)
            lane.flying = []
            settled = self._settle(lane, batch, answers)
            if not lane.failing:
                lane.measure(settled, asyncio.get_running_loop().time() - lane.called_at)
        lane.running = None

    async def _try(self, lane: Lane, batch: list[Waiting]) -> list[Answer]:
        loop = asyncio.get_running_loop()
        lane.called_at = loop.time()
        lane.call = loop.create_task(self._timed(lane.shard, [waiting.invocation for waiting in batch]))
        try:
            answers = await lane.call
            lane.failing = False
            return answers
        except (msgspec.MsgspecError, TypeError):
            log.exception("a batch for %s cannot be coded", lane.shard)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # it is this gateway that ends, not that shard
            lane.failing = True
        except Exception as error:
            if not lane.failing:
                log.warning("%s does not answer: %s", lane.shard, type(error).__name__)
            lane.failing = True
            self._on_failure(lane.shard)
        finally:
            lane.call = None
        return _gone(lane, batch)

    def _is_hopeless(self, lane: Lane, batch: list[Waiting]) -> bool:
        """A shard that takes for ever must not get a whole call for each of those whose patience it has used up."""
        now = asyncio.get_running_loop().time()
        return lane.failing and all(waiting.give_up_at <= now for waiting in batch)

    async def _timed(self, shard: str, invocations: list[Invocation]) -> list[Answer]:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            answers = await self._call(shard, invocations)
        if len(answers) != len(invocations):
            raise ValueError(f"{len(answers)} answers to {len(invocations)} commands")
        return answers

    # --- answers --------------------------------------------------------------------------------------------------

    def _settle(self, lane: Lane, batch: list[Waiting], answers: list[Answer]) -> int:
        """Deliver answers; what is worth another try waits at the head of its queue for a moment. How many were final."""
        now = asyncio.get_running_loop().time()
        again = []
        for waiting, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Refused) and answer.code == _RETRIED_HERE and now < waiting.give_up_at:
                again.append(waiting)
            else:
                waiting.resolve(answer)
        for waiting in reversed(again):
            waiting.queue.commands.appendleft(waiting)
            waiting.queue.lane.queued += 1
        refused = {waiting.queue for waiting in again}
        for queue in {waiting.queue: None for waiting in batch}:
            queue.flight = None
            queue.away = queue in refused
            if queue in refused and queue.lane is lane:
                queue.blocked = True
                lane.ring.pop(queue, None)
                asyncio.get_running_loop().call_later(RETRY_EVERY_S, self._unblock, queue)
            else:
                self._go(queue.lane, queue)
                self._forget(queue)
        return len(batch) - len(again)

    def _forget(self, queue: Queue) -> None:
        """Nobody waits in it: tenants may be many, and most are silent."""
        if not queue.commands and queue.flight is None:
            self._queues.pop((queue.tenant, queue.partition), None)

    def _unblock(self, queue: Queue) -> None:
        queue.blocked = False
        if not self._closed:
            self._go(queue.lane, queue)


def _gone(lane: Lane, batch: list[Waiting]) -> list[Answer]:
    return [refusal(Unavailable(f"{lane.shard} is being replaced", retry_after_s=1)) for _ in batch]


def _stopping() -> Unavailable:
    return Unavailable("this gateway is stopping", retry_after_s=1)
