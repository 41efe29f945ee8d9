"""The fencing of the MongoDB home against every order of events that hypothesis can think of.

Three processes want one partition. Whatever they send to the database may be done at once, later, or so late that its sender has
given up and gone on; its answer may be lost. Nothing acknowledged may be missing, nothing refused may be there, nobody may be
told that another took the partition while nobody did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from hub.errors import Fenced, StoreUnavailable
from hub.ports import Append, StoredRecord
from hub.storage.mongo.slots import Slot, Slots

SETTINGS = settings(max_examples=200, stateful_step_count=50, deadline=None, derandomize=True)
UNTIL_IT_FAILS = settings(SETTINGS, max_examples=2_000, phases=[Phase.generate], report_multiple_bugs=False)


class Operation:
    """Something sent to the database: `done` there at some time, `answered` at some later one, or never."""

    def __init__(self, work: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        self.work = work
        self.answer = answer
        self.done = False
        self.result: Any = None

    def do(self) -> None:
        self.done, self.result = True, self.work()


class Row:
    """One partition's slots, in memory. Nothing happens until the test says so."""

    def __init__(self) -> None:
        self.slots: dict[int, Slot] = {}
        self.operations: list[Operation] = []

    async def newest(self, partition: int) -> Slot | None:
        def look() -> Slot | None:
            slot = self.slots.get(max(self.slots, default=0))
            return Slot(slot.partition, slot.number, slot.epoch, slot.head, slot.batch, slot.by) if slot else None

        return await self._send(look)

    async def insert(self, slots: list[Slot]) -> list[bool]:
        return await self._send(lambda: [self.put(slot) for slot in slots])

    def put(self, slot: Slot) -> bool:
        if slot.number in self.slots:
            return False
        self.slots[slot.number] = slot
        return True

    async def _send(self, work: Callable[[], Any]) -> Any:
        operation = Operation(work, asyncio.get_running_loop().create_future())
        self.operations.append(operation)
        return await operation.answer

    def records(self) -> list[StoredRecord]:
        filled = [self.slots[number] for number in sorted(self.slots)]
        return [record for slot in filled if slot.append is not None for record in slot.append.records]


class Process:
    """Behaves as `actors.partition` does: after an unknown outcome it renews what it held before it appends again."""

    def __init__(self, name: str, row: Row) -> None:
        self.name = name
        self.slots = Slots(row, name)
        self.epoch: int | None = None
        self.next_offset = 0
        self.unsure = False
        self.task: asyncio.Task[Any] | None = None
        self.sent: list[StoredRecord] = []


