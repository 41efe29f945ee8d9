"""Customers who write, agents who answer, administrators who change settings: all of them insist."""

from __future__ import annotations

import asyncio
from random import Random

from msgspec import UNSET

from hub import commands as c
from hub.ids import customer_id, partitions_of, split_message, tenant_stream
from hub.model import Author
from tests.simulation.cluster import KEYRING, Cluster
from tests.simulation.history import History
from tests.simulation.loop import EPOCH_MS, VirtualLoop
from tests.simulation.provider import KINDS

LABELS = ["vip", "billing", "spam"]


class Town:
    """What everybody knows: who exists, and which conversations have been shown to somebody."""

    def __init__(
        self,
        *,
        tenants: dict[str, int],
        loop: VirtualLoop,
        rng: Random,
        cluster: Cluster,
        history: History,
        steps: int,
    ) -> None:
        self.tenants = tenants
        """Each with its spread."""
        self.loop = loop
        self.rng = rng
        self.cluster = cluster
        self.history = history
        self.steps_left = steps
        self.conversations: dict[str, list[str]] = {}
        """tenant → ids of conversations that an answer named."""
        self._numbered = 0

    def fresh(self, prefix: str) -> str:
        self._numbered += 1
        return f"{prefix}-{self._numbered}"

    def step(self) -> bool:
        self.steps_left -= 1
        return self.steps_left >= 0

    @property
    def now_ms(self) -> int:
        return EPOCH_MS + int(self.loop.now_s * 1000)

    def learn(self, tenant: str, answer: c.Answer) -> None:
        if isinstance(answer, c.Done) and answer.conversation_id is not None:
            known = self.conversations.setdefault(tenant, [])
            if answer.conversation_id not in known:
                known.append(answer.conversation_id)


class Customer:
    """One identity of one tenant, on several channels, behind a provider that redelivers what it likes."""

    def __init__(self, town: Town, tenant: str, number: int) -> None:
        self._town = town
        self._tenant = tenant
        self._identity = f"tel:+58{number}"
        self.stream = customer_id(
            secret=KEYRING.identity_secret,
            tenant=tenant,
            identity=self._identity,
            among=partitions_of(tenant, town.tenants[tenant], town.cluster.store.partitions),
        )
        rng = town.rng
        self._channels = rng.sample(list(KINDS), rng.randint(1, len(KINDS)))
        self._written: list[c.ReceiveMessage] = []
        self._pause_s = rng.choice([0.02, 0.3, 2.0])
        self._name = rng.choice([None, "Eva", "José"])

    async def live(self) -> None:
        town, rng = self._town, self._town.rng
        while town.step():
            await asyncio.sleep(rng.expovariate(1 / self._pause_s))
            fate = rng.random()
            if fate < 0.15 and self._written:
                self._deliver(rng.choice(self._written))
            elif fate < 0.25:
                town.cluster.outside(self._look_at_messages())
            else:
                self._burst(rng.choice([1, 1, 1, 2, 5]))

    def _burst(self, count: int) -> None:
        """Several messages at once, each delivered one to three times, in any order, side by side."""
        rng = self._town.rng
        made = [self._message() for _ in range(count)]
        self._written += made
        deliveries = [command for command in made for _ in range(rng.choice([1, 1, 2, 3]))]
        rng.shuffle(deliveries)
        for command in deliveries:
            self._deliver(command)

    def _message(self) -> c.ReceiveMessage:
        rng = self._town.rng
        kind = rng.choice(self._channels)
        self._town.step()
        return c.ReceiveMessage(
            channel=f"{self._tenant}-{kind}",
            channel_kind=kind,
            identity=self._identity,
            address=self._identity[4:],
            external_id=self._town.fresh("in"),
            text="¿Está abierto?",
            name=self._name if rng.random() < 0.5 else None,
            sent_at=rng.choice([None, self._town.now_ms - 5_000, 12]),
        )

    def _deliver(self, command: c.ReceiveMessage) -> None:
        self._town.cluster.outside(self._insist(command))

    async def _insist(self, command: c.ReceiveMessage) -> None:
        answer = await self._town.cluster.insist(c.Invocation(self._tenant, self.stream, command))
        self._town.learn(self._tenant, answer)

    async def _look_at_messages(self) -> None:
        town = self._town
        known = [id for id in town.conversations.get(self._tenant, []) if id[4:23] == self.stream[4:]]
        if known:
            status = town.rng.choice(["delivered", "read"])
            command = c.CustomerRead(conversation=town.rng.choice(known), seq=town.rng.randint(1, 12), status=status)  # type: ignore[arg-type]
            await town.cluster.insist(c.Invocation(self._tenant, self.stream, command), patience=5)


