"""Conversations and their messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from msgspec import UNSET
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.auth import Principal
from api.context import Gateway
from api.rest.deps import (
    PAGE_DEFAULT,
    Cursor,
    IdempotencyKey,
    Limit,
    Services,
    Who,
    fresh_client_id,
    json,
    page,
    raw,
    read_cursor,
    write_cursor,
)
from channels.registry import adapter_for
from hub import commands as c
from hub.clock import parse_rfc3339, rfc3339
from hub.codec import decode_record
from hub.errors import InvalidFields
from hub.events import type_name
from hub.ids import stream_partition
from hub.model import LABELS_MAX_COUNT, TEXT_MAX_CHARS, ConversationStatus, Priority
from hub.ports import ConversationQuery

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])
SCOPE = "conversations"
Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_MAX_CHARS)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewMessage(Body):
    text: Text
    kind: Literal["outbound", "note"] = "outbound"
    client_id: Name | None = None
    if_seq: Annotated[int, Field(ge=0)] | None = None


class NewConversation(Body):
    channel: Name
    to: Name | None = None
    customer: Name | None = None
    text: Text
    name: Name | None = None
    client_id: Name | None = None


class Change(Body):
    status: ConversationStatus | None = None
    priority: Priority | None = None
    assignee: Name | None = None
    team: Name | None = None
    labels: Annotated[list[Name], Field(max_length=LABELS_MAX_COUNT)] | None = None
    category: Name | None = None
    snoozed_until: str | None = None


class ReadUpTo(Body):
    seq: Annotated[int, Field(ge=0)] | None = None


class TypingOn(Body):
    on: bool = True


@router.get("", summary="The inbox")
async def listing(
    gateway: Services,
    who: Who,
    status: ConversationStatus | None = None,
    assignee: Annotated[str | None, Query(max_length=128, description="an agent's id, me, or none")] = None,
    team: Annotated[str | None, Query(max_length=128)] = None,
    label: Annotated[str | None, Query(max_length=128)] = None,
    channel: Annotated[str | None, Query(max_length=128)] = None,
    priority: Priority | None = None,
    customer: Annotated[str | None, Query(max_length=128)] = None,
    q: Annotated[str | None, Query(max_length=256)] = None,
    sort: Literal["-updated_at", "updated_at"] = "-updated_at",
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> Response:
    who.require(SCOPE)
    await gateway.views_ready(who.tenant)
    query = ConversationQuery(
        tenant=who.tenant,
        status=status,
        assignee=who.id if assignee == "me" else None if assignee == "none" else assignee,
        unassigned=assignee == "none",
        team=team,
        label=label,
        channel=channel,
        priority=priority,
        customer=customer,
        text=q.lower() if q else None,
        ascending=sort == "updated_at",
        before=read_cursor(cursor),
        limit=limit + 1,
    )
    position = await gateway.position_of_views(who.tenant)
    rows = await gateway.store.views.conversations(query)
    more = len(rows) > limit
    rows = rows[:limit]
    following = write_cursor(rows[-1].updated_at, rows[-1].id) if more else None
    return page([row.body for row in rows], following, position=position)


@router.post("", status_code=201, summary="Write first: start a conversation, or join the one there is")
async def start(gateway: Services, who: Who, body: NewConversation, idempotency_key: IdempotencyKey = None) -> Response:
    who.require(SCOPE)
    channel = await gateway.own_channel(who.tenant, body.channel)
    to = body.to
    if (to is None) == (body.customer is None):
        raise InvalidFields(fields={"to": "give either `to` or `customer`"})
    if to is None:
        to = await _address_of(gateway, who.tenant, body.customer or "", channel.id)
    address = adapter_for(channel.kind).address(channel, to)
    stream = gateway.stream_of_identity(who.tenant, address.identity)
    command = c.StartConversation(
        channel=channel.id,
        channel_kind=channel.kind,
        identity=address.identity,
        address=address.address,
        author=who.author,
        text=body.text,
        name=body.name,
        client_id=body.client_id or idempotency_key or fresh_client_id(),
    )
    done = await gateway.ask(who.tenant, stream, command)
    return raw(done.conversation, 200 if done.duplicate else 201)


async def _address_of(gateway: Gateway, tenant: str, customer: str, channel: str) -> str:
    """The customer's address on that channel. Raises NotFound, InvalidFields."""
    done = await gateway.ask(tenant, gateway.stream_of_customer(customer), c.GetCustomer())
    for identity in msgspec.json.decode(done.customer)["identities"]:
        if identity["channel"] == channel:
            return str(identity["address"])
    raise InvalidFields(fields={"customer": f"has no address on channel {channel}; give `to`"})


@router.get("/{id}", summary="Live state of one conversation, from its actor")
async def one(gateway: Services, who: Who, id: str) -> Response:
    who.require(SCOPE)
    return raw((await _ask(gateway, who, id, c.GetConversation(conversation=id))).conversation)