class Contest(RuleBasedStateMachine):
    row_type: type[Row] = Row

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.row = self.row_type()
        self.processes = [Process(name, self.row) for name in ("a", "b", "c")]
        self.acknowledged: list[StoredRecord] = []
        self.refused: set[bytes] = set()
        self.bodies = 0

    # --- what processes do --------------------------------------------------------------------------------------------

    @rule(
        who=st.integers(0, 2),
        wish=st.sampled_from(("append", "append", "append", "renew", "acquire")),
        count=st.integers(1, 3),
    )
    def begin(self, who: int, wish: str, count: int) -> None:
        process = self.processes[who]
        if process.task is not None:
            return
        if process.epoch is None or wish == "acquire":
            process.epoch = None
            self._begin(process, process.slots.acquire(1))
        elif process.unsure or wish == "renew":
            self._begin(process, process.slots.acquire(1, process.epoch))
        else:
            first = process.next_offset
            process.sent = [StoredRecord(first + n, "s", b"%d" % (self.bodies + n)) for n in range(count)]
            self.bodies += count
            self._begin(process, process.slots.append([Append(1, process.epoch, first, process.sent)]))

    def _begin(self, process: Process, work: Any) -> None:
        process.task = self.loop.create_task(work)
        self._settle()

    # --- what the database and the network do -------------------------------------------------------------------------

    @precondition(lambda self: self.row.operations)
    @rule(data=st.data())
    def do(self, data: st.DataObject) -> None:
        waiting = [o for o in self.row.operations if not o.done]
        if waiting:
            data.draw(st.sampled_from(waiting)).do()

    @precondition(lambda self: self.row.operations)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """The usual: done, and heard of."""
        open_ones = [o for o in self.row.operations if not o.answer.done()]
        if open_ones:
            operation = data.draw(st.sampled_from(open_ones))
            if not operation.done:
                operation.do()
            operation.answer.set_result(operation.result)
            self._settle()

    @precondition(lambda self: self.row.operations)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """Given up, whether it has been done, will be, or never."""
        open_ones = [o for o in self.row.operations if not o.answer.done()]
        if open_ones:
            data.draw(st.sampled_from(open_ones)).answer.set_exception(StoreUnavailable())
            self._settle()

    def _settle(self) -> None:
        async def turns() -> None:
            for _ in range(10):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        self.row.operations = [o for o in self.row.operations if not (o.done and o.answer.done())]
        for process in self.processes:
            if process.task is not None and process.task.done():
                task, process.task = process.task, None
                self._finish(process, task)

    def _finish(self, process: Process, task: asyncio.Task[Any]) -> None:
        error = task.exception()
        if isinstance(error, StoreUnavailable):
            process.unsure, process.sent = True, []
        elif isinstance(error, Fenced):
            self._lost(process)
        elif error is not None:
            raise error
        elif isinstance(task.result(), Slot):
            process.epoch, process.next_offset = task.result().epoch, task.result().head + 1
            process.unsure = False
        elif task.result()[0] == [True]:
            self.acknowledged += process.sent
            process.next_offset += len(process.sent)
        else:
            self.refused |= {record.body for record in process.sent}
            self._lost(process)

    def _lost(self, process: Process) -> None:
        held = process.epoch or 0
        taken = [s for s in self.row.slots.values() if s.append is None and s.epoch > held and s.by != process.name]
        assert taken, f"{process.name} was told that epoch {held} is over, and nobody took it"
        process.epoch = None

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def slots_are_filled_in_order(self) -> None:
        filled = [self.row.slots[number] for number in sorted(self.row.slots)]
        assert [slot.number for slot in filled] == list(range(1, len(filled) + 1))
        epochs = [slot.epoch for slot in filled]
        assert epochs == sorted(epochs)
        fences = [slot.epoch for slot in filled if slot.append is None]
        assert fences == list(range(1, len(fences) + 1))

    @invariant()
    def the_journal_has_what_was_acknowledged_and_nothing_refused(self) -> None:
        records = self.row.records()
        assert [record.offset for record in records] == list(range(1, len(records) + 1))
        bodies = [record.body for record in records]
        assert len(bodies) == len(set(bodies))
        assert not self.refused & set(bodies)
        for record in self.acknowledged:
            assert records[record.offset - 1 : record.offset] == [record]

    def teardown(self) -> None:
        """Whatever is still on its way lands after all."""
        for operation in self.row.operations:
            if not operation.done:
                operation.do()
        self.slots_are_filled_in_order()
        self.the_journal_has_what_was_acknowledged_and_nothing_refused()
        self.loop.run_until_complete(self._abandon())
        self.loop.close()

    async def _abandon(self) -> None:
        tasks = [process.task for process in self.processes if process.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


Contest.TestCase.settings = SETTINGS
TestContest = Contest.TestCase


class OverwritingRow(Row):
    """A database that replaces instead of refusing: what a lost unique index would do."""

    def put(self, slot: Slot) -> bool:
        self.slots[slot.number] = slot
        return True


class OverwrittenContest(Contest):
    row_type = OverwritingRow


def test_the_contest_notices_a_database_that_does_not_refuse() -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(OverwrittenContest, settings=UNTIL_IT_FAILS)


class TrustingSlots(Slots):
    """One that goes on after an append with an unknown outcome, as if it had failed."""

    def forsake(self, slots: list[Slot]) -> None:
        super().forsake(slots)
        self._broken.clear()


class TrustingContest(Contest):
    def __init__(self) -> None:
        super().__init__()
        for process in self.processes:
            process.slots = TrustingSlots(self.row, process.name)

    def _finish(self, process: Process, task: asyncio.Task[Any]) -> None:
        super()._finish(process, task)
        process.unsure = False


def test_the_contest_notices_an_owner_that_does_not_acquire_again() -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(TrustingContest, settings=UNTIL_IT_FAILS)
