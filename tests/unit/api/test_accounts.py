"""What a gateway remembers of settings, and what it does while the store does not answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api import accounts
from api.accounts import Accounts
from hub.errors import StoreUnavailable
from hub.ports import Document
from hub.sealing import Keyring
from hub.settings import Channel, Vault

VAULT = Vault(Keyring(b"unit-unit-unit-unit"))


class SlowDocuments:
    """One channel, in a store that answers, hangs or refuses."""

    def __init__(self) -> None:
        self.mood = "answers"
        self.name = "first"
        self.reads = 0

    async def get(self, kind: str, id: str) -> Document | None:
        self.reads += 1
        if self.mood == "hangs":
            await asyncio.Event().wait()
        if self.mood == "refuses":
            raise StoreUnavailable
        return Document(kind, id, "demo", 1, VAULT.encode(Channel(id=id, tenant="demo", kind="web", name=self.name)))


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> SlowDocuments:
    monkeypatch.setattr(accounts, "REMEMBER_FOR_S", 0.0)
    monkeypatch.setattr(accounts, "READ_PATIENCE_S", 0.01)
    return SlowDocuments()


def remembering(documents: Any) -> Accounts:
    return Accounts(documents, VAULT)


async def name_of(known: Accounts) -> str:
    channel = await known.channel("web")
    assert channel is not None
    return channel.name


async def test_what_has_grown_old_is_read_again(documents: SlowDocuments) -> None:
    known = remembering(documents)
    assert await name_of(known) == "first"
    documents.name = "second"
    assert await name_of(known) == "second"


@pytest.mark.parametrize("mood", ["hangs", "refuses"])
async def test_while_the_store_does_not_answer_what_was_known_holds(documents: SlowDocuments, mood: str) -> None:
    known = remembering(documents)
    await name_of(known)
    documents.mood = mood
    assert await name_of(known) == "first"


async def test_what_was_never_read_is_not_made_up(documents: SlowDocuments) -> None:
    documents.mood = "refuses"
    with pytest.raises(StoreUnavailable):
        await name_of(remembering(documents))


async def test_what_we_were_told_has_changed_does_not_hold(documents: SlowDocuments) -> None:
    known = remembering(documents)
    await name_of(known)
    documents.mood = "hangs"
    asking = asyncio.create_task(name_of(known))
    await asyncio.sleep(0)
    known.forget("channel", "web")
    with pytest.raises(StoreUnavailable):
        await asking


async def test_those_who_ask_at_once_share_one_reading(documents: SlowDocuments) -> None:
    known = remembering(documents)
    await asyncio.gather(*(name_of(known) for _ in range(10)))
    assert documents.reads == 1
