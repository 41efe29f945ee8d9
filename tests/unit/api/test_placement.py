"""A gateway never guesses where a tenant's customers live."""

from __future__ import annotations

import asyncio

import pytest

from api.placement import Placement
from hub.errors import Unavailable
from hub.ids import partitions_of
from hub.ports import Document
from hub.settings import Tenant, Vault
from hub.storage.memory import MemoryDocuments
from tests.unit.actors.rig import KEYRING

PARTITIONS = 16
VAULT = Vault(KEYRING)


class Documents(MemoryDocuments):
    """Counts how often somebody looks."""

    looks = 0

    async def get(self, kind: str, id: str) -> Document | None:
        self.looks += 1
        return await super().get(kind, id)


async def write(documents: Documents, tenant: Tenant, revision: int = 1) -> None:
    await documents.put([Document("tenant", tenant.id, tenant.id, revision, VAULT.encode(tenant))])


async def test_a_tenant_whose_document_cannot_be_seen_yet_is_not_taken_for_one_that_is_not_spread() -> None:
    documents = Documents()
    placement = Placement(documents, PARTITIONS)
    with pytest.raises(Unavailable) as refused:
        await placement.learn("acme")
    assert refused.value.retryable
    with pytest.raises(KeyError):
        placement.of("acme")


async def test_that_there_was_no_document_is_forgotten_at_once() -> None:
    documents = Documents()
    placement = Placement(documents, PARTITIONS)
    with pytest.raises(Unavailable):
        await placement.learn("acme")
    await write(documents, Tenant(id="acme", name="Acme", spread=5))
    assert await placement.learn("acme") == partitions_of("acme", 5, PARTITIONS)


async def test_what_was_learned_once_holds_for_ever_and_costs_no_other_look() -> None:
    documents = Documents()
    placement = Placement(documents, PARTITIONS)
    await write(documents, Tenant(id="acme", name="Acme", spread=5))
    found = await placement.learn("acme")
    await documents.remove("tenant", "acme", 2)
    assert await placement.learn("acme") == placement.of("acme") == found
    assert documents.looks == 1


async def test_many_who_ask_at_once_are_told_the_same() -> None:
    documents = Documents()
    placement = Placement(documents, PARTITIONS)
    await write(documents, Tenant(id="acme", name="Acme", spread=3))
    assert len(set(await asyncio.gather(*(placement.learn("acme") for _ in range(50))))) == 1


async def test_a_tenant_from_before_there_was_a_spread_lives_at_home() -> None:
    documents = Documents()
    # The very bytes of a document that an earlier version wrote.
    body = bytes.fromhex(TENANT_OF_AN_EARLIER_VERSION)
    await documents.put([Document("tenant", "acme", "acme", 1, body)])
    assert await Placement(documents, PARTITIONS).learn("acme") == partitions_of("acme", 1, PARTITIONS)


async def test_the_oldest_is_looked_up_again_when_more_tenants_are_known_than_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.placement.KNOWN_MAX_TENANTS", 2)
    documents = Documents()
    placement = Placement(documents, PARTITIONS)
    for name in ("one", "two", "three"):
        await write(documents, Tenant(id=name, name=name, spread=2))
        await placement.learn(name)
    assert placement.of("three") and placement.of("two")
    with pytest.raises(KeyError):
        placement.of("one")
    assert await placement.learn("one") == partitions_of("one", 2, PARTITIONS)


TENANT_OF_AN_EARLIER_VERSION = (
    "9301c42b84a26964a461636d65a46e616d65a441636d65a66c6f63616c65a26573a974696d655f7a6f6e65a3555443c0"
)
