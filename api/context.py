"""What every door of a gateway shares: the services, and the few steps most requests are made of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from actors.assignment import Member
from actors.calls import refusal
from actors.router import Router
from api.accounts import Accounts
from api.admission import Admission
from api.auth import Auth
from api.changes import Changes
from api.fanout import Fanout
from api.metrics import GatewayMetrics
from api.placement import Placement
from api.presence import Presence
from api.sessions import GOING_AWAY, Session
from hub import positions
from hub.clock import SystemClock
from hub.commands import Answer, Command, Done, GetConversation, Invocation, ReceiveMessage, Refused
from hub.config import Config
from hub.errors import HubError, Internal, NotFound, from_code
from hub.ids import (
    customer_id,
    customer_of,
    is_customer,
    split_message,
    stream_partition,
    tenant_stream,
)
from hub.ports import Store
from hub.sealing import Keyring, load_secret
from hub.settings import Agent, Channel, Vault
from hub.shared import open_shared

log = logging.getLogger("hub.gateway")


class Gateway:
    """The services of one gateway. Ray-free."""

    def __init__(
        self, member: Member, config: Config, store: Store, find_directory: Callable[[], Awaitable[tuple[str, int]]]
    ) -> None:
        """`member` is this gateway as the others know it; `find_directory` says where the directory listens."""
        self.name = member.name
        self.node = member.node
        self.config = config
        self.store = store
        self.clock = SystemClock()
        self.keyring = Keyring(load_secret(config.secret_key, config.data_dir))
        self.vault = Vault(self.keyring)
        self.accounts = Accounts(store.documents, self.vault)
        installation = self.keyring.derive("shared")[:8].hex()
        self.shared = open_shared(config.redis, installation=installation, per_minute=config.requests_per_minute)
        self.auth = Auth(self.accounts, store.documents, self.keyring, lambda kind, id: self.changes.made(kind, id))
        self.changes = Changes(self.accounts, self.auth, self.shared.notices)
        self.router = Router(
            member,
            store.partitions,
            secret=self.keyring.derive("wire"),
            find_directory=find_directory,
            on_link=lambda shard: self.fanout.shard_connected(shard),
            on_feeds=lambda feeds: self.fanout.receive(feeds),
        )
        self.placement = Placement(store.documents, store.partitions)
        self.fanout = Fanout(self.router, self.changes.heard, self.placement.learn)
        self.presence = Presence(member.name, self.fanout, self.shared)
        self.limits = self.shared.buckets
        self.admission = Admission(tenant_per_s=config.tenant_messages_per_second)
        self.metrics = GatewayMetrics()
        self.draining = False
        self.sessions: set[Session] = set()
        self._written: dict[int, int] = {}
        self._reached: dict[int, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.shared.start()
        await self.router.start()
        for work in (self.fanout.run(), self.changes.run(), self.presence.run(), self.admission.run()):
            self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.router.stop()
        await self.shared.close()
        await self.store.close()

    def close_sessions(self) -> None:
        """We are going: every session resumes elsewhere."""
        for session in self.sessions:
            session.close(GOING_AWAY, "this server is going away; resume elsewhere")

    # --- commands -------------------------------------------------------------------------------------------------

    def send(self, tenant: str, stream: str, command: Command) -> asyncio.Future[Answer]:
        return self.router.send(Invocation(tenant, stream, command))  # type: ignore[arg-type]

    def receive(self, tenant: str, stream: str, message: Command) -> asyncio.Future[Answer]:
        """What came from outside: as `send`, where there is room for one more message of a customer."""
        refused = self.admission.refusal(tenant) if isinstance(message, ReceiveMessage) else None
        if refused is None:
            return self.send(tenant, stream, message)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        answer.set_result(refusal(refused))
        return answer

    async def ask(self, tenant: str, stream: str, command: Command) -> Done:
        """The outcome of a command, durable. Raises the HubError it was refused with."""
        answer = await self.send(tenant, stream, command)
        return self.accept(answer)

    def accept(self, answer: Answer) -> Done:
        """Raises where it was refused; remembers how far our own writes went, so that our reads see them."""
        if isinstance(answer, Refused):
            raise from_code(answer.code, answer.detail, answer.retry_after_s)
        if answer.offset > self._written.get(answer.partition, 0):
            self._written[answer.partition] = answer.offset
        return answer

    def stream_of_conversation(self, conversation: str) -> str:
        """Raises NotFound where this is no conversation of this store."""
        stream = customer_of(conversation)
        if stream is None:
            raise NotFound(f"there is no conversation {conversation[:80]}")
        return self._checked(stream)

    def stream_of_customer(self, customer: str) -> str:
        if not is_customer(customer):
            raise NotFound(f"there is no customer {customer[:80]}")
        return self._checked(customer)

    def _checked(self, stream: str) -> str:
        if stream_partition(stream, self.store.partitions) >= self.store.partitions:
            raise NotFound("there is no such thing here")
        return stream

    def stream_of_identity(self, tenant: str, identity: str) -> str:
        """The customer an identity names, whether they ever wrote or not. Look a channel of the tenant up first."""
        secret = self.keyring.identity_secret
        return customer_id(secret=secret, tenant=tenant, identity=identity, among=self.placement.of(tenant))

    def settings_stream(self, tenant: str) -> str:
        return tenant_stream(tenant)

    # --- reads ----------------------------------------------------------------------------------------------------

    async def views_ready(self, tenant: str) -> None:
        """Return once the views show every write that this gateway has acknowledged in the tenant."""
        behind = [
            self._views_at(number, self._written[number])
            for number in await self.placement.learn(tenant)
            if self._written.get(number, 0) > self._reached.get(number, 0)
        ]
        await asyncio.gather(*behind)

    async def _views_at(self, partition: int, offset: int) -> None:
        if offset > self._reached.get(partition, 0):
            await self.router.reach(partition, offset)
            self._reached[partition] = max(offset, self._reached.get(partition, 0))

    def promised(self, offsets: dict[int, int]) -> None:
        """A session follows from these on: what came before must be in the lists it loads next."""
        for partition, offset in offsets.items():
            self._written[partition] = max(offset, self._written.get(partition, 0))

    async def position_of_views(self, tenant: str) -> str:
        """From where on to subscribe, after a list that is read later than this."""
        partitions = await self.placement.learn(tenant)
        offsets = await asyncio.gather(*(self.store.views.checkpoint(number) for number in partitions))
        return positions.encode(dict(zip(partitions, offsets, strict=True)))

    async def reach(self, done: Done) -> None:
        """Return once the views and settings show what `done` speaks of."""
        await self._views_at(done.partition, done.offset)

    async def message_by_id(self, tenant: str, id: str) -> bytes:
        """A message's JSON, from the views. Raises NotFound."""
        split = split_message(id)
        if split is None:
            raise NotFound(f"there is no message {id[:80]}")
        stream = self.stream_of_conversation(split[0])
        await self.reach(await self.ask(tenant, stream, GetConversation(conversation=split[0])))
        body = await self.store.views.message(*split)
        if body is None:
            raise NotFound(f"there is no message {id[:80]}")
        return body

    async def agent_of(self, tenant: str, id: str) -> Agent | None:
        agent = await self.accounts.agent(id)
        return agent if agent is not None and agent.tenant == tenant else None

    async def channel(self, id: str) -> Channel:
        """A connected channel of any tenant, whose customers can be named from then on. Raises NotFound."""
        channel = await self.accounts.channel(id) if len(id) <= 128 else None
        if channel is None:
            raise NotFound(f"there is no channel {id[:80]!r}")
        await self.placement.learn(channel.tenant)
        return channel

    async def own_channel(self, tenant: str, id: str) -> Channel:
        channel = await self.channel(id)
        if channel.tenant != tenant:
            raise NotFound(f"there is no channel {id[:80]!r}")
        return channel


def problem_of(error: BaseException) -> HubError:
    """The refusal to show for whatever went wrong; a defect is logged here and nowhere shown."""
    if isinstance(error, HubError):
        return error
    log.error("a request failed", exc_info=error)
    return Internal()
