"""Who may write a partition's journal next, decided by one insert.

A partition's journal is a row of numbered *slots*, filled in order, each by one document that is inserted once and whose
`_id` is its place. Two kinds fill them:

    batch   the records of one append, of epoch e; after it the partition ends at their last offset
    fence   the beginning of epoch e + 1

An owner knows the newest slot and writes the one after it. Whoever takes the partition inserts a fence there. So a stale
owner's append, however late it arrives, meets a slot that is taken, and the database refuses it as a duplicate. One
document is the whole commit: there is nothing to be half-done, and no clock and no lock is involved.

An insert whose answer is lost may land at any later time, into its own slot only. That is safe as nobody writes two
different batches to one slot under one epoch: after an unknown outcome an owner appends nothing until it has acquired again.
The fence that takes is then either in the same slot (and the lost append never lands), or behind it (and it did land).

Nothing here knows MongoDB: `Log` is all that it takes, so the rules can be tested against every order of events.
"""

from __future__ import annotations

import secrets
from typing import Protocol

import msgspec

from hub.errors import Fenced, StoreUnavailable
from hub.ports import Append

ACQUIRE_ATTEMPTS_MAX = 20


class Slot(msgspec.Struct, frozen=True):
    """What fills a place: `head` is the offset of the partition's newest record then."""

    partition: int
    number: int
    epoch: int
    head: int
    batch: int
    """Number of the newest batch: this one, or for a fence the one before it (0 where there is none)."""
    by: str = ""
    """Who inserted a fence; a batch has its owner's epoch."""
    append: Append | None = None
    """What a batch holds, when it is written; not filled in by `Log.newest`."""


class Log(Protocol):
    async def newest(self, partition: int) -> Slot | None:
        """The slot with the highest number, as the database has it this moment."""
        ...

    async def insert(self, slots: list[Slot]) -> list[bool]:
        """Each in one step, at most one a partition. False where the place is taken. Durable when it returns."""
        ...


class Slots:
    """One process's part in the row of slots. `name` tells its fences from everybody else's."""

    def __init__(self, log: Log, name: str | None = None) -> None:
        self._log = log
        self._name = name or secrets.token_hex(8)
        self._newest: dict[int, Slot] = {}
        self._unsure: dict[int, tuple[int, set[int]]] = {}
        """By partition: the epoch we held, and those that fences of ours with a lost answer may have begun."""
        self._broken: dict[int, int] = {}
        """By partition: the epoch under which an append had an unknown outcome."""

    async def acquire(self, partition: int, expected_epoch: int | None = None) -> Slot:
        """The fence that is ours. Raises Fenced, StoreUnavailable."""
        self._newest.pop(partition, None)
        for _ in range(ACQUIRE_ATTEMPTS_MAX):
            newest = await self._log.newest(partition) or Slot(partition, 0, 0, 0, 0)
            if expected_epoch is not None and not self._is_ours(newest, expected_epoch):
                raise Fenced
            fence = Slot(partition, newest.number + 1, newest.epoch + 1, newest.head, newest.batch, self._name)
            self._note_attempt(fence, expected_epoch)
            [taken] = await self._log.insert([fence])
            if taken:
                self._newest[partition] = fence
                self._unsure.pop(partition, None)
                self._broken.pop(partition, None)
                return fence
        raise StoreUnavailable(f"partition {partition} is being taken again and again", retry_after_s=0.1)

    def _note_attempt(self, fence: Slot, expected_epoch: int | None) -> None:
        if expected_epoch is None:
            return
        held, epochs = self._unsure.get(fence.partition, (expected_epoch, set()))
        self._unsure[fence.partition] = (
            expected_epoch,
            epochs | {fence.epoch} if held == expected_epoch else {fence.epoch},
        )

    def _is_ours(self, newest: Slot, expected_epoch: int) -> bool:
        """Nobody else took it since `expected_epoch`: at most we did, and did not hear of it."""
        if newest.epoch == expected_epoch:
            return True
        held, epochs = self._unsure.get(newest.partition, (0, set()))
        return newest.by == self._name and held == expected_epoch and newest.epoch in epochs

    async def append(self, appends: list[Append]) -> tuple[list[bool], list[Slot]]:
        """One bool for each, and the slots now filled. Raises StoreUnavailable: then any of them may have got in, or will."""
        outcomes = [False] * len(appends)
        filled: list[Slot] = []
        waiting = list(enumerate(appends))
        while waiting:
            # One of each partition at a time: the next one's slot depends on whether this one got in.
            turn: dict[int, tuple[int, Append]] = {}
            later = []
            for index, append in waiting:
                if turn.setdefault(append.partition, (index, append))[0] != index:
                    later.append((index, append))
            waiting = later
            for index, slot in await self._append_once(list(turn.values())):
                outcomes[index] = True
                filled.append(slot)
        return outcomes, filled

    async def _append_once(self, appends: list[tuple[int, Append]]) -> list[tuple[int, Slot]]:
        slots = [(index, slot) for index, append in appends if (slot := await self._following(append)) is not None]
        if not slots:
            return []
        for _, slot in slots:
            self._newest.pop(slot.partition, None)
        try:
            taken = await self._log.insert([slot for _, slot in slots])
        except BaseException:
            self.forsake([slot for _, slot in slots])
            raise
        got = [pair for pair, ok in zip(slots, taken, strict=True) if ok]
        for _, slot in got:
            self._newest[slot.partition] = slot
        return got

    async def _following(self, append: Append) -> Slot | None:
        """The slot that `append` may try to fill, or None where it is stale or does not continue the journal."""
        number = append.partition
        if not append.records:
            raise ValueError("an append without records")
        if self._broken.get(number) == append.epoch:
            raise StoreUnavailable(f"partition {number} must be acquired again: a write is unaccounted for")
        newest = self._newest.get(number)
        if newest is None or not _fits(append, newest):
            newest = await self._log.newest(number)
        if newest is None or not _fits(append, newest):
            return None
        place = newest.number + 1
        head = newest.head + len(append.records)
        return Slot(number, place, append.epoch, head, place, append=append)

    def disown(self, fence: Slot, expected_epoch: int | None) -> None:
        """The epoch that `fence` began is over before anybody was told; who expected the one before may still go on from it."""
        self.forsake([fence])
        self._note_attempt(fence, expected_epoch)

    def forsake(self, slots: list[Slot]) -> None:
        """These epochs are over for us: what became of these slots is not known, or not known in full."""
        for slot in slots:
            self._newest.pop(slot.partition, None)
            self._broken[slot.partition] = slot.epoch


def _fits(append: Append, newest: Slot) -> bool:
    return newest.epoch == append.epoch and newest.head + 1 == append.first_offset
