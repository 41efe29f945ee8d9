"""The directory: a Ray actor that knows the assignment of partitions to shards."""

from __future__ import annotations

from typing import Any

from actors import processes
from actors.assignment import Assignment, assign

NAME = "hub-directory"


class Directory:
    """Stateless but for what it was made with: restarted, it says the same."""

    def __init__(self, partitions: int, shards: list[str]) -> None:
        self._assignment = assign(partitions, shards, version=1)

    async def assignment(self) -> tuple[int, list[str]]:
        return self._assignment.version, self._assignment.owners


def start(partitions: int, shards: list[str]) -> Any:
    return processes.spawn(Directory, NAME, partitions, shards, retries=-1)


async def lookup() -> Assignment:
    """The assignment as the directory has it now."""
    version, owners = await processes.find(NAME).assignment.remote()
    return Assignment(version, owners)
