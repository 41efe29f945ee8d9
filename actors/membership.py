"""Who is there, and who owns what: the directory's decisions, without any I/O and with time handed in.

Shards and gateways join, beat, and are lost. What follows is decided by `decide`:

* A shard whose connection broke, or that does not beat (stopped, cut off), is dead to us. Its partitions get a new
  owner at once. Whether it really is dead does not matter: the store fences whoever writes with an old epoch.
* Each node has `seats` for shards. A shard without a seat is a standby; it takes the next seat that falls vacant on its
  node, with all its partitions.
* Where seats come or go, partitions move. A living owner is asked to release first, a few at a time, so that each is
  away for a moment only; one that does not answer in time is dispossessed.
* A draining node has no seats.

Nothing here is stored. A directory that is started again learns from those who join what the last assignment was.
"""

from __future__ import annotations

import msgspec

from actors.assignment import STANDBY, Assignment, Member, assign, seat_name
from hub.errors import Conflict

BEAT_EVERY_S = 0.25
BEAT_TIMEOUT_S = 2.5
ABSENCE_S = 1.0
LOST_GRACE_S = 0.1
"""A connection may break without its process dying; one that comes back this soon was never gone."""
FIRST_PATIENCE_S = 20.0
"""How long a new store's first shards are waited for, before those that are there divide everything among them."""
RETURN_PATIENCE_S = 2.0
"""How long a directory that was restarted waits for those it has heard of."""
RELEASE_TIMEOUT_S = 15.0
MOVES_MAX_AT_ONCE = 4
"""Partitions that one shard gives up at the same time."""


class Seat(msgspec.Struct):
    """A member as the directory knows it."""

    member: Member
    last_beat: float
    connected: bool = True
    lost_at: float = 0.0
    awaited_until: float = 0.0
    """It is known by hearsay only, and expected to join until then."""


