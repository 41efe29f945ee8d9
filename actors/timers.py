"""Timers: one heap for each partition, of what its conversations wait for.

A timer is not a fact; the conversation's state is. The heap only says when to ask. Rebuilt from the views
when a partition is opened, so that what fell due meanwhile fires then, once.
"""

from __future__ import annotations

import heapq


class Timers:
    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._due: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._due)

    def set(self, name: str, due: int | None) -> None:
        """`due` in epoch ms; None forgets it."""
        if due == self._due.get(name):
            return
        if due is None:
            del self._due[name]
        else:
            self._due[name] = due
            heapq.heappush(self._heap, (due, name))

    def set_again(self, name: str, due: int) -> None:
        """After a timer could not be fired. What the conversation has asked for meanwhile comes first."""
        if name not in self._due:
            self.set(name, due)

    def next_due(self) -> int | None:
        """When the earliest timer is due, stale ones skipped."""
        while self._heap:
            due, name = self._heap[0]
            if self._due.get(name) == due:
                return due
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: int) -> list[tuple[str, int]]:
        """(name, due) of every timer due by `now`, earliest first; they are forgotten."""
        fired = []
        while (due := self.next_due()) is not None and due <= now:
            _, name = heapq.heappop(self._heap)
            del self._due[name]
            fired.append((name, due))
        return fired

    def clear(self) -> None:
        self._heap.clear()
        self._due.clear()
