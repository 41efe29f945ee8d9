"""Which shard owns which partition, and who is there at all.

Partitions are spread over *seats* by rendezvous hashing. A seat is a place for one shard on one node, such as
`node-a/0`; a standby that takes a dead shard's seat takes exactly its partitions, and a seat more or less moves only its
share.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

STANDBY = -1
Role = Literal["shard", "gateway"]


class Member(msgspec.Struct, array_like=True, frozen=True):
    """A process of the hub: where it listens, on which node it runs. `seat` is the number of a shard's seat there."""

    name: str
    role: Role
    node: str
    host: str = ""
    port: int = 0
    incarnation: int = 0
    seat: int = STANDBY


class Assignment(msgspec.Struct, array_like=True):
    """A higher version wins everywhere. `owners[p]` is the shard that owns partition p, empty while nobody does.

    `members` are alive. `moving` partitions are being given up by their owner, who must not open them again.
    `draining` nodes are to own nothing, for as long as they are the nodes they are.
    """

    version: int
    owners: list[str]
    members: list[Member] = []
    moving: list[int] = []
    draining: list[str] = []

    def of(self, shard: str) -> list[int]:
        return [partition for partition, owner in enumerate(self.owners) if owner == shard]

    def shards(self) -> list[Member]:
        return [member for member in self.members if member.role == "shard"]


encode_assignment = msgspec.msgpack.Encoder().encode
decode_assignment = msgspec.msgpack.Decoder(Assignment).decode


def seat_name(member: Member) -> str:
    return f"{member.node}/{member.seat}"


def assign(partitions: int, seats: list[str]) -> list[str]:
    """The seat of each partition: the one that weighs most, unless it has its share rounded up already.

    Partitions choose in the order of how much they want their first choice, so that whoever is turned away loses least
    and a change of seats upsets few.
    """
    bound = -(-partitions // len(seats))
    load = dict.fromkeys(seats, 0)
    wishes = {p: sorted(((_weight(p, seat), seat) for seat in seats), reverse=True) for p in range(partitions)}
    chosen = [""] * partitions
    for partition in sorted(range(partitions), key=lambda p: wishes[p][0], reverse=True):
        seat = next(seat for _, seat in wishes[partition] if load[seat] < bound)
        load[seat] += 1
        chosen[partition] = seat
    return chosen


def _weight(partition: int, seat: str) -> bytes:
    return hashlib.blake2b(f"{partition}\0{seat}".encode(), digest_size=8).digest()
