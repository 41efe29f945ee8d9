"""A host in virtual time with a store whose calls can be held, failed or answered falsely, one by one.

Tests say what is asked, in which order the store answers, and what everybody is then told. Nothing sleeps.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from actors.host import Host
from actors.publication import Feed, decode_feeds
from actors.readers.courier import Traits
from channels.adapter import Outcome, Outgoing
from hub import commands as c
from hub.codec import decode_record
from hub.errors import StoreUnavailable
from hub.ids import customer_id, tenant_partition
from hub.model import Author
from hub.ports import Append, StreamImage, ViewBatch
from hub.sealing import Keyring
from hub.storage.memory import MemoryJournal, MemoryStore, MemoryViews
from tests.simulation.loop import EPOCH_MS, VirtualClock, VirtualLoop

KEYRING = Keyring(b"a secret of unit tests only")
TENANT = "acme"
ANA = Author("agent", "ana", "Ana")


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop that jumps from timer to timer."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        loop = VirtualLoop()
        try:
            loop.run_until_complete(test(*args, **kwargs))
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            for _ in range(10):
                loop.call_soon(loop.stop)
                loop.run_forever()
            loop.close()

    return run


class Gate:
    """Where calls of one kind stop until a test lets them pass, and learn how they end.

    `verdicts` are used up in order: None passes, "refuse" does nothing and raises, "lose" does it and raises.
    """

    def __init__(self) -> None:
        self.verdicts: list[str | None] = []
        self.calls = 0
        self._shut = False
        self._changed = asyncio.Condition()

    def shut(self) -> None:
        self._shut = True

    async def open(self) -> None:
        self._shut = False
        async with self._changed:
            self._changed.notify_all()

    async def reached(self, calls: int) -> None:
        """Return once that many calls have arrived here."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.calls >= calls)

    async def arrive(self) -> str | None:
        self.calls += 1
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: not self._shut)
        return self.verdicts.pop(0) if self.verdicts else None

    async def through(self, work: Callable[[], Awaitable[Any]]) -> Any:
        verdict = await self.arrive()
        if verdict == "refuse":
            raise StoreUnavailable
        done = await work()
        if verdict == "lose":
            raise StoreUnavailable
        return done


class GatedJournal(MemoryJournal):
    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self.appends = Gate()
        self.loads = Gate()
        self.acquires = Gate()

    async def append(self, appends: list[Append]) -> list[bool]:
        return await self.appends.through(lambda: MemoryJournal.append(self, appends))  # type: ignore[no-any-return]

    async def load(self, partition: int, streams: list[str]) -> list[StreamImage]:
        # The rows are read when the call begins; the answer may be long under way.
        found = await MemoryJournal.load(self, partition, streams)
        return await self.loads.through(functools.partial(asyncio.sleep, 0, found))  # type: ignore[no-any-return]

    async def acquire(self, partition: int, expected_epoch: int | None = None) -> Any:
        return await self.acquires.through(lambda: MemoryJournal.acquire(self, partition, expected_epoch))


class GatedViews(MemoryViews):
    def __init__(self) -> None:
        super().__init__()
        self.writes = Gate()
        self.batches: list[ViewBatch] = []

    async def apply(self, batch: ViewBatch) -> None:
        self.batches.append(batch)
        await self.writes.through(lambda: MemoryViews.apply(self, batch))


class GatedStore(MemoryStore):
    """One partition, so that every test knows where things are."""

    def __init__(self, partitions: int = 1) -> None:
        super().__init__(partitions)
        self.journal: GatedJournal = GatedJournal(partitions)
        self.snapshots._journal = self.journal
        self.checkpoints._journal = self.journal
        self.views: GatedViews = GatedViews()

    async def events(self, partition: int = 0) -> list[str]:
        """Names of what is in the journal."""
        names = []
        for record in await self.journal.read(partition, 0, 10_000):
            event = decode_record(record.body, stream=record.stream, offset=record.offset, cipher=None).event
            names.append(str(event.__struct_config__.tag))
        return names


class Provider:
    """A sender that answers what it is told to, "sent" when nothing is left to say."""

    def __init__(self, *, idempotent: bool = False, local: bool = False) -> None:
        self.outcomes: list[Outcome] = []
        self.sent: list[Outgoing] = []
        self.answers = Gate()
        self._traits = Traits(local=local, idempotent=idempotent)

    def traits(self, kind: str) -> Traits:
        return self._traits

    async def send(self, channel: str, kind: str, outgoing: Outgoing) -> Outcome:
        self.sent.append(outgoing)
        await self.answers.arrive()
        return self.outcomes.pop(0) if self.outcomes else Outcome("sent", external_id=f"ext-{len(self.sent)}")


