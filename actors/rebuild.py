"""Lists, settings and the courier's place, made from the journal without serving.

A hub does the same when it opens a partition. After a restore it is done at once, so that the first start is as quick as any.
"""

from __future__ import annotations

from actors.partition import Partition
from actors.readers.courier import Courier, Traits
from actors.readers.views import ViewsReader
from channels.adapter import Outcome, Outgoing
from hub.clock import Clock
from hub.commands import Answer, Invocation
from hub.errors import Unavailable
from hub.ports import Store
from hub.sealing import Keyring


class _NothingLeaves:
    """What the courier would send, were it started. It is not."""

    def traits(self, kind: str) -> Traits:
        return Traits(local=False, idempotent=False)

    async def send(self, channel: str, kind: str, outgoing: Outgoing) -> Outcome:
        return Outcome("retry")


async def rebuild(store: Store, keyring: Keyring, clock: Clock) -> None:
    """Takes each partition in turn: a hub that owns it is fenced. Raises StoreUnavailable, Internal (another secret)."""
    for number in range(store.partitions):
        if await store.journal.head(number):
            await _rebuild(store, keyring, clock, number)


async def _rebuild(store: Store, keyring: Keyring, clock: Clock, number: int) -> None:
    partition = Partition(
        number,
        store=store,
        keyring=keyring,
        clock=clock,
        wake_committer=lambda _: None,
        on_entries=lambda *_: None,
        on_closed=lambda _: None,
    )
    await partition.open()
    await ViewsReader(store).open(partition)
    courier = Courier(store=store, sender=_NothingLeaves(), ask=_nobody_answers)
    await courier.open(partition)
    await courier.save_checkpoints()
    partition.close(Unavailable("the lists are rebuilt"))


async def _nobody_answers(invocation: Invocation) -> Answer:
    raise Unavailable("nothing is served here")