class Agent:
    """Answers, notes, assigns, snoozes, reads; repeats what was not confirmed, and sometimes what was."""

    def __init__(self, town: Town, tenant: str, number: int, customers: list[Customer]) -> None:
        self._town = town
        self._tenant = tenant
        self._author = Author("agent", f"agent-{number}", "Ana")
        self._customers = customers
        self._sent: list[tuple[str, c.SendMessage]] = []
        self._pause_s = town.rng.choice([0.05, 0.4, 1.5])

    async def live(self) -> None:
        rng = self._town.rng
        while self._town.step():
            await asyncio.sleep(rng.expovariate(1 / self._pause_s))
            command = self._choose()
            if command is None:
                continue
            patience = 10_000 if rng.random() < 0.8 else rng.randint(1, 3)
            work = self._town.cluster.outside(self._insist(command, patience))
            if rng.random() < 0.5:
                await asyncio.wait([work], timeout=30)

    async def _insist(self, command: c.Command, patience: int) -> None:
        stream = self._stream_of(command)
        invocation = c.Invocation(self._tenant, stream, command)  # type: ignore[arg-type]
        self._town.learn(self._tenant, await self._town.cluster.insist(invocation, patience=patience))

    def _stream_of(self, command: c.Command) -> str:
        conversation: str | None = getattr(command, "conversation", None)
        if conversation is not None:
            return f"cus_{conversation[4:23]}"
        if isinstance(command, c.StartConversation):
            return next(x.stream for x in self._customers if x._identity == command.identity)
        return self._town.rng.choice(self._customers).stream

    def _choose(self) -> c.Command | None:
        rng = self._town.rng
        if rng.random() < 0.06:
            return self._start()
        if rng.random() < 0.08:
            return self._customer_command()
        known = self._town.conversations.get(self._tenant, [])
        if not known:
            return None
        if self._sent and rng.random() < 0.1:
            return rng.choice(self._sent)[1]
        conversation = rng.choice(known)
        fate = rng.random()
        if fate < 0.4:
            return self._write(conversation)
        if fate < 0.88:
            return self._change(conversation)
        if fate < 0.93:
            return c.MarkRead(conversation=conversation, seq=rng.randint(1, 20), by=self._author)
        return c.GetConversation(conversation=conversation)

    def _start(self) -> c.Command:
        rng = self._town.rng
        customer = rng.choice(self._customers)
        kind = rng.choice(customer._channels)
        return c.StartConversation(
            channel=f"{self._tenant}-{kind}",
            channel_kind=kind,
            identity=customer._identity,
            address=customer._identity[4:],
            author=self._author,
            text="Hola, soy Ana.",
            client_id=self._town.fresh("out"),
        )

    def _customer_command(self) -> c.Command:
        rng = self._town.rng
        if rng.random() < 0.4:
            return c.GetCustomer()
        name = rng.choice([UNSET, None, "Eva María"])
        return c.UpdateCustomer(name=name, attributes={"plan": rng.choice(["a", "b", None])})

    def _write(self, conversation: str) -> c.Command:
        rng = self._town.rng
        command = c.SendMessage(
            conversation=conversation,
            author=self._author,
            text="Sí, hasta las seis.",
            client_id=self._town.fresh("out"),
            kind=rng.choice(["outbound", "outbound", "outbound", "note"]),
            if_seq=rng.choice([None, None, None, rng.randint(0, 10)]),
        )
        self._sent.append((conversation, command))
        return command

    def _change(self, conversation: str) -> c.Command:
        rng = self._town.rng
        command = c.UpdateConversation(conversation=conversation, by=self._author)
        fate = rng.random()
        if fate < 0.6:
            command.snoozed_until = self._town.now_ms + rng.choice([1, 50, 300, 1_500, 4_000, 12_000, 86_400_000])
        elif fate < 0.65:
            command.snoozed_until = None
        elif fate < 0.8:
            command.status = rng.choice(["open", "pending", "snoozed", "resolved"])
        else:
            command.assignee = rng.choice([None, "agent-1", "agent-2"])
            command.labels = rng.sample(LABELS, rng.randint(0, 2))
            command.priority = rng.choice(["none", "high"])
        return command


