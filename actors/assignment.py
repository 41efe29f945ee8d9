"""Which shard owns which partition: rendezvous hashing, so that a shard more or less moves only its share."""

from __future__ import annotations

import hashlib

import msgspec


class Assignment(msgspec.Struct):
    """Versioned: a higher version wins everywhere. `owners[p]` is the shard name of partition p."""

    version: int
    owners: list[str]

    def of(self, shard: str) -> list[int]:
        return [partition for partition, owner in enumerate(self.owners) if owner == shard]


def assign(partitions: int, shards: list[str], version: int) -> Assignment:
    """Spread partitions over shards, none with more than its share rounded up."""
    bound = -(-partitions // len(shards))
    load = dict.fromkeys(shards, 0)
    owners = []
    for partition in range(partitions):
        ranked = sorted(shards, key=lambda shard: _weight(partition, shard), reverse=True)
        owner = next(shard for shard in ranked if load[shard] < bound)
        load[owner] += 1
        owners.append(owner)
    return Assignment(version, owners)


def _weight(partition: int, shard: str) -> bytes:
    return hashlib.blake2b(f"{partition}\0{shard}".encode(), digest_size=8).digest()
