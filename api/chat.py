"""`GET /v1/chat/{channel}`: the customers' WebSocket. Bare ASGI.

A visitor is known by a token its browser keeps, or by an identity its shop has signed. Whoever shows neither
gets a new visitor and no history.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import msgspec

from actors.publication import Publication
from api import sessions
from api.asgi import Receive, Scope, Send
from api.context import Gateway
from api.fanout import Subscription
from api.sessions import Session
from channels.webchat import frames
from channels.webchat.identity import verified_identity, visitor_identity
from hub.commands import Answer, CustomerRead, GetCustomer, ReceiveMessage, Refused
from hub.errors import HubError, NotFound, RateLimited, Unauthenticated, from_code
from hub.model import Author
from hub.settings import Channel

HELLO_TIMEOUT_S = 10.0
HISTORY_MAX_MESSAGES = 50
MESSAGES_MAX_IN_FLIGHT = 100
VISITOR_BYTES = 16
_encode = msgspec.json.Encoder().encode


def dumps(value: object) -> str:
    return _encode(value).decode()


class _Seq(msgspec.Struct):
    seq: int


class _Read(msgspec.Struct):
    unread: int = 0
    seq: int = 0


class _Event(msgspec.Struct):
    conversation: _Read | None = None


class CustomerChat:
    """One customer's connection."""

    def __init__(self, gateway: Gateway, channel: Channel, receive: Receive, send: Send) -> None:
        self._gateway = gateway
        self._channel = channel
        self._receive = receive
        self._session = Session(send)
        self._identity = ""
        self._address = ""
        self._name: str | None = None
        self._stream = ""
        self._conversation: str | None = None
        self._subscription: Subscription | None = None
        self._in_flight = 0
        self._shown_seq = 0

    async def run(self) -> None:
        gauge = self._gateway.metrics.sessions.labels("customer")
        gauge.inc()
        self._gateway.sessions.add(self._session)
        try:
            if await self._greet():
                await self._serve()
        finally:
            gauge.dec()
            self._gateway.sessions.discard(self._session)
            await self._session.finish()
            if self._subscription is not None:
                self._gateway.fanout.unsubscribe(self._channel.tenant, self._subscription)
                self._gateway.presence.unfollow(self._channel.tenant)

    async def _next(self) -> str | None:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            return None
        text = message.get("text")
        return str(text) if text is not None else (message.get("bytes") or b"").decode("utf-8", "replace")

    # --- hello ----------------------------------------------------------------------------------------------------

    async def _greet(self) -> bool:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                text = await self._next()
            if text is None:
                return False
            hello = frames.parse(text)
            if not isinstance(hello, frames.Hello):
                raise Unauthenticated('the first frame must be {"type": "hello", …}')
            visitor, token, known = self._recognise(hello)
            await self._welcome(visitor, token, known)
        except (HubError, TimeoutError) as error:
            detail = str(error) or "say hello within 10 seconds"
            code = error.code if isinstance(error, HubError) else "unauthenticated"
            self._session.write(dumps({"type": "error", "code": code, "detail": detail}))
            retryable = isinstance(error, HubError) and error.retryable
            self._session.close(sessions.GOING_AWAY if retryable else sessions.UNAUTHENTICATED, detail[:100])
            return False
        return True

    def _recognise(self, hello: frames.Hello) -> tuple[str, str, bool]:
        """(visitor, token, may there be history). Raises Unauthenticated or BadSignature."""
        keyring, channel = self._gateway.keyring, self._channel
        self._name = hello.name
        if hello.identity is not None:
            found = verified_identity(channel, hello.identity)
            visitor, self._identity, self._address = hello.identity.id, found.identity, found.address
            return visitor, hello.token or "", True
        if hello.token:
            visitor, _, mac = hello.token.partition(".")
            if not keyring.visitor_token_ok(channel.id, visitor, mac) or hello.visitor not in (None, visitor):
                raise Unauthenticated("this visitor's token is not valid")
            known = True
        elif hello.visitor:
            raise Unauthenticated("a returning visitor must show its token")
        else:
            visitor, known = secrets.token_urlsafe(VISITOR_BYTES), False
        found = visitor_identity(channel, visitor)
        self._identity, self._address = found.identity, found.address
        return visitor, f"{visitor}.{keyring.visitor_token(channel.id, visitor)}", known

    async def _welcome(self, visitor: str, token: str, known: bool) -> None:
        gateway, tenant = self._gateway, self._channel.tenant
        self._stream = gateway.stream_of_identity(tenant, self._identity)
        self._subscription = Subscription(self._session, f"stream:{self._stream}", self._on_publication)
        gateway.presence.follow(tenant)
        position = await gateway.fanout.subscribe(tenant, self._subscription)
        messages: list[bytes] = []
        if known:
            messages = await self._history()
        welcome = dumps({"type": "welcome", "visitor": visitor, "token": token, "conversation": self._conversation})
        self._session.write(f'{welcome[:-1]},"messages":[{b",".join(messages).decode()}]}}')
        gateway.fanout.caught_up(self._subscription, position)

    async def _history(self) -> list[bytes]:
        """What the customer may see of their thread: never a note."""
        gateway, tenant = self._gateway, self._channel.tenant
        try:
            done = await gateway.ask(tenant, self._stream, GetCustomer())
        except NotFound:
            return []
        await gateway.router.reach(done.partition, done.offset)
        for id in reversed(msgspec.json.decode(done.customer)["conversations"]):
            body = await gateway.store.views.conversation(tenant, id)
            if body is None or msgspec.json.decode(body)["channel"]["id"] != self._channel.id:
                continue
            self._conversation = id
            rows = await gateway.store.views.messages(id, before=None, after=None, limit=HISTORY_MAX_MESSAGES)
            self._shown_seq = rows[-1].seq if rows else 0
            return [row.body for row in rows if b'"kind":"inbound"' in row.body or b'"kind":"outbound"' in row.body]
        return []

    # --- conversation ---------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while not self._session.closed:
            text = await self._next()
            if text is None:
                return
            try:
                self._handle(frames.parse(text))
            except HubError as error:
                self._refuse(error, None)

    def _handle(self, request: object) -> None:
        match request:
            case frames.Message():
                self._say(request)
            case frames.Ping():
                self._session.write('{"type":"pong"}')
            case frames.Typing():
                if self._conversation is not None:
                    by = Author("customer", self._stream, self._name)
                    self._gateway.presence.typing(
                        self._channel.tenant, self._conversation, on=request.on, by=by, but=None
                    )
            case frames.Read():
                self._acknowledge(request.seq, "read")
            case _:
                self._refuse(Unauthenticated("this connection has said hello already"), None)

    def _refuse(self, error: HubError, client_id: str | None) -> None:
        what: dict[str, Any] = {"type": "error", "code": error.code, "detail": error.detail}
        if client_id is not None:
            what["client_id"] = client_id
        if error.fields:
            what["fields"] = error.fields
        what["retryable"] = error.retryable
        if error.retry_after_s:
            what["retry_after"] = round(error.retry_after_s, 3)
        self._session.write(dumps(what))

    def _say(self, request: frames.Message) -> None:
        if self._in_flight >= MESSAGES_MAX_IN_FLIGHT:
            self._refuse(RateLimited("wait for the answers to what you sent"), request.client_id)
            return
        self._in_flight += 1
        began = time.perf_counter()
        command = ReceiveMessage(
            channel=self._channel.id,
            channel_kind=self._channel.kind,
            identity=self._identity,
            address=self._address,
            external_id=request.client_id,
            text=request.text,
            name=self._name,
        )
        future = self._gateway.receive(self._channel.tenant, self._stream, command)
        client_id = request.client_id
        future.add_done_callback(lambda done: self._answered(client_id, began, done.result()))

    def _answered(self, client_id: str, began: float, answer: Answer) -> None:
        self._in_flight -= 1
        if isinstance(answer, Refused):
            self._refuse(from_code(answer.code, answer.detail, answer.retry_after_s), client_id)
            return
        gateway = self._gateway
        done = gateway.accept(answer)
        self._conversation = done.conversation_id
        if not done.message:
            task = asyncio.get_running_loop().create_task(self._ack_again(client_id, done.message_id or ""))
            task.add_done_callback(lambda _: None)
            return
        gateway.metrics.chat_inbound.inc()
        gateway.metrics.chat_ack_seconds.observe(time.perf_counter() - began)
        self._session.write(f'{{"type":"ack","client_id":{dumps(client_id)},"message":{done.message.decode()}}}')

    async def _ack_again(self, client_id: str, message_id: str) -> None:
        """A repeat gets the first one's message, from the views."""
        try:
            body = await self._gateway.message_by_id(self._channel.tenant, message_id)
        except HubError as error:
            self._refuse(error, client_id)
            return
        self._session.write(f'{{"type":"ack","client_id":{dumps(client_id)},"message":{body.decode()}}}')

    def _on_publication(self, item: Publication, text: str) -> None:
        if self._conversation is not None and item.conversation != self._conversation:
            return
        if item.type == "message.queued":
            seq = msgspec.json.decode(item.message, type=_Seq).seq
            if seq <= self._shown_seq:
                return
            self._shown_seq, self._conversation = seq, item.conversation
            self._session.write(f'{{"type":"message","message":{item.message.decode()}}}')
            self._acknowledge(seq, "delivered")
        elif item.type == "conversation.read":
            state = msgspec.json.decode(item.event, type=_Event).conversation
            if state is not None and state.unread == 0:
                self._session.write(dumps({"type": "read", "seq": state.seq}))

    def _acknowledge(self, seq: int, status: str) -> None:
        """The customer's device has, or has shown, our messages up to `seq`."""
        if self._conversation is None:
            return
        command = CustomerRead(conversation=self._conversation, seq=seq, status=status)  # type: ignore[arg-type]
        self._gateway.send(self._channel.tenant, self._stream, command)


async def customer_chat(gateway: Gateway, channel_id: str, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    try:
        channel = await gateway.channel(channel_id)
        if channel.kind != "web":
            raise NotFound(f"{channel_id} is not a web chat")
    except HubError as error:
        session = Session(send)
        session.write(dumps({"type": "error", "code": error.code, "detail": error.detail}))
        session.close(sessions.FORBIDDEN, error.detail[:100])
        await session.finish()
        return
    await CustomerChat(gateway, channel, receive, send).run()
