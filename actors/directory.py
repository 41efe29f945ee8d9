"""The directory: a Ray actor that knows the assignment of partitions to shards."""

from __future__ import annotations

import ray

from actors.assignment import Assignment, assign

NAMESPACE = "hub"
NAME = "hub-directory"


class Directory:
    """Stateless but for what it was made with: restarted, it says the same."""

    def __init__(self, partitions: int, shards: list[str]) -> None:
        self._assignment = assign(partitions, shards, version=1)

    async def assignment(self) -> tuple[int, list[str]]:
        return self._assignment.version, self._assignment.owners


def start(partitions: int, shards: list[str]) -> ray.actor.ActorHandle:
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Directory)
    return actor.options(name=NAME, namespace=NAMESPACE).remote(partitions, shards)


async def lookup() -> Assignment:
    """The assignment as the directory has it now."""
    version, owners = await ray.get_actor(NAME, namespace=NAMESPACE).assignment.remote()
    return Assignment(version, owners)
