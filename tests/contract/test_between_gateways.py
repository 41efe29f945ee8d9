"""Two gateways on one store and one Redis: what happens at one is known at the other, and what Redis may not decide."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from api import changes, signins
from api.accounts import Accounts
from api.auth import Auth, Tokens
from api.changes import Changes
from api.presence import Presence
from api.sessions import Session
from hub.errors import Unauthenticated
from hub.model import Author
from hub.ports import Document, Store
from hub.sealing import Keyring
from hub.settings import Agent, ApiKey, Vault
from hub.shared import open_shared
from hub.storage import open_store
from tests.servers.redis import RedisServer, running_redis

KEYRING = Keyring(b"between-between-between")
ANA = Agent(id="agt_ana", tenant="demo", email="ana@demo.test", name="Ana")
ANA_AUTHOR = Author("agent", "agt_ana", "Ana")
TOLD_WITHIN_S = 1.0
HEALED_WITHIN_S = 5.0


class Follower:
    def __init__(self, topic: str, frames: list[dict[str, Any]]) -> None:
        self.topic = topic
        self._frames = frames
        self.session = Session(self._send)

    async def _send(self, message: Any) -> None:
        self._frames.append(json.loads(message["text"]))


class Gateway:
    """What a gateway shares, without its doors: one session follows the inbox of `demo`."""

    def __init__(self, name: str, store: Store, url: str | None) -> None:
        self.shared = open_shared(url, installation="t", per_minute=1000)
        accounts = Accounts(store.documents, Vault(KEYRING))
        self.auth = Auth(accounts, store.documents, KEYRING, lambda kind, id: self.changes.made(kind, id))
        self.changes = Changes(accounts, self.auth, self.shared.notices)
        self.presence = Presence(name, self, self.shared)
        self.frames: list[dict[str, Any]] = []
        self._inbox = Follower("inbox", self.frames)
        self._tasks: list[asyncio.Task[None]] = []

    def followers(self, tenant: str, topic: str) -> list[Follower]:
        return [self._inbox] if (tenant, topic) == ("demo", "inbox") else []

    async def start(self) -> None:
        await self.shared.start()
        self._tasks = [asyncio.get_running_loop().create_task(self.changes.run())]
        self.presence.follow("demo")

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.shared.close()

    async def admits(self, tokens: Tokens) -> bool:
        try:
            await self.auth.authenticate(tokens.access_token)
        except Unauthenticated:
            return False
        return True

    async def session(self, tokens: Tokens) -> list[str]:
        """A stream that is open with these tokens: the list fills with why it was closed."""
        closed: list[str] = []
        self.changes.admit(await self.auth.authenticate(tokens.access_token), closed.append)
        return closed


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learned in seconds is learned in a fraction of one."""
    monkeypatch.setattr(signins, "REMEMBER_FOR_S", 0.2)
    monkeypatch.setattr(changes, "CONFIRM_EVERY_S", 0.05)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[RedisServer, Store, Gateway, Gateway]]:
    store = await open_store("memory:")
    await store.documents.put([Document("agent", ANA.id, "demo", 1, Vault(KEYRING).encode(ANA))])
    with running_redis() as server:
        one, two = (Gateway(f"hub-gateway-{n}", store, server.url) for n in range(2))
        for gateway in (one, two):
            await gateway.start()
        await hear_each_other(one, two)
        yield server, store, one, two
        for gateway in (one, two):
            await gateway.stop()


async def until(holds: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        await asyncio.sleep(0.005)


async def hear_each_other(one: Gateway, two: Gateway) -> None:
    """Return once presence crosses in both directions; a notice may be lost until then."""
    deadline = time.monotonic() + HEALED_WITHIN_S
    for teller, hearer in ((one, two), (two, one)):
        seen = len(hearer.frames)
        while len(hearer.frames) == seen:
            assert time.monotonic() < deadline, "the gateways do not hear each other"
            for on in (True, False):
                teller.presence.typing("demo", "c0", on=on, by=Author("agent", "probe"), but=None)
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.05)
    one.frames.clear()
    two.frames.clear()