class Rig:
    def __init__(self, store: GatedStore | None = None, provider: Provider | None = None, name: str = "one") -> None:
        self.loop = asyncio.get_running_loop()
        assert isinstance(self.loop, VirtualLoop)
        self.store = store or GatedStore()
        self.provider = provider or Provider()
        self.lost: list[int] = []
        self.feeds: list[Feed] = []
        self.subscriber = Gate()
        self.host = Host(
            name=name,
            incarnation=1,
            store=self.store,
            keyring=KEYRING,
            clock=VirtualClock(self.loop),
            sender=self.provider,
            on_lost=self.lost.append,
        )

    @classmethod
    async def started(cls, store: GatedStore | None = None, provider: Provider | None = None) -> Rig:
        rig = cls(store, provider)
        rig.host.start()
        await rig.host.open(list(range(rig.store.partitions)))
        return rig

    @property
    def now_ms(self) -> int:
        return EPOCH_MS + int(self.loop.time() * 1000)

    @property
    def partition(self) -> Any:
        return self.host.partitions[0]

    def attend(self, tenants: list[str]) -> None:
        async def receive(feeds: bytes) -> None:
            await self.subscriber.arrive()
            self.feeds += decode_feeds(feeds)

        self.host.publisher.attend("gateway", tenants, lambda gateway: receive)

    def begin(self, *commands: c.AnyCommand, tenant: str = TENANT) -> asyncio.Task[list[c.Answer]]:
        """Ask without waiting for the answers."""
        asked = [c.Invocation(tenant, stream_of(command, tenant), command) for command in commands]
        return self.loop.create_task(self.host.submit(asked))

    async def ask(self, command: c.AnyCommand, tenant: str = TENANT) -> c.Answer:
        [answer] = await self.begin(command, tenant=tenant)
        return answer

    async def done(self, command: c.AnyCommand, tenant: str = TENANT) -> c.Done:
        answer = await self.ask(command, tenant)
        assert isinstance(answer, c.Done), answer
        return answer

    async def refused(self, command: c.AnyCommand, tenant: str = TENANT) -> str:
        answer = await self.ask(command, tenant)
        assert isinstance(answer, c.Refused), answer
        return answer.code

    async def released(self, numbers: list[int]) -> None:
        await self.host.release(numbers)

    async def idle(self) -> None:
        """Let everything happen that needs no passing of time."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        """Virtual seconds: everybody's timers come first."""
        await asyncio.sleep(seconds)

    async def partition_is_back(self, number: int = 0) -> None:
        while number not in self.host.heads():
            await asyncio.sleep(0.01)
        await self.idle()


def stream(identity: str = "tel:+1", tenant: str = TENANT, partitions: int = 1) -> str:
    home = tenant_partition(tenant, partitions)
    return customer_id(secret=KEYRING.identity_secret, tenant=tenant, identity=identity, among=(home,))


def stream_of(command: c.AnyCommand, tenant: str) -> str:
    conversation = getattr(command, "conversation", None)
    if conversation is not None:
        return f"cus_{conversation[4:23]}"
    if isinstance(command, c.PutSetting | c.RemoveSetting):
        return f"ten_{tenant}"
    return stream(getattr(command, "identity", "tel:+1"), tenant)


def inbound(external_id: str, identity: str = "tel:+1", **more: Any) -> c.ReceiveMessage:
    fields = {"channel": "wa", "channel_kind": "plain", "text": "Hola", "address": identity[4:], **more}
    return c.ReceiveMessage(identity=identity, external_id=external_id, **fields)


def conversation(identity: str = "tel:+1", ordinal: int = 1) -> str:
    return f"cnv_{stream(identity)[4:]}-{ordinal}"


def reply(client_id: str, identity: str = "tel:+1", **more: Any) -> c.SendMessage:
    fields = {"author": ANA, "text": "Buenas", **more}
    return c.SendMessage(conversation=conversation(identity), client_id=client_id, **fields)


def update(identity: str = "tel:+1", **more: Any) -> c.UpdateConversation:
    return c.UpdateConversation(conversation=conversation(identity), by=ANA, **more)