class Membership:
    def __init__(self, partitions: int, *, seats: int, expected: int, now: float, era: int = 0) -> None:
        """`seats` for shards on each node; `expected` shards to wait for before the very first assignment.

        Versions are numbered from `era`, which is higher for every later directory: so its predecessors' words can be
        told from its own, whoever brings them in whatever order.
        """
        self._partitions = partitions
        self._seats_per_node = seats
        self._expected = expected
        self._began = now
        self._decided_at = now
        self._divided = False
        """The first assignment has been made, by us or before us."""
        self._era = era
        self._adopted = 0
        """The version of the predecessor's word that we go by."""
        self._seats: dict[str, Seat] = {}
        self._moving: dict[int, float] = {}
        self._targets: list[str] = []
        """The seat each partition is to have, for the seats in `_targets_of`."""
        self._targets_of: tuple[str, ...] = ()
        self.draining: set[str] = set()
        self.assignment = Assignment(era, [""] * partitions, since=[era] * partitions)
        self._told = self._said()

    # --- what is told ---------------------------------------------------------------------------------------------

    def join(self, member: Member, known: Assignment | None, now: float) -> None:
        """A process is there (again). `known`: the newest assignment it has seen.

        Raises Conflict where it is a predecessor of one that is here under its name: cut off, declared dead, and back.
        """
        held = self._seats.get(member.name)
        if held is not None and member.incarnation < held.member.incarnation:
            raise Conflict(f"{member.name} has been replaced by a later process")
        if known is not None and self._is_news(known, now):
            self._adopt(known, now)
            held = self._seats.get(member.name)
        same = held is not None and held.member.incarnation == member.incarnation
        seat = held.member.seat if held is not None and same else STANDBY
        self._seats[member.name] = Seat(msgspec.structs.replace(member, seat=seat), now)
        if held is not None and not same:
            # A new process under an old name knows nothing of what the old one had in memory.
            self._dispossess(member.name)

    def _is_news(self, known: Assignment, now: float) -> bool:
        """Whether it is a later word of a predecessor than the one we go by. Once we have decided for ourselves it is
        too late for that.
        """
        began = any(self.assignment.owners) and now - self._began > RETURN_PATIENCE_S
        foreign = (known.version < self._era and not began) or known.version > self.assignment.version
        return foreign and known.version > self._adopted and len(known.owners) == len(known.since) == self._partitions

    def _adopt(self, known: Assignment, now: float) -> None:
        """We were restarted: the last word of our predecessor holds, and those it knew are expected back."""
        self._adopted = known.version
        version = max(known.version, self.assignment.version) + 1
        self.assignment = Assignment(version, list(known.owners), list(known.members), since=list(known.since))
        self.draining |= set(known.draining)
        # What we decided before we knew is void: who owned nothing by then has no seat.
        self._moving.clear()
        for seat in self._seats.values():
            seat.member = msgspec.structs.replace(seat.member, seat=STANDBY)
        seats = {member.name: seat_name(member) for member in known.members if member.seat != STANDBY}
        self._targets_of, self._targets = (), [seats.get(owner, "") for owner in known.owners]
        self._told = self._said()
        self._divided = self._divided or any(known.owners)
        for member in known.members:
            if member.name not in self._seats:
                self._seats[member.name] = Seat(member, now, False, now, now + RETURN_PATIENCE_S)
            elif self._seats[member.name].member.incarnation == member.incarnation:
                self._seats[member.name].member = member

    def beat(self, name: str, now: float) -> None:
        seat = self._seats.get(name)
        if seat is not None:
            seat.last_beat = now

    def lost(self, name: str, now: float) -> None:
        """Its connection broke."""
        seat = self._seats.get(name)
        if seat is not None and seat.connected:
            seat.connected, seat.lost_at = False, now

    def drain(self, node: str) -> None:
        self.draining.add(node)

    def released(self, shard: str, partitions: list[int]) -> None:
        """The owner has given them up, or has refused to answer: either way somebody else may have them."""
        for partition in partitions:
            if self.assignment.owners[partition] == shard and self._moving.pop(partition, None) is not None:
                self.assignment.owners[partition] = ""

    def _dispossess(self, shard: str) -> None:
        for partition, owner in enumerate(self.assignment.owners):
            if owner == shard:
                self.assignment.owners[partition] = ""
                self._moving.pop(partition, None)

    # --- what follows ---------------------------------------------------------------------------------------------

    def decide(self, now: float) -> dict[str, list[int]]:
        """Bring the assignment up to date (a new version, where it changes); returns what to ask of whom to release."""
        self._excuse_our_own_absence(now)
        alive = {name: seat for name, seat in self._seats.items() if self._alive(seat, now)}
        self._forget_the_dead(alive)
        for name in {owner for owner in self.assignment.owners if owner and owner not in alive}:
            self._dispossess(name)
        self._take_seats(alive)
        releases = self._move(alive, now)
        members = sorted((seat.member for seat in alive.values()), key=lambda member: member.name)
        self.assignment.members, self.assignment.moving = members, sorted(self._moving)
        self.assignment.draining = sorted(self.draining)
        if self._told != self._said():
            self.assignment.version += 1
            before, self._told = self._told[0], self._said()
            for partition, owner in enumerate(self.assignment.owners):
                if owner != before[partition]:
                    self.assignment.since[partition] = self.assignment.version
        return releases

    def _said(self) -> tuple[list[str], list[Member], list[int], list[str]]:
        """What members are told, but for the version."""
        told = self.assignment
        return list(told.owners), told.members, told.moving, told.draining

    def _excuse_our_own_absence(self, now: float) -> None:
        """What came while this process stood still has not been read yet: that is nobody's death, and no refusal."""
        absence_s = now - self._decided_at
        if absence_s > ABSENCE_S:
            for seat in self._seats.values():
                seat.last_beat = max(seat.last_beat, now)
                if seat.awaited_until:
                    seat.awaited_until += absence_s
            for partition in self._moving:
                self._moving[partition] += absence_s
        self._decided_at = now

    def _alive(self, seat: Seat, now: float) -> bool:
        if seat.awaited_until:
            return now < seat.awaited_until
        if seat.connected:
            return now - seat.last_beat <= BEAT_TIMEOUT_S
        return now - seat.lost_at <= LOST_GRACE_S

    def _forget_the_dead(self, alive: dict[str, Seat]) -> None:
        """One that is connected and does not beat may be stopped, and go on one day; it has lost its seat."""
        for name, seat in list(self._seats.items()):
            if name in alive:
                continue
            if seat.connected:
                seat.member = msgspec.structs.replace(seat.member, seat=STANDBY)
            else:
                del self._seats[name]

    def _take_seats(self, alive: dict[str, Seat]) -> None:
        shards = [seat for _, seat in sorted(alive.items()) if seat.member.role == "shard"]
        for node in {seat.member.node for seat in shards}:
            here = [seat for seat in shards if seat.member.node == node]
            vacant = set(range(self._seats_per_node)) if node not in self.draining else set()
            for seat in here:
                if seat.member.seat in vacant:
                    vacant.discard(seat.member.seat)
                else:
                    seat.member = msgspec.structs.replace(seat.member, seat=STANDBY)
            standing = [seat for seat in here if seat.member.seat == STANDBY and not seat.awaited_until]
            for seat, number in zip(standing, sorted(vacant), strict=False):
                seat.member = msgspec.structs.replace(seat.member, seat=number)

    def _move(self, alive: dict[str, Seat], now: float) -> dict[str, list[int]]:
        seated = {seat_name(s.member): s.member.name for s in alive.values() if s.member.seat != STANDBY}
        if not seated or not self._enough(len(seated), now):
            return {}
        self._divided = True
        # Those we have only heard of may bring later news of who owns what.
        waiting = any(seat.awaited_until for seat in alive.values())
        releases: dict[str, list[int]] = {}
        owners = self.assignment.owners
        for partition, seat in enumerate(self._target(tuple(sorted(seated)))):
            owner, wanted = owners[partition], seated[seat]
            if not owner or now > self._moving.get(partition, now):
                self._moving.pop(partition, None)
                owners[partition] = wanted
            elif partition in self._moving or owner == wanted:
                # One that is being given up is waited for, even if its owner is to have it back: only then is it known
                # to be closed there, and opened again.
                continue
            elif self._moves_of(owner) < MOVES_MAX_AT_ONCE and not waiting:
                self._moving[partition] = now + RELEASE_TIMEOUT_S
                releases.setdefault(owner, []).append(partition)
        return releases

    def _moves_of(self, owner: str) -> int:
        return sum(self.assignment.owners[partition] == owner for partition in self._moving)

    def _target(self, seats: tuple[str, ...]) -> list[str]:
        if seats != self._targets_of:
            self._targets_of, self._targets = seats, assign(self._partitions, list(seats), self._targets)
        return self._targets

    def _enough(self, seated: int, now: float) -> bool:
        """Before the first assignment: everybody who is expected is there, or has been waited for long enough."""
        return self._divided or seated >= self._expected or now - self._began > FIRST_PATIENCE_S

    # --- what others ask ------------------------------------------------------------------------------------------

    def drained(self) -> list[str]:
        """Draining nodes that own nothing any more."""
        owners = set(self.assignment.owners)
        busy = {seat.member.node for seat in self._seats.values() if seat.member.name in owners}
        return sorted(self.draining - busy)

    def left(self) -> list[str]:
        """Draining nodes on which nobody is alive any more, gateways included: what they had begun is finished."""
        return sorted(self.draining - {member.node for member in self.assignment.members})