async def _ask(gateway: Gateway, who: Principal, id: str, command: c.Command) -> c.Done:
    return await gateway.ask(who.tenant, gateway.stream_of_conversation(id), command)


@router.patch("/{id}", summary="Change status, priority, assignee, team, labels, category, snoozed_until")
async def change(gateway: Services, who: Who, id: str, body: Change) -> Response:
    who.require(SCOPE)
    given = body.model_dump(exclude_unset=True)
    fields: dict[str, Any] = {name: given.get(name, UNSET) for name in Change.model_fields}
    for name in ("status", "priority", "labels"):
        if name in given and given[name] is None:
            raise InvalidFields(fields={name: "cannot be null"})
    if given.get("snoozed_until"):
        fields["snoozed_until"] = _instant(given["snoozed_until"])
    if given.get("assignee") and await gateway.agent_of(who.tenant, given["assignee"]) is None:
        raise InvalidFields(fields={"assignee": f"there is no agent {given['assignee']}"})
    if "labels" in given:
        fields["labels"] = list(dict.fromkeys(given["labels"]))
    command = c.UpdateConversation(conversation=id, by=who.author, **fields)
    return raw((await _ask(gateway, who, id, command)).conversation)


def _instant(text: str) -> int:
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise InvalidFields(
            fields={"snoozed_until": "takes an RFC 3339 instant such as 2026-12-24T09:00:00Z"}
        ) from None


@router.get("/{id}/messages", summary="Messages, oldest first; the newest page without before and after")
async def messages(
    gateway: Services,
    who: Who,
    id: str,
    before: Annotated[int | None, Query(ge=1)] = None,
    after: Annotated[int | None, Query(ge=0)] = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    who.require(SCOPE)
    done = await _ask(gateway, who, id, c.GetConversation(conversation=id))
    await gateway.reach(done)
    rows = await gateway.store.views.messages(id, before=before, after=after, limit=limit)
    return page([row.body for row in rows], None)


@router.post("/{id}/messages", status_code=201, summary="Reply to the customer, or leave a note")
async def send(
    gateway: Services, who: Who, id: str, body: NewMessage, idempotency_key: IdempotencyKey = None
) -> Response:
    who.require(SCOPE)
    command = c.SendMessage(
        conversation=id,
        author=who.author,
        text=body.text,
        client_id=body.client_id or idempotency_key or fresh_client_id(),
        kind=body.kind,
        if_seq=body.if_seq,
    )
    done = await _ask(gateway, who, id, command)
    message = done.message or await gateway.message_by_id(who.tenant, done.message_id or "")
    return raw(message, 200 if done.duplicate else 201)


@router.post("/{id}/read", summary="I have read up to a message (all of them, without `seq`)")
async def read(gateway: Services, who: Who, id: str, body: ReadUpTo | None = None) -> Response:
    who.require(SCOPE)
    seq = body.seq if body is not None and body.seq is not None else 2**31
    return raw((await _ask(gateway, who, id, c.MarkRead(conversation=id, seq=seq, by=who.author))).conversation)


@router.post("/{id}/typing", status_code=204, summary="I am typing")
async def typing(gateway: Services, who: Who, id: str, body: TypingOn | None = None) -> Response:
    who.require(SCOPE)
    await _ask(gateway, who, id, c.GetConversation(conversation=id))
    on = body.on if body is not None else True
    stream = gateway.stream_of_conversation(id)
    gateway.presence.typing(who.tenant, id, on=on, by=who.author, but=None, stream=stream)
    return Response(status_code=204)


@router.get("/{id}/events", summary="The conversation's journal")
async def events(
    gateway: Services,
    who: Who,
    id: str,
    until: Annotated[str | None, Query(max_length=64, description="only events up to this instant")] = None,
    after: Annotated[int, Query(ge=0, description="only events after this offset")] = 0,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    who.require(SCOPE)
    await _ask(gateway, who, id, c.GetConversation(conversation=id))
    stream = gateway.stream_of_conversation(id)
    bound = _instant(until) if until else None
    partition = stream_partition(stream, gateway.store.partitions)
    wrapped = (await gateway.store.journal.keys([stream])).get(stream)
    cipher = gateway.keyring.unwrap(stream, wrapped) if wrapped else None
    items = []
    for record in await gateway.store.journal.history(partition, stream, after, 10_000):
        opened = decode_record(record.body, stream=stream, offset=record.offset, cipher=cipher)
        if getattr(opened.event, "conversation", None) != id or (bound is not None and opened.at > bound):
            continue
        items.append(_event(record.offset, opened.at, opened.event))
        if len(items) > limit:
            break
    more = len(items) > limit
    items = items[:limit]
    return json({"items": items, "next_cursor": str(items[-1]["offset"]) if more else None})


def _event(offset: int, at: int, event: Any) -> dict[str, Any]:
    shown = msgspec.to_builtins(event)
    shown.pop("mark", None)
    shown.pop("type", None)
    return {"offset": offset, "type": type_name(event), "at": rfc3339(at), "data": shown}
