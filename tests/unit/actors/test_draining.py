"""A node is drained when nobody is left on it: the directory's part, in virtual time."""

from __future__ import annotations

import pytest

from actors.assignment import Assignment, Member
from actors.membership import Membership
from actors.office import Office
from hub.errors import BadRequest


def member(name: str, node: str, role: str = "shard") -> Member:
    return Member(name, role, node, incarnation=1)  # type: ignore[arg-type]


def two_nodes(membership: Membership) -> None:
    for node in ("a", "b"):
        membership.join(member(f"shard-{node}", node), None, 0.0)
        membership.join(member(f"gateway-{node}", node, "gateway"), None, 0.0)
    membership.decide(0.0)


def test_a_node_that_owns_nothing_is_not_drained_while_its_gateway_is_there() -> None:
    membership = Membership(8, seats=1, expected=2, now=0.0)
    two_nodes(membership)
    membership.drain("a")
    for _ in range(8):
        for shard, partitions in membership.decide(0.0).items():
            membership.released(shard, partitions)
    assert membership.drained() == ["a"] and membership.left() == []
    for name in ("shard-a", "gateway-a"):
        membership.lost(name, 0.0)
    membership.decide(1.0)
    assert membership.left() == ["a"]


def test_a_directory_that_is_started_again_goes_on_draining() -> None:
    before = Membership(8, seats=1, expected=2, now=0.0)
    two_nodes(before)
    before.drain("a")
    before.decide(0.0)
    after = Membership(8, seats=1, expected=2, now=0.0)
    heard = before.assignment
    known = Assignment(heard.version, heard.owners, heard.members, heard.moving, heard.draining)
    after.join(member("shard-b", "b"), known, 0.0)
    after.decide(0.0)
    assert after.assignment.draining == ["a"]


async def test_the_last_node_cannot_be_drained_but_one_that_is_drained_may_be_asked_about() -> None:
    office = Office(b"s" * 32, 8, seats=1, expected=2, now=lambda: 0.0)
    two_nodes(office.membership)
    assert b"draining" in await office._leave("a")
    assert b"draining" in await office._leave("a")
    with pytest.raises(BadRequest, match="last node"):
        await office._leave("b")