class Sleeper:
    """Puts conversations aside for a moment, as long as there is trouble: timers are due in every kind of it."""

    def __init__(self, town: Town, tenant: str) -> None:
        self._town = town
        self._tenant = tenant
        self._by = Author("agent", "sleeper", "Leo")

    async def live(self) -> None:
        town, rng = self._town, self._town.rng
        while True:
            await asyncio.sleep(rng.uniform(0, 1.0))
            known = town.conversations.get(self._tenant, [])
            for conversation in rng.sample(known, min(len(known), 3)):
                until = town.now_ms + rng.choice([5, 40, 200, 800])
                command = c.UpdateConversation(conversation=conversation, by=self._by, snoozed_until=until)
                stream = f"cus_{conversation[4:23]}"
                town.cluster.outside(town.cluster.insist(c.Invocation(self._tenant, stream, command), patience=2))


class Intruder:
    """Knows ids of another tenant, some before their customers ever wrote, and must never learn more."""

    def __init__(self, town: Town, tenant: str, victim: str, streams: list[str]) -> None:
        self._town = town
        self._tenant = tenant
        self._victim = victim
        self._streams = streams

    async def live(self) -> None:
        town, rng = self._town, self._town.rng
        while town.step():
            stream = rng.choice(self._streams)
            command: c.AnyCommand = c.GetCustomer()
            known = town.conversations.get(self._victim, [])
            if known and rng.random() < 0.5:
                command = c.GetConversation(conversation=rng.choice(known))
                stream = f"cus_{command.conversation[4:23]}"
            answer = await town.cluster.insist(c.Invocation(self._tenant, stream, command), patience=3)
            if isinstance(answer, c.Done):
                town.history.broken.append(f"{self._tenant} was shown {stream} of {self._victim}")
            await asyncio.sleep(rng.expovariate(1 / 3))


class Administrator:
    """Changes a tenant's settings, with and without naming the revision it saw."""

    def __init__(self, town: Town, tenant: str) -> None:
        self._town = town
        self._tenant = tenant
        self._by = Author("agent", "admin", "Admin")
        self._seen: dict[str, int] = {}

    async def live(self) -> None:
        town, rng = self._town, self._town.rng
        while town.step():
            await asyncio.sleep(rng.expovariate(1 / 2))
            id = f"{self._tenant}-{rng.choice(['one', 'two'])}"
            command: c.AnyCommand
            if rng.random() < 0.75:
                revision = rng.choice([None, self._seen.get(id, 0)])
                document = town.fresh("document").encode()
                command = c.PutSetting(kind="channel", id=id, document=document, by=self._by, if_revision=revision)
            else:
                command = c.RemoveSetting(kind="channel", id=id, by=self._by)
            answer = await town.cluster.insist(c.Invocation(self._tenant, tenant_stream(self._tenant), command))
            if isinstance(answer, c.Done):
                self._seen[id] = 0 if isinstance(command, c.RemoveSetting) else answer.revision


def message_place(message: str) -> tuple[str, int]:
    split = split_message(message)
    assert split is not None
    return split
