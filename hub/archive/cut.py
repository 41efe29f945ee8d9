"""Where a restore to an earlier moment stops in each partition. Pure.

A cut never parts the events of one turn, which share stream and time: a customer whose conversation was opened but whose
message is missing never was. A cut that falls inside a turn moves to its end.
"""

from __future__ import annotations

from hub.archive.blocks import ArchiveError, Header
from hub.codec import decode_record
from hub.ports import StoredRecord


class Cut:
    """`positions`: the last offset wanted of each partition named; `until`: the last instant wanted (epoch ms)."""

    def __init__(self, positions: dict[int, int] | None = None, until: int | None = None) -> None:
        self._positions = positions or {}
        self._until = until
        self._turns: dict[int, tuple[str, int]] = {}
        self._shut: set[int] = set()
        self.moved: dict[int, int] = {}
        """Partitions whose cut moved to the end of a turn, and to which offset."""

    @property
    def everything(self) -> bool:
        return not self._positions and self._until is None

    def check(self, newest: Header) -> None:
        """Raises ArchiveError where a position is not in the archive."""
        for number, offset in self._positions.items():
            if number >= newest.partitions:
                raise ArchiveError(f"there is no partition {number}; the archive has {newest.partitions}, from 0 on")
            if offset > newest.heads[number]:
                raise ArchiveError(
                    f"partition {number} ends at {newest.heads[number]} in this archive, before {offset}"
                )

    def keep(self, partition: int, records: list[StoredRecord]) -> list[StoredRecord]:
        """The first of these records, all or none, in the order they are given from offset 1 on."""
        if self.everything:
            return records
        if partition in self._shut:
            return []
        for index, record in enumerate(records):
            if not self._wanted(partition, record):
                self._shut.add(partition)
                return records[:index]
        return records

    def _wanted(self, partition: int, record: StoredRecord) -> bool:
        last = self._positions.get(partition)
        if self._until is None and (last is None or record.offset < last):
            return True
        at = decode_record(record.body, stream=record.stream, offset=record.offset, cipher=None).at
        if self._until is not None and at > self._until:
            return False
        turn = (record.stream, at)
        if last is not None and record.offset > last:
            if last == 0 or self._turns.get(partition) != turn:
                return False
            self.moved[partition] = record.offset
        self._turns[partition] = turn
        return True
