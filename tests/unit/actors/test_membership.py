"""Who owns what: first assignment, deaths, standbys, moves, drains, and a directory that forgot everything."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import membership as rules
from actors.assignment import STANDBY, Assignment, Member, assign
from actors.membership import (
    BEAT_EVERY_S,
    BEAT_TIMEOUT_S,
    FIRST_PATIENCE_S,
    LOST_GRACE_S,
    MOVES_MAX_AT_ONCE,
    RELEASE_TIMEOUT_S,
    RETURN_PATIENCE_S,
    Membership,
)
from hub.errors import Conflict

PARTITIONS = 16
TICK_S = 0.05


def shard(name: str, node: str = "a", incarnation: int = 1) -> Member:
    return Member(name, "shard", node, "127.0.0.1", 1, incarnation)


class Directory:
    """Membership in virtual time; whoever has joined beats until it dies, and releases are answered when told to."""

    def __init__(self, *, seats: int = 2, expected: int = 2, now: float = 0.0) -> None:
        self.now = now
        self.of = Membership(PARTITIONS, seats=seats, expected=expected, now=now, era=int(now * 1000))
        self.beating: set[str] = set()
        self.asked: list[tuple[str, int]] = []
        self.most_at_once = 0
        self.answers = True
        self.versions = [0]

    def join(self, *members: Member, known: Assignment | None = None) -> None:
        for member in members:
            self.of.join(member, known, self.now)
            self.beating.add(member.name)
        self.decide()

    def decide(self) -> None:
        before = copy(self.of.assignment)
        for owner, partitions in self.of.decide(self.now).items():
            self.asked += [(owner, partition) for partition in partitions]
        after = self.of.assignment
        assert after.version >= self.versions[-1]
        changed = (before.owners, before.members, before.moving) != (after.owners, after.members, after.moving)
        assert (after.version > before.version) or not changed
        self.versions.append(after.version)
        for owner in set(after.owners):
            moving = sum(after.owners[partition] == owner for partition in after.moving)
            self.most_at_once = max(self.most_at_once, moving)

    def lose(self, *names: str) -> None:
        for name in names:
            self.beating.discard(name)
            self.of.lost(name, self.now)

    def stop(self, name: str) -> None:
        self.beating.discard(name)

    def release(self) -> None:
        asked, self.asked = self.asked, []
        for owner, partition in asked:
            self.of.released(owner, [partition])
        self.decide()

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += TICK_S
            for name in self.beating:
                self.of.beat(name, self.now)
            self.decide()
            if self.answers:
                self.release()

    @property
    def owners(self) -> list[str]:
        return list(self.of.assignment.owners)

    def owned(self, name: str) -> list[int]:
        return self.of.assignment.of(name)

    def seats(self) -> dict[str, int]:
        return {member.name: member.seat for member in self.of.assignment.shards()}


def copy(assignment: Assignment) -> Assignment:
    return Assignment(
        assignment.version,
        list(assignment.owners),
        list(assignment.members),
        list(assignment.moving),
        list(assignment.since),
    )


def moved(before: list[str], after: list[str]) -> list[int]:
    return [partition for partition, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]


def a_pair_with_a_standby() -> Directory:
    directory = Directory()
    directory.join(shard("s0"), shard("s1"), shard("s2"))
    directory.run(1)
    return directory


# --- the first assignment -----------------------------------------------------------------------------------------


def test_the_first_assignment_waits_for_all_who_are_expected() -> None:
    directory = Directory()
    directory.join(shard("s0"))
    directory.run(5)
    assert set(directory.owners) == {""}
    directory.join(shard("s1"))
    assert set(directory.owners) == {"s0", "s1"}
    assert len(directory.owned("s0")) == len(directory.owned("s1")) == PARTITIONS // 2


def test_but_not_for_ever() -> None:
    directory = Directory()
    directory.join(shard("s0"))
    directory.run(FIRST_PATIENCE_S + 1)
    assert set(directory.owners) == {"s0"}


def test_gateways_own_nothing() -> None:
    directory = Directory(expected=1)
    directory.join(Member("g0", "gateway", "a"), shard("s0"))
    assert set(directory.owners) == {"s0"}
    assert [member.name for member in directory.of.assignment.members] == ["g0", "s0"]


# --- deaths -------------------------------------------------------------------------------------------------------


def test_a_standby_takes_exactly_what_the_dead_shard_had() -> None:
    directory = a_pair_with_a_standby()
    before, had = directory.owners, directory.owned("s1")
    directory.lose("s1")
    directory.run(LOST_GRACE_S + 2 * TICK_S)
    assert directory.owned("s2") == had == moved(before, directory.owners)
    assert directory.of.assignment.moving == []
    assert directory.asked == []


def test_a_connection_that_is_back_at_once_was_never_lost() -> None:
    directory = a_pair_with_a_standby()
    before = directory.owners
    directory.lose("s1")
    directory.run(TICK_S)
    directory.join(shard("s1"))
    directory.run(5)
    assert directory.owners == before


def test_a_process_that_is_back_at_once_under_its_old_name_starts_anew() -> None:
    """It knows nothing of what it had: it is given the partitions in a new version, so that it opens them."""
    directory = a_pair_with_a_standby()
    version = directory.of.assignment.version
    directory.join(shard("s1", incarnation=2))
    directory.run(1)
    assert directory.of.assignment.version > version
    assert "" not in directory.owners
    assert len(set(directory.seats().values()) - {STANDBY}) == 2


def test_a_process_that_was_replaced_cannot_come_back() -> None:
    directory = a_pair_with_a_standby()
    directory.join(shard("s1", incarnation=5))
    with pytest.raises(Conflict, match="replaced"):
        directory.join(shard("s1", incarnation=4))


def test_without_a_standby_the_others_share_what_the_dead_shard_had_and_keep_what_is_theirs() -> None:
    directory = Directory(seats=1, expected=4)
    directory.join(*(shard(f"s{n}", node=f"n{n}") for n in range(4)))
    before, had = directory.owners, directory.owned("s3")
    directory.lose("s3")
    directory.run(5)
    assert moved(before, directory.owners) == had
    assert max(len(directory.owned(f"s{n}")) for n in range(3)) <= -(-PARTITIONS // 3)


def test_a_stopped_shard_is_replaced_and_is_a_standby_when_it_goes_on() -> None:
    directory = a_pair_with_a_standby()
    had = directory.owned("s1")
    directory.stop("s1")
    directory.run(BEAT_TIMEOUT_S + 2 * TICK_S)
    assert directory.owned("s2") == had
    assert "s1" not in directory.seats()
    before = directory.owners
    directory.beating.add("s1")
    directory.run(1)
    assert directory.seats()["s1"] == STANDBY
    assert directory.owners == before


def test_a_shard_that_returns_takes_the_next_vacant_seat() -> None:
    directory = a_pair_with_a_standby()
    directory.lose("s1")
    directory.run(1)
    directory.join(shard("s1", incarnation=2))
    assert directory.seats() == {"s0": 0, "s1": STANDBY, "s2": 1}
    had = directory.owned("s0")
    directory.lose("s0")
    directory.run(1)
    assert directory.owned("s1") == had


def test_when_a_node_dies_its_partitions_go_to_the_others_and_nothing_else_moves() -> None:
    directory = Directory(expected=6)
    directory.join(*(shard(f"{node}{n}", node=node) for node in "abc" for n in range(2)))
    before = directory.owners
    directory.lose("b0", "b1")
    directory.run(5)
    assert moved(before, directory.owners) == [p for p, owner in enumerate(before) if owner in ("b0", "b1")]
    assert not any(owner.startswith("b") for owner in directory.owners)


def test_our_own_absence_is_nobodys_death() -> None:
    directory = a_pair_with_a_standby()
    before = directory.owners
    directory.now += 60
    directory.decide()
    assert directory.owners == before
    directory.run(5)
    assert directory.owners == before


def test_nor_is_it_a_refusal_to_release() -> None:
    directory = Directory(seats=1, expected=1)
    directory.join(shard("s0", node="a"))
    directory.answers = False
    directory.join(shard("s1", node="b"))
    directory.now += RELEASE_TIMEOUT_S + 60
    directory.decide()
    assert directory.owned("s1") == []
    directory.release()
    assert len(directory.owned("s1")) == MOVES_MAX_AT_ONCE


# --- moves --------------------------------------------------------------------------------------------------------


def test_a_new_node_gets_its_share_piece_by_piece_and_nothing_else_moves() -> None:
    directory = Directory(seats=1, expected=3)
    directory.join(*(shard(f"s{n}", node=f"n{n}") for n in range(3)))
    before = directory.owners
    directory.answers = False
    directory.join(shard("s3", node="n3"))
    directory.run(1)
    assert directory.owners == before
    directory.answers = True
    directory.run(5)
    assert moved(before, directory.owners) == directory.owned("s3")
    assert len(directory.owned("s3")) == PARTITIONS // 4
    assert directory.most_at_once <= MOVES_MAX_AT_ONCE


def test_what_is_being_given_up_is_said_so_that_its_owner_does_not_open_it_again() -> None:
    directory = Directory(seats=1, expected=1)
    directory.join(shard("s0", node="a"))
    directory.answers = False
    directory.join(shard("s1", node="b"))
    assert len(directory.of.assignment.moving) == MOVES_MAX_AT_ONCE
    assert directory.asked == [("s0", partition) for partition in directory.of.assignment.moving]
    assert directory.owned("s1") == []


def test_a_release_that_is_never_answered_is_taken_as_given() -> None:
    directory = Directory(seats=1, expected=1)
    directory.join(shard("s0", node="a"))
    directory.answers = False
    directory.join(shard("s1", node="b"))
    directory.run(RELEASE_TIMEOUT_S - 1)
    assert directory.owned("s1") == []
    directory.run(2)
    assert len(directory.owned("s1")) == MOVES_MAX_AT_ONCE


def test_a_seat_that_changes_twice_during_a_release_leaves_one_owner_with_everything_open() -> None:
    """The releasing owner gets its partition back only when it is known to have closed it, in a new version."""
    directory = Directory(seats=1, expected=1)
    directory.join(shard("s0", node="a"))
    directory.answers = False
    directory.join(shard("s1", node="b"))
    giving = list(directory.of.assignment.moving)
    directory.lose("s1")
    directory.run(1)
    assert (directory.owners, directory.of.assignment.moving) == (["s0"] * PARTITIONS, giving)
    version = directory.of.assignment.version
    directory.release()
    assert (directory.owners, directory.of.assignment.moving) == (["s0"] * PARTITIONS, [])
    assert directory.of.assignment.version > version


def test_an_answer_to_a_release_that_is_over_changes_nothing() -> None:
    directory = a_pair_with_a_standby()
    before = directory.owners
    directory.of.released("s0", directory.owned("s0"))
    directory.of.released("s1", directory.owned("s0"))
    directory.decide()
    assert directory.owners == before


# --- drains -------------------------------------------------------------------------------------------------------


def test_a_draining_node_gives_everything_up_and_tells_when_it_has() -> None:
    directory = Directory(expected=4)
    directory.join(*(shard(f"{node}{n}", node=node) for node in "ab" for n in range(2)))
    directory.answers = False
    directory.of.drain("a")
    directory.run(1)
    assert directory.of.drained() == []
    directory.answers = True
    directory.run(10)
    assert {owner[0] for owner in directory.owners} == {"b"}
    assert directory.of.drained() == ["a"]
    assert directory.most_at_once <= MOVES_MAX_AT_ONCE
    assert {seat for name, seat in directory.seats().items() if name[0] == "a"} == {STANDBY}


def test_who_joins_a_draining_node_gets_no_seat() -> None:
    directory = Directory(expected=2)
    directory.join(shard("a0"), shard("b0", node="b"))
    directory.of.drain("a")
    directory.run(5)
    directory.join(shard("a1"))
    directory.run(5)
    assert set(directory.owners) == {"b0"}


def test_the_last_node_keeps_everything_where_there_is_nobody_to_give_it_to() -> None:
    directory = Directory(expected=1)
    directory.join(shard("a0"))
    directory.of.drain("a")
    directory.run(30)
    assert set(directory.owners) == {"a0"}
    assert directory.of.drained() == []


# --- a directory that was restarted -------------------------------------------------------------------------------


def test_a_restarted_directory_goes_on_where_its_predecessor_was() -> None:
    old = a_pair_with_a_standby()
    known = copy(old.of.assignment)
    stale = Assignment(known.version - 1, ["s1"] * PARTITIONS, known.members, since=known.since)
    new = Directory(now=100.0)
    new.join(shard("s2"), known=stale)
    new.join(shard("s0"), known=known)
    new.join(shard("s1"), known=stale)
    new.run(10)
    assert new.owners == known.owners
    assert new.of.assignment.version >= known.version
    assert new.seats() == old.seats()


def test_it_waits_for_those_it_has_heard_of_and_replaces_those_that_do_not_come() -> None:
    old = a_pair_with_a_standby()
    known = copy(old.of.assignment)
    had = known.of("s1")
    new = Directory(now=100.0)
    new.join(shard("s2"), shard("s0"), known=known)
    new.run(RETURN_PATIENCE_S - 0.2)
    assert new.owners == known.owners
    new.run(0.5)
    assert new.owned("s2") == had
    assert new.owned("s0") == known.of("s0")
    assert new.of.assignment.version > known.version


def test_one_it_has_not_heard_of_does_not_take_the_seat_of_one_it_will() -> None:
    old = a_pair_with_a_standby()
    known = copy(old.of.assignment)
    new = Directory(now=100.0)
    new.join(shard("newcomer"))
    new.join(shard("s0"), known=known)
    new.join(shard("s1"), shard("s2"), known=known)
    new.run(10)
    assert new.owners == known.owners


def test_a_shard_that_was_restarted_meanwhile_opens_its_partitions_anew() -> None:
    old = a_pair_with_a_standby()
    known = copy(old.of.assignment)
    new = Directory(now=100.0)
    new.join(shard("s0"), known=known)
    new.join(shard("s1", incarnation=2))
    new.run(5)
    assert new.of.assignment.version > known.version
    assert sorted(new.seats().values()) == [STANDBY, 1] or "" not in new.owners


def test_an_assignment_for_another_number_of_partitions_is_not_believed() -> None:
    directory = Directory(expected=1)
    directory.join(shard("s0"), known=Assignment(99, ["s0"], [shard("s0")]))
    assert directory.owners == ["s0"] * PARTITIONS


# --- spreading ----------------------------------------------------------------------------------------------------

counts = st.integers(1, 300)
seat_names = st.lists(st.integers(0, 60), min_size=1, max_size=20, unique=True).map(
    lambda numbers: [f"n{n // 2}/{n % 2}" for n in numbers]
)


@settings(max_examples=100, deadline=None)
@given(counts, seat_names)
def test_every_seat_has_its_share_rounded_down_or_up_and_order_does_not_matter(count: int, seats: list[str]) -> None:
    chosen = assign(count, seats)
    assert chosen == assign(count, list(reversed(seats)))
    loads = [chosen.count(seat) for seat in seats]
    assert sum(loads) == count
    assert max(loads) - min(loads) <= 1


@settings(max_examples=100, deadline=None)
@given(counts, seat_names, seat_names)
def test_only_what_must_move_moves(count: int, seats: list[str], later: list[str]) -> None:
    before = assign(count, seats)
    after = assign(count, later, before)
    homeless = sum(seat not in later for seat in before)
    share = -(-count // len(later))
    crowded = sum(max(0, before.count(seat) - count // len(later)) for seat in set(seats) & set(later))
    arrivals = len(set(later) - set(seats))
    changes = len(moved(before, after))
    assert homeless <= changes <= homeless + min(crowded, arrivals * share + len(later))
    assert assign(count, later, after) == after
    loads = [after.count(seat) for seat in later]
    assert max(loads) - min(loads) <= 1


@settings(max_examples=60, deadline=None)
@given(counts, seat_names, st.data())
def test_one_seat_more_takes_its_share_and_one_less_gives_up_its_own(
    count: int, seats: list[str], data: st.DataObject
) -> None:
    before = assign(count, seats)
    more = assign(count, [*seats, "new/0"], before)
    assert len(moved(before, more)) == more.count("new/0") <= -(-count // (len(seats) + 1))
    if len(seats) > 1:
        gone = data.draw(st.sampled_from(seats))
        less = assign(count, [seat for seat in seats if seat != gone], before)
        assert len(moved(before, less)) == before.count(gone)


# --- anything at any time -----------------------------------------------------------------------------------------

NAMES = [f"{node}{n}" for node in "abc" for n in range(3)]
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["join", "lose", "stop", "go on", "restart"]), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["drain"]), st.sampled_from(["a", "b"])),
        st.tuples(st.sampled_from(["wait", "long wait", "answer", "directory"]), st.just("")),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_whatever_happens_every_partition_finds_one_living_owner(told: list[tuple[str, str]]) -> None:
    directory = Directory(expected=1)
    directory.answers = False
    incarnations = dict.fromkeys(NAMES, 1)
    joined: set[str] = set()
    known: dict[str, Assignment] = {}
    for what, name in told:
        member = shard(name, node=name[:1], incarnation=incarnations.get(name, 1))
        if what in ("join", "restart"):
            incarnations[name] = incarnations[name] + (what == "restart")
            member = msgspec.structs.replace(member, incarnation=incarnations[name])
            directory.join(member, known=known.get(name) if what == "join" else None)
            joined.add(name)
        elif what == "lose":
            directory.lose(name)
            joined.discard(name)
        elif what == "stop":
            directory.stop(name)
        elif what == "go on" and name in joined:
            directory.beating.add(name)
        elif what == "drain":
            directory.of.drain(name)
        elif what == "answer":
            directory.release()
        elif what == "directory":
            directory = restarted(directory, joined, known, incarnations)
        directory.run({"wait": 0.3, "long wait": 4.0}.get(what, BEAT_EVERY_S))
        known |= dict.fromkeys(joined, copy(directory.of.assignment))
        check(directory)
    directory.answers = True
    directory.join(shard("c9", node="c"))
    directory.beating |= joined
    directory.run(RELEASE_TIMEOUT_S + 20)
    settle(directory)


def restarted(
    old: Directory, joined: set[str], known: dict[str, Assignment], incarnations: dict[str, int]
) -> Directory:
    new = Directory(expected=1, now=old.now + 5)
    new.answers, new.of.draining = False, set(old.of.draining)
    newest = max((assignment.version for assignment in known.values()), default=0)
    for name in sorted(joined):
        new.join(shard(name, node=name[:1], incarnation=incarnations[name]), known=known.get(name))
    if joined:
        assert new.of.assignment.version >= newest or not known.keys() & joined
    return new


def check(directory: Directory) -> None:
    """What holds at every moment."""
    assignment = directory.of.assignment
    names = {member.name for member in assignment.shards()}
    assert set(assignment.owners) - {""} <= names
    assert all(assignment.owners[partition] for partition in assignment.moving)
    seated = [(member.node, member.seat) for member in assignment.shards() if member.seat != STANDBY]
    assert len(seated) == len(set(seated))
    assert all(0 <= seat < 2 for _, seat in seated)
    assert directory.most_at_once <= rules.MOVES_MAX_AT_ONCE
    assert all(left <= right for left, right in zip(directory.versions, directory.versions[1:], strict=False))


def settle(directory: Directory) -> None:
    """And what must hold in the end, when nothing happens any more."""
    check(directory)
    assignment = directory.of.assignment
    seated = [member.name for member in assignment.shards() if member.seat != STANDBY]
    assert assignment.moving == []
    assert set(assignment.owners) <= set(seated)
    loads = [len(assignment.of(name)) for name in seated]
    assert max(loads) - min(loads) <= 1
    assert not any(member.node in directory.of.draining for member in assignment.shards() if member.seat != STANDBY)
