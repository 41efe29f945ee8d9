"""The processes of a hub: a directory, nodes with shards and standbys, and how callers reach them through gateways.

Inside each process runs what runs there in earnest (`Office`, `Desk`, and in `gateway.py` the `Router`), on the
simulated network; this starts and kills them, as Ray and the supervisor do.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from actors.assignment import Assignment
from actors.desk import Desk
from actors.host import Host
from actors.office import Office
from actors.partition import ANY_TENANT
from actors.readers.courier import Sender
from hub.commands import Answer, Done, Invocation, Refused
from hub.errors import BY_CODE, HubError, Unavailable
from hub.ids import stream_partition
from hub.sealing import Keyring
from tests.simulation.faults import FaultyStore
from tests.simulation.history import History
from tests.simulation.loop import PROCESS, Process, ProcessDied, VirtualClock, VirtualLoop, run_now
from tests.simulation.network import Network

if TYPE_CHECKING:
    from tests.simulation.gateway import Gateway

T = TypeVar("T")
CALL_TIMEOUT_S = 60.0
FIND_EVERY_S = 0.05
DRAINED_EVERY_S = 0.25
KEYRING = Keyring(b"the secret of a simulated installation")
SECRET = KEYRING.derive("wire")
DIRECTORY = "directory"


class Shape(msgspec.Struct):
    """How big a hub is: `seats` and `standbys` are those of each node."""

    nodes: int
    seats: int
    standbys: int


class Role:
    """One name; its process changes with every restart."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: Process | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and not self.process.dead


class Directory(Role):
    office: Office | None = None


class Shard(Role):
    def __init__(self, name: str, node: str) -> None:
        super().__init__(name)
        self.node = node
        self.desk: Desk | None = None

    @property
    def host(self) -> Host | None:
        return self.desk.host if self.desk is not None else None


