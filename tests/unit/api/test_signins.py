"""A sign-in and its tokens: rotated, ended, and never brought back."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from api.accounts import Accounts
from api.auth import Auth, Principal, operator_token
from api.signins import ENDED_REVISION, REFRESH
from hub.errors import StoreUnavailable, Unauthenticated
from hub.ports import Document, Documents
from hub.sealing import Keyring
from hub.settings import Agent, ApiKey, Vault
from hub.storage import open_store

KEYRING = Keyring(b"unit-unit-unit-unit")
ANA = Agent(id="agt_ana", tenant="demo", email="ana@demo.test", name="Ana")


async def documents_with(*settings: Agent | ApiKey) -> Documents:
    store = await open_store("memory:")
    vault = Vault(KEYRING)
    kinds = {Agent: "agent", ApiKey: "api_key"}
    await store.documents.put([Document(kinds[type(s)], s.id, s.tenant, 1, vault.encode(s)) for s in settings])
    return store.documents


def auth_on(documents: Documents, ended: list[str] | None = None) -> Auth:
    """A gateway's; `ended` collects the sign-ins that ended there."""
    told = ended if ended is not None else []
    return Auth(Accounts(documents, Vault(KEYRING)), documents, KEYRING, lambda _, family: told.append(family))


async def refused(asking: Awaitable[object]) -> str:
    with pytest.raises(Unauthenticated) as error:
        await asking
    return error.value.detail


async def test_a_token_signs_in_and_either_token_signs_out() -> None:
    documents = await documents_with(ANA)
    for revoke_by in ("access_token", "refresh_token"):
        ended: list[str] = []
        auth = auth_on(documents, ended)
        tokens = await auth.sign_in(ANA)
        who = await auth.authenticate(tokens.access_token)
        assert (who.id, who.tenant) == ("agt_ana", "demo")
        await auth.revoke(getattr(tokens, revoke_by))
        assert ended == [who.credential]
        auth.sign_ins.forget(who.credential)
        assert "ended" in await refused(auth.authenticate(tokens.access_token))
        assert "again" in await refused(auth.refresh(tokens.refresh_token))
        await refused(auth.confirm(who))


async def test_signing_out_ends_one_sign_in_and_no_other() -> None:
    auth = auth_on(await documents_with(ANA))
    phone, desk = await auth.sign_in(ANA), await auth.sign_in(ANA)
    await auth.revoke(phone.refresh_token)
    assert (await auth.authenticate(desk.access_token)).id == "agt_ana"
    await auth.refresh(desk.refresh_token)


async def test_an_old_refresh_token_ends_the_sign_in_and_its_access_tokens() -> None:
    ended: list[str] = []
    auth = auth_on(await documents_with(ANA), ended)
    first = await auth.sign_in(ANA)
    second = await auth.refresh(first.refresh_token)
    assert "used before" in await refused(auth.refresh(first.refresh_token))
    [family] = ended
    auth.sign_ins.forget(family)
    for tokens in (first, second):
        await refused(auth.authenticate(tokens.access_token))
    await refused(auth.refresh(second.refresh_token))


async def test_a_refresh_that_another_gateway_has_under_way_does_not_undo_the_end() -> None:
    documents = await documents_with(ANA)
    one, two = auth_on(documents), auth_on(documents)
    tokens = await one.sign_in(ANA)
    family, known, revision = await one.sign_ins.read(tokens.refresh_token)
    await two.revoke(tokens.refresh_token)
    late = await one.sign_ins.rotate(family, known, revision)
    await refused(two.refresh(late))
    await refused(two.authenticate(tokens.access_token))
    document = await documents.get(REFRESH, family)
    assert document is not None and document.revision == ENDED_REVISION


async def test_what_is_no_valid_token_ends_nothing() -> None:
    ended: list[str] = []
    auth = auth_on(await documents_with(ANA), ended)
    tokens = await auth.sign_in(ANA)
    family = tokens.refresh_token.partition(".")[0]
    head, body, _ = tokens.access_token.split(".")
    for token in ("", ".", "x", f"{family}.guess", f"{family}.", f"{head}.{body}.forged", "a.b.c", "\ud800.\ud800"):
        await auth.revoke(token)
    rotated = await auth.refresh(tokens.refresh_token)
    await auth.revoke(tokens.refresh_token)
    await auth.revoke(operator_token(KEYRING))
    assert ended == []
    await auth.authenticate(rotated.access_token)


async def test_a_token_without_its_sign_in_is_refused() -> None:
    """As one restored from a backup that is older than the sign-in."""
    tokens = await auth_on(await documents_with(ANA)).sign_in(ANA)
    await refused(auth_on(await documents_with(ANA)).authenticate(tokens.access_token))


class Failing:
    """Documents of a store that is away."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self.away = False

    async def get(self, kind: str, id: str) -> Document | None:
        if self.away:
            raise StoreUnavailable()
        return await self._documents.get(kind, id)

    async def put(self, documents: list[Document]) -> None:
        if self.away:
            raise StoreUnavailable()
        await self._documents.put(documents)


async def test_a_sign_out_that_was_not_saved_says_so_and_can_be_repeated() -> None:
    store = Failing(await documents_with(ANA))
    ended: list[str] = []
    auth = auth_on(store, ended)  # type: ignore[arg-type]
    tokens = await auth.sign_in(ANA)
    store.away = True
    with pytest.raises(StoreUnavailable):
        await auth.revoke(tokens.access_token)
    assert ended == []
    store.away = False
    await auth.revoke(tokens.access_token)
    assert len(ended) == 1


async def test_a_program_is_confirmed_by_its_key() -> None:
    key = ApiKey(id="f" * 64, tenant="demo", name="Bot", hint="…", scopes=["stream"])
    documents = await documents_with(key)
    who = Principal("demo", "api_key", key.id[:16], "Bot", "api_key", frozenset(), credential=key.id)
    await auth_on(documents).confirm(who)
    await documents.remove("api_key", key.id, 2)
    await refused(auth_on(documents).confirm(who))
