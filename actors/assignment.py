"""Which shard owns which partition, and who is there at all.

Partitions are spread evenly over *seats*, by rendezvous hashing within what each may hold. A seat is a place for one
shard on one node, such as `node-a/0`; a standby that takes a dead shard's seat takes exactly its partitions, and a seat
more or less moves only its share.
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

    `members` are alive. `moving` partitions are being given up by their owner, who must not open them again. `since[p]` is
    the version that gave p to its owner: one that did not hear everything learns from it that somebody else had p meanwhile.
    `draining` nodes are to own nothing, for as long as they are the nodes they are.
    """

    version: int
    owners: list[str]
    members: list[Member] = []
    moving: list[int] = []
    since: list[int] = []
    draining: list[str] = []

    def of(self, shard: str) -> list[int]:
        return [partition for partition, owner in enumerate(self.owners) if owner == shard]

    def shards(self) -> list[Member]:
        return [member for member in self.members if member.role == "shard"]


encode_assignment = msgspec.msgpack.Encoder().encode
decode_assignment = msgspec.msgpack.Decoder(Assignment).decode


def seat_name(member: Member) -> str:
    return f"{member.node}/{member.seat}"


def assign(partitions: int, seats: list[str], before: list[str] | None = None) -> list[str]:
    """The seat of each partition; every seat has its share of them, rounded down or up.

    `before` is what held until now: a partition stays where it is unless its seat is gone, or has more than its share
    while another has less. So those of a vanished seat move and no others, and a new seat takes its share and no more.
    What moves goes where it weighs most, among the seats with room.
    """
    low, seats_of_high = divmod(partitions, len(seats))
    held: dict[str, list[int]] = {seat: [] for seat in seats}
    for partition, seat in enumerate(before or []):
        if seat in held:
            held[seat].append(partition)
    for seat, mine in held.items():
        mine.sort(key=lambda p: _weight(p, seat), reverse=True)
    # Those that hold most keep one more than the others, where it does not come out even.
    ranked = sorted(seats, key=lambda seat: (-len(held[seat]), seat))
    room = {seat: low + (rank < seats_of_high) for rank, seat in enumerate(ranked)}
    chosen = [""] * partitions
    for seat, mine in held.items():
        for partition in mine[: room[seat]]:
            chosen[partition] = seat
        room[seat] -= min(room[seat], len(mine))
    _seat_the_rest(chosen, room)
    return chosen


def _seat_the_rest(chosen: list[str], room: dict[str, int]) -> None:
    """Those that want their first choice most choose first, so that whoever is turned away loses least."""
    free = [p for p, seat in enumerate(chosen) if not seat]
    wishes = {p: sorted(((_weight(p, seat), seat) for seat in room if room[seat]), reverse=True) for p in free}
    for partition in sorted(free, key=lambda p: wishes[p][0], reverse=True):
        seat = next(seat for _, seat in wishes[partition] if room[seat])
        room[seat] -= 1
        chosen[partition] = seat


def _weight(partition: int, seat: str) -> bytes:
    return hashlib.blake2b(f"{partition}\0{seat}".encode(), digest_size=8).digest()