class Cluster:
    def __init__(
        self,
        shape: Shape,
        *,
        store: FaultyStore,
        loop: VirtualLoop,
        network: Network,
        rng: Random,
        history: History,
        sender: Sender,
    ) -> None:
        self.shape = shape
        self.store = store
        self.loop = loop
        self.network = network
        self.directory = Directory(DIRECTORY)
        self.nodes: dict[str, list[Shard]] = {}
        self.leaving: set[str] = set()
        self.gateways: list[Gateway] = []
        self._rng = rng
        self._history = history
        self._sender = sender
        self._clock = VirtualClock(loop)
        self._processes: list[Process] = []
        self._root = contextvars.copy_context()
        self._lives = 0
        self._nodes_made = 0
        self.asking = 0

    @property
    def shards(self) -> list[Shard]:
        return [shard for shards in self.nodes.values() for shard in shards]

    @property
    def roles(self) -> list[Role]:
        return [self.directory, *self.shards, *self.gateways]

    # --- processes ------------------------------------------------------------------------------------------------

    def begin(self, role: Role) -> tuple[Process, int]:
        """A new life of it, and its number."""
        assert not role.alive
        self._lives += 1
        role.process = Process(f"{role.name}.{self._lives}", self.loop, role.name)
        self._processes.append(role.process)
        self._history.trouble(f"{role.process.name} starts")
        return role.process, self._lives

    def start(self, role: Role) -> None:
        if isinstance(role, Shard):
            self._start_shard(role)
        elif isinstance(role, Directory):
            self._start_directory(role)
        else:
            role.start()  # type: ignore[attr-defined]

    def _start_shard(self, shard: Shard) -> None:
        process, life = self.begin(shard)
        desk = shard.desk = process.context.run(
            lambda: Desk(
                shard.name,
                shard.node,
                life,
                store=self.store,  # type: ignore[arg-type]  # only what the runtime uses
                keyring=KEYRING,
                sender=self._sender,
                clock=self._clock,
            )
        )
        self._listen_to(desk.host)
        self._watch_fences(desk)
        process.spawn(desk.open(shard.name, self.find))

    def _start_directory(self, directory: Directory) -> None:
        process, _ = self.begin(directory)
        shape = self.shape
        office = directory.office = process.context.run(
            lambda: Office(
                SECRET,
                self.store.partitions,
                seats=shape.seats,
                expected=shape.nodes * shape.seats,
                now=self.loop.time,
                clock=self._clock,
            )
        )
        tell_all = office._tell_all

        def tell(payload: bytes) -> None:
            assignment = office.membership.assignment
            owners, moving = " ".join(name or "-" for name in assignment.owners), assignment.moving
            self._history.trouble(f"assignment {assignment.version}: {owners}; moving {moving}")
            tell_all(payload)

        office._tell_all = tell  # type: ignore[method-assign]
        process.spawn(office.open(DIRECTORY))

    async def find(self) -> tuple[str, int]:
        """Where the directory listens; waits for one that is being restarted, as Ray does."""
        await asyncio.sleep(self._rng.uniform(0.001, 0.005))
        while not self.directory.alive or self.directory.office is None or not self.directory.office.address[1]:
            await asyncio.sleep(FIND_EVERY_S)
        return self.directory.office.address

    def kill(self, role: Role) -> None:
        if role.process is not None and role.alive:
            self._history.trouble(f"{role.process.name} is killed")
            role.process.kill()

    def bury(self) -> None:
        for process in self._processes:
            process.bury()

    # --- nodes ----------------------------------------------------------------------------------------------------

    def add_node(self) -> str:
        self._nodes_made += 1
        name = f"node-{self._nodes_made}"
        count = self.shape.seats + self.shape.standbys
        self.nodes[name] = [Shard(f"{name}.shard-{n}", name) for n in range(count)]
        for shard in self.nodes[name]:
            self.start(shard)
        return name

    def power_off(self, node: str) -> None:
        self._history.trouble(f"{node} loses power")
        for role in self._on(node):
            if role.process is not None:
                self.network.silence(role.process)
            self.kill(role)
        del self.nodes[node]

    def _on(self, node: str) -> list[Role]:
        return [*self.nodes[node], *(gateway for gateway in self.gateways if gateway.node == node)]

    async def drain_node(self, node: str) -> None:
        """What `hub drain` and the supervisor do. A directory that has forgotten it meanwhile is told again."""
        self._history.trouble(f"{node} drains")
        self.leaving.add(node)
        while node in self.nodes:
            office = self.directory.office
            if self.directory.alive and office is not None:
                if node in office.status()["emptied"]:
                    break
                if node not in office.membership.draining:
                    await self._tell_to_leave(node)
            await asyncio.sleep(DRAINED_EVERY_S)
        for shard in self.nodes.get(node, []):
            desk = shard.desk
            if shard.alive and desk is not None:
                try:
                    await self.call(shard, desk.close)
                except (ProcessDied, TimeoutError):
                    pass
        if node in self.nodes:
            for role in self._on(node):
                self.kill(role)
            del self.nodes[node]
        self.leaving.discard(node)
        self._history.trouble(f"{node} is gone")

    async def _tell_to_leave(self, node: str) -> None:
        gateway = self._rng.choice(self.gateways)
        router = gateway.router
        if router is not None and gateway.alive:
            try:
                await self.call(gateway, lambda: router.directory.leave(node))
            except (HubError, ProcessDied, TimeoutError):
                pass

    # --- who owns what --------------------------------------------------------------------------------------------

    def owner(self, partition: int) -> Shard | None:
        """As the directory has it."""
        office = self.directory.office
        name = office.membership.assignment.owners[partition] if office is not None else ""
        return next((shard for shard in self.shards if shard.name == name), None)

    def unowned(self) -> list[str]:
        """What keeps this from being a hub in which every partition is open at its one owner."""
        office, wrong = self.directory.office, []
        if office is None or not self.directory.alive:
            return ["there is no directory"]
        if office.membership.assignment.moving:
            wrong.append(f"partitions {office.membership.assignment.moving} are moving")
        seated = {member.name for member in office.membership.assignment.shards() if member.seat >= 0}
        for number in range(self.store.partitions):
            owner, has = self.owner(number), self._has(number)
            if owner is None or not owner.alive or owner.name not in seated:
                wrong.append(f"partition {number} has no living, seated owner")
            elif has != [owner.name]:
                wrong.append(f"partition {number} of {owner.name} is open at {has}")
            elif number not in owner.host.heads():  # type: ignore[union-attr]
                wrong.append(f"partition {number} is not active at {owner.name}")
            elif owner.host.partitions[number].durable < run_now(self.store.inner.journal.head(number)):  # type: ignore[union-attr]
                wrong.append(f"{owner.name} has not noticed that somebody wrote to partition {number}")
        return wrong

    def _has(self, number: int) -> list[str]:
        return [s.name for s in self.shards if s.alive and s.host is not None and number in s.host.partitions]

    def _listen_to(self, host: Host) -> None:
        """Whatever this shard answers is held against the journal, whoever lives to hear it."""
        submit = host.submit

        async def listened(invocations: list[Invocation]) -> list[Answer]:
            answers = await submit(invocations)
            journal = self.store.inner.journal
            for invocation, answer in zip(invocations, answers, strict=True):
                if invocation.tenant != ANY_TENANT:
                    number = stream_partition(invocation.stream, self.store.partitions)
                    partition = host.partitions.get(number)
                    owned = partition is not None and partition.epoch == journal.epoch(number)
                    self._history.say(invocation, answer, run_now(journal.head(number)), owned=owned)
            return answers

        host.submit = listened  # type: ignore[method-assign]

    def _watch_fences(self, desk: Desk) -> None:
        """Whom another owner fenced asks the directory before it takes the partition again."""
        fenced: set[int] = set()
        on_lost, assigned, opening = desk.host._on_lost, desk._assigned, desk.host._open
        assert on_lost is not None

        def lost(partition: int) -> None:
            self._history.trouble(f"{desk.host.name} lost partition {partition}")
            fenced.add(partition)
            on_lost(partition)

        def heard(assignment: Assignment) -> None:
            fenced.clear()
            assigned(assignment)

        async def watched(partition: int) -> None:
            if partition in fenced:
                self._history.broken.append(f"{desk.host.name} takes partition {partition} back without asking")
            await opening(partition)

        desk.host._on_lost, desk._assigned, desk.host._open = lost, heard, watched  # type: ignore[method-assign]

    # --- calls ----------------------------------------------------------------------------------------------------

    async def call(self, role: Role, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do something in that process. Raises ProcessDied or TimeoutError where nobody knows what became of it."""
        if role.process is None:
            raise ProcessDied(role.name)
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return await role.process.call(work)

    async def insist(self, invocation: Invocation, *, patience: int = 10_000) -> Answer:
        """Ask until there is an answer that is worth keeping, through any gateway, as every good client does."""
        self.asking += 1
        try:
            pause_s = 0.05
            for _ in range(patience):
                await asyncio.sleep(self._rng.uniform(0.0002, 0.003))
                answer = await self._rng.choice(self.gateways).submit(invocation)
                if answer is not None and not retryable(answer):
                    return answer
                await asyncio.sleep(self._rng.uniform(0.5, 1.5) * pause_s)
                pause_s = min(pause_s * 2, 1.0)
            return Refused(Unavailable.code, "the client gave up")
        finally:
            self.asking -= 1

    def outside(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start something that no process's death can stop, whoever asks for it."""
        assert self._root.get(PROCESS) is None
        return self.loop.create_task(coroutine, context=self._root.copy())


def retryable(answer: Answer) -> bool:
    return not isinstance(answer, Done) and BY_CODE.get(answer.code, HubError).retryable