async def test_typing_at_one_gateway_is_seen_once_at_each(pair: tuple[RedisServer, Store, Gateway, Gateway]) -> None:
    _, _, one, two = pair
    one.presence.typing("demo", "c1", on=True, by=ANA_AUTHOR, but=None)
    two.presence.typing("demo", "c1", on=True, by=Author("customer", "cus_1", "Lucía"), but=None)
    await until(lambda: len(one.frames) >= 2 and len(two.frames) >= 2, TOLD_WITHIN_S)
    await asyncio.sleep(0.05)
    for gateway in (one, two):
        assert sorted(frame["by"]["name"] for frame in gateway.frames) == ["Ana", "Lucía"]


async def test_who_views_and_who_is_online_is_known_at_the_other_gateway_until_they_leave(
    pair: tuple[RedisServer, Store, Gateway, Gateway],
) -> None:
    _, _, one, two = pair
    ana = one.presence.arrive("demo", ANA_AUTHOR)
    one.presence.view(ana, "c1", but=None)
    await until(lambda: len(two.frames) == 1, TOLD_WITHIN_S)
    [frame] = await two.presence.frames_of("demo", "c1", but="agt_luis")
    assert json.loads(frame)["by"]["name"] == "Ana"
    assert await two.presence.online("demo") == {"agt_ana"}
    one.presence.leave(ana)
    await one.presence.online("demo")  # what was told before has been taken by then
    assert await two.presence.frames_of("demo", "c1", but="agt_luis") == []
    assert await two.presence.online("demo") == set()


async def test_a_revoked_token_is_refused_and_its_stream_closed_everywhere_within_a_second(
    pair: tuple[RedisServer, Store, Gateway, Gateway],
) -> None:
    _, _, one, two = pair
    tokens, other = await one.auth.sign_in(ANA), await one.auth.sign_in(ANA)
    closed = [await gateway.session(tokens) for gateway in (one, two)]
    stays = await two.session(other)
    await one.auth.revoke(tokens.refresh_token)
    assert not await one.admits(tokens)
    await until(lambda: all(closed), TOLD_WITHIN_S)
    assert not await two.admits(tokens)
    assert await two.admits(other) and stays == []


async def test_a_removed_key_closes_its_streams_everywhere(pair: tuple[RedisServer, Store, Gateway, Gateway]) -> None:
    _, store, one, two = pair
    key = ApiKey(id="e" * 64, tenant="demo", name="Bot", hint="…", scopes=["stream"])
    await store.documents.put([Document("api_key", key.id, "demo", 1, Vault(KEYRING).encode(key))])
    closed: list[str] = []
    two.changes.admit(await two.auth._from_key(key.id), closed.append)
    await store.documents.remove("api_key", key.id, 2)
    one.changes.made("api_key", key.id)
    await until(lambda: bool(closed), TOLD_WITHIN_S)


async def test_without_redis_a_sign_out_is_learned_from_the_store(
    forgetful: None, pair: tuple[RedisServer, Store, Gateway, Gateway]
) -> None:
    server, _, one, two = pair
    server.kill()
    tokens = await one.auth.sign_in(ANA)
    closed = await two.session(tokens)
    await one.auth.revoke(tokens.access_token)
    assert not await one.admits(tokens)
    await until(lambda: bool(closed), TOLD_WITHIN_S)
    assert not await two.admits(tokens)


async def test_a_sign_out_survives_the_loss_of_redis(pair: tuple[RedisServer, Store, Gateway, Gateway]) -> None:
    server, store, one, two = pair
    tokens = await one.auth.sign_in(ANA)
    await one.auth.revoke(tokens.access_token)
    server.restart()
    late = Gateway("hub-gateway-2", store, server.url)
    await late.start()
    assert not await late.admits(tokens)
    await late.stop()
    await hear_each_other(one, two)
