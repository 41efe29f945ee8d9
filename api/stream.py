"""`GET /v1/stream`: the agents' WebSocket. Bare ASGI; every frame is one JSON object with a `type`.

A subscription is gapless: it begins to collect before it looks at the past, sends the past from the client's
position, then what was collected. Where the past cannot be told, it says `recovered: false` and tells none of it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

import msgspec

from actors.publication import Publication
from api import sessions
from api.asgi import Receive, Scope, Send
from api.auth import Principal
from api.changes import Admission
from api.context import Gateway
from api.fanout import INBOX, Subscription
from api.presence import Attendance
from api.sessions import Session
from hub import positions
from hub.commands import Refused, SendMessage
from hub.errors import Forbidden, HubError, InvalidFields, MalformedBody, RateLimited, Unauthenticated, from_code
from hub.model import TEXT_MAX_CHARS

AUTH_TIMEOUT_S = 5.0
FRAME_MAX_CHARS = 64 * 1024
SUBSCRIPTIONS_MAX_COUNT = 200
SENDS_MAX_IN_FLIGHT = 200
ID_MAX_CHARS = 128


class AuthFrame(msgspec.Struct, tag="auth"):
    token: str


class SubscribeFrame(msgspec.Struct, tag="subscribe"):
    topic: str
    position: str | None = None


class UnsubscribeFrame(msgspec.Struct, tag="unsubscribe"):
    topic: str


class SendFrame(msgspec.Struct, tag="send"):
    id: str
    conversation: str
    text: str
    client_id: str | None = None
    kind: Literal["outbound", "note"] = "outbound"
    if_seq: int | None = None


class TypingFrame(msgspec.Struct, tag="typing"):
    conversation: str
    on: bool = True


class ViewingFrame(msgspec.Struct, tag="viewing"):
    conversation: str


class PingFrame(msgspec.Struct, tag="ping"):
    pass


_decoder = msgspec.json.Decoder(
    AuthFrame | SubscribeFrame | UnsubscribeFrame | SendFrame | TypingFrame | ViewingFrame | PingFrame
)
_encode = msgspec.json.Encoder().encode


def dumps(value: object) -> str:
    return _encode(value).decode()


class AgentStream:
    """One agent's connection."""

    def __init__(self, gateway: Gateway, receive: Receive, send: Send) -> None:
        self._gateway = gateway
        self._receive = receive
        self._session = Session(send)
        self._principal: Principal | None = None
        self._admission: Admission | None = None
        self._attendance: Attendance | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._catching: set[asyncio.Task[None]] = set()
        self._sends = 0

    async def run(self) -> None:
        gauge = self._gateway.metrics.sessions.labels("agent")
        gauge.inc()
        self._gateway.sessions.add(self._session)
        try:
            if await self._sign_in():
                await self._serve()
        finally:
            gauge.dec()
            self._gateway.sessions.discard(self._session)
            await self._session.finish()
            for task in self._catching:
                task.cancel()
            for subscription in self._subscriptions.values():
                self._gateway.fanout.unsubscribe(self._who.tenant, subscription)
            self._leave()

    def _leave(self) -> None:
        if self._admission is not None:
            self._gateway.changes.left(self._admission)
        if self._attendance is not None:
            self._gateway.presence.leave(self._attendance)

    @property
    def _who(self) -> Principal:
        assert self._principal is not None
        return self._principal

    async def _sign_in(self) -> bool:
        try:
            async with asyncio.timeout(AUTH_TIMEOUT_S):
                text = await self._next()
            if text is None:
                return False
            first = _parse(text)
            if not isinstance(first, AuthFrame):
                raise Unauthenticated('the first frame must be {"type": "auth", "token": …}')
            self._principal = await self._gateway.auth.authenticate(first.token)
            self._principal.require("stream")
        except (TimeoutError, HubError) as error:
            refused = sessions.FORBIDDEN if isinstance(error, Forbidden) else sessions.UNAUTHENTICATED
            self._session.close(refused, str(error) or "sign in within 5 seconds")
            return False
        who = self._principal
        self._admission = self._gateway.changes.admit(
            who, lambda why: self._session.close(sessions.UNAUTHENTICATED, why)
        )
        self._attendance = self._gateway.presence.arrive(who.tenant, who.author)
        self._session.write(dumps({"type": "ready", "agent": {"id": who.id, "name": who.name, "role": who.role}}))
        return True

    async def _next(self) -> str | None:
        """The next text frame, or None where the socket is closed."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return None
            text = message.get("text")
            if text is None:
                text = (message.get("bytes") or b"").decode("utf-8", "replace")
            return str(text)

    async def _serve(self) -> None:
        while not self._session.closed:
            text = await self._next()
            if text is None or self._session.closed:
                return
            if self._who.expires_at is not None and time.time() > self._who.expires_at:
                self._session.close(sessions.UNAUTHENTICATED, "the token has expired; refresh it and resume")
                return
            try:
                await self._handle(_parse(text))
            except HubError as error:
                self._refuse(error)

    def _refuse(self, error: HubError, id: str | None = None) -> None:
        what: dict[str, Any] = {"type": "error", "code": error.code, "detail": error.detail}
        if id is not None:
            what["id"] = id
        if error.fields:
            what["fields"] = error.fields
        if error.retryable:
            what["retryable"] = True
        self._session.write(dumps(what))

    async def _handle(self, request: object) -> None:
        match request:
            case PingFrame():
                self._session.write('{"type":"pong"}')
            case SubscribeFrame():
                await self._subscribe(request)
            case UnsubscribeFrame():
                subscription = self._subscriptions.pop(request.topic, None)
                if subscription is not None:
                    self._gateway.fanout.unsubscribe(self._who.tenant, subscription)
                    if self._attendance is not None:
                        self._gateway.presence.look_away(self._attendance, request.topic.partition(":")[2])
            case SendFrame():
                self._send(request)
            case TypingFrame() | ViewingFrame():
                await self._be_present(request)
            case _:
                raise MalformedBody("this connection is signed in already")

    # --- subscriptions --------------------------------------------------------------------------------------------

    async def _subscribe(self, request: SubscribeFrame) -> None:
        topic = request.topic
        if topic != INBOX:
            kind, _, id = topic.partition(":")
            if kind != "conversation":
                raise InvalidFields(fields={"topic": "takes inbox or conversation:{id}"})
            await self._own_conversation(id)
        if topic in self._subscriptions:
            self._gateway.fanout.unsubscribe(self._who.tenant, self._subscriptions.pop(topic))
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX_COUNT:
            raise RateLimited(f"at most {SUBSCRIPTIONS_MAX_COUNT} subscriptions a connection")
        subscription = Subscription(self._session, topic, self._on_publication)
        self._subscriptions[topic] = subscription
        task = asyncio.get_running_loop().create_task(self._catch_up(subscription, request.position))
        self._catching.add(task)
        task.add_done_callback(self._catching.discard)

    def _on_publication(self, item: Publication, text: str) -> None:
        self._session.write(text)

    async def _own_conversation(self, id: str) -> None:
        stream = self._gateway.stream_of_conversation(id)
        from hub.commands import GetConversation

        await self._gateway.ask(self._who.tenant, stream, GetConversation(conversation=id))

    async def _catch_up(self, subscription: Subscription, since: str | None) -> None:
        fanout, tenant, topic = self._gateway.fanout, self._who.tenant, subscription.topic
        try:
            now = await fanout.subscribe(tenant, subscription)
            self._gateway.promised(now)
            past = await fanout.past(tenant, topic, since) if since is not None else None
            start = positions.encode(now) if past is None else since
            recovered = past is not None or since is None
            self._session.write(
                dumps({"type": "subscribed", "topic": topic, "position": start, "recovered": recovered})
            )
            for text in past.frames() if past is not None else ():
                self._session.write(text)
            fanout.caught_up(subscription, now if past is None else past.until)
            await self._show_who_is_there(topic)
        except HubError as error:
            fanout.unsubscribe(tenant, subscription)
            self._subscriptions.pop(topic, None)
            self._session.close(sessions.GOING_AWAY, f"{error.detail}; resume in a moment")

    async def _show_who_is_there(self, topic: str) -> None:
        kind, _, id = topic.partition(":")
        if kind == "conversation":
            for text in await self._gateway.presence.frames_of(self._who.tenant, id, but=self._who.id):
                self._session.write(text)

    # --- what an agent does ---------------------------------------------------------------------------------------

    def _send(self, request: SendFrame) -> None:
        self._who.require("conversations")
        if self._sends >= SENDS_MAX_IN_FLIGHT:
            self._refuse(RateLimited(f"at most {SENDS_MAX_IN_FLIGHT} sends in flight"), request.id)
            return
        try:
            stream = self._gateway.stream_of_conversation(request.conversation)
            command = send_command(request, self._who)
        except HubError as error:
            self._refuse(error, request.id)
            return
        self._sends += 1
        future = self._gateway.send(self._who.tenant, stream, command)
        future.add_done_callback(lambda done: self._answered(request.id, done.result()))

    def _answered(self, id: str, answer: Any) -> None:
        self._sends -= 1
        if isinstance(answer, Refused):
            self._refuse(from_code(answer.code, answer.detail, answer.retry_after_s), id)
            return
        done = self._gateway.accept(answer)
        message = done.message.decode() or dumps({"id": done.message_id})
        self._session.write(f'{{"type":"ack","id":{dumps(id)},"message":{message}}}')

    async def _be_present(self, request: TypingFrame | ViewingFrame) -> None:
        stream = self._gateway.stream_of_conversation(request.conversation)
        subscription = self._subscriptions.get(f"conversation:{request.conversation}")
        if subscription is None:
            await self._own_conversation(request.conversation)
        presence, who = self._gateway.presence, self._who
        if isinstance(request, ViewingFrame):
            if self._attendance is not None:
                presence.view(self._attendance, request.conversation, but=self._session)
            return
        presence.typing(
            who.tenant, request.conversation, on=request.on, by=who.author, but=self._session, stream=stream
        )


def send_command(request: SendFrame, who: Principal) -> SendMessage:
    """Raises InvalidFields."""
    import secrets

    fields: dict[str, str] = {}
    if not request.text.strip():
        fields["text"] = "must not be empty"
    elif len(request.text) > TEXT_MAX_CHARS:
        fields["text"] = f"takes at most {TEXT_MAX_CHARS} characters"
    if request.client_id is not None and not 1 <= len(request.client_id) <= ID_MAX_CHARS:
        fields["client_id"] = f"takes 1 to {ID_MAX_CHARS} characters"
    if fields:
        raise InvalidFields(fields=fields)
    return SendMessage(
        conversation=request.conversation,
        author=who.author,
        text=request.text,
        client_id=request.client_id or secrets.token_hex(16),
        kind=request.kind,
        if_seq=request.if_seq,
    )


def _parse(text: str) -> object:
    """Raises MalformedBody or InvalidFields."""
    if len(text) > FRAME_MAX_CHARS:
        raise MalformedBody(f"a frame takes at most {FRAME_MAX_CHARS} characters")
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        raise InvalidFields(fields={where.strip("`.") or "type": what}) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise MalformedBody() from None


async def agent_stream(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await AgentStream(gateway, receive, send).run()
