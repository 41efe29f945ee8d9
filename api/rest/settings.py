"""Channels, agents and API keys: settings of a tenant. Secrets go in and never come out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.accounts import EMAIL_CLAIM
from api.auth import Principal, key_id, new_key
from api.context import Gateway
from api.passwords import hash_password
from api.rest.deps import Services, Who, json
from channels.registry import adapter_for
from hub import commands as c
from hub.errors import Conflict, HubError, InvalidFields, NotFound
from hub.ids import random_id
from hub.settings import KINDS, Agent, ApiKey, Channel, Setting

router = APIRouter(prefix="/v1", tags=["settings"])
SCOPE = "settings"
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, strip_whitespace=True)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{2,62}$")]
Value = Annotated[str, StringConstraints(max_length=4096)]
Values = Annotated[dict[Slug | Name, Value], Field(max_length=50)]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]{1,64}@[^@\s]{1,255}$", to_lower=True)]


Scope = Literal["conversations", "customers", "settings", "inbound", "stream"]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewChannel(Body):
    kind: Name
    name: Name
    id: Slug | None = None
    settings: Values = {}
    secrets: Values = {}


class NewAgent(Body):
    email: Email
    name: Name
    password: Annotated[str, StringConstraints(min_length=8, max_length=1024)]
    role: Literal["agent", "administrator"] = "agent"


class NewApiKey(Body):
    name: Name
    scopes: list[Scope] = ["conversations", "customers", "settings", "inbound", "stream"]


async def save(gateway: Gateway, who: Principal, setting: Setting, *, new: bool) -> None:
    """Decided by the tenant actor, and visible here when this returns."""
    kind = KINDS[type(setting)]
    id = setting.id
    command = c.PutSetting(
        kind=kind, id=id, document=gateway.vault.encode(setting), by=who.author, if_revision=0 if new else None
    )
    done = await gateway.ask(who.tenant, gateway.settings_stream(who.tenant), command)
    await gateway.reach(done)
    gateway.changes.made(kind, id)


async def remove(gateway: Gateway, who: Principal, kind: type[Setting], id: str) -> None:
    command = c.RemoveSetting(kind=KINDS[kind], id=id, by=who.author)
    done = await gateway.ask(who.tenant, gateway.settings_stream(who.tenant), command)
    await gateway.reach(done)
    gateway.changes.made(KINDS[kind], id)


def channel_json(gateway: Gateway, channel: Channel) -> dict[str, Any]:
    base = gateway.config.public_url or f"http://{gateway.config.host}:{gateway.config.port}"
    return {
        "id": channel.id,
        "kind": channel.kind,
        "name": channel.name,
        "settings": channel.settings,
        "secrets": dict.fromkeys(channel.secrets, "set"),
        "webhook_url": f"{base}/webhooks/{channel.id}",
    }


@router.get("/channels", summary="Connected provider accounts")
async def channels(gateway: Services, who: Who) -> Response:
    items = [channel_json(gateway, channel) for channel in await gateway.accounts.channels(who.tenant)]
    return json({"items": items, "next_cursor": None})


@router.post("/channels", status_code=201, summary="Connect a provider account")
async def connect(gateway: Services, who: Who, body: NewChannel) -> Response:
    who.require(SCOPE)
    try:
        adapter_for(body.kind)
    except HubError as error:
        raise InvalidFields(fields={"kind": error.detail}) from None
    id = body.id or random_id("chn")
    if await gateway.accounts.claim("channel-id", id, who.tenant) != who.tenant:
        raise Conflict(f"the channel id {id} is taken")
    channel = Channel(
        id=id,
        tenant=who.tenant,
        kind=body.kind,
        name=body.name,
        settings=dict(body.settings),
        secrets=dict(body.secrets),
    )
    await save(gateway, who, channel, new=True)
    return json(channel_json(gateway, channel), 201)


@router.get("/channels/{id}", summary="One channel")
async def one_channel(gateway: Services, who: Who, id: str) -> Response:
    return json(channel_json(gateway, await gateway.own_channel(who.tenant, id)))


@router.delete("/channels/{id}", status_code=204, summary="Disconnect a channel; its conversations stay")
async def disconnect(gateway: Services, who: Who, id: str) -> Response:
    who.require(SCOPE)
    await gateway.own_channel(who.tenant, id)
    await remove(gateway, who, Channel, id)
    return Response(status_code=204)


def agent_json(agent: Agent, online: set[str]) -> dict[str, Any]:
    told = {"id": agent.id, "name": agent.name, "email": agent.email, "role": agent.role}
    return {**told, "online": agent.id in online}


@router.get("/agents", summary="The people who answer")
async def agents(gateway: Services, who: Who) -> Response:
    found = await gateway.accounts.agents(who.tenant)
    online = await gateway.presence.online(who.tenant)
    return json({"items": [agent_json(agent, online) for agent in found], "next_cursor": None})


@router.post("/agents", status_code=201, summary="Add an agent")
async def add_agent(gateway: Services, who: Who, body: NewAgent) -> Response:
    who.require(SCOPE)
    agent = Agent(id=random_id("agt"), tenant=who.tenant, email=body.email, name=body.name, role=body.role)
    owner = await gateway.accounts.claim(EMAIL_CLAIM, agent.email, f"{who.tenant}/{agent.id}")
    if owner != f"{who.tenant}/{agent.id}":
        raise Conflict("somebody signs in with this e-mail address already")
    agent.password = hash_password(body.password)
    await save(gateway, who, agent, new=True)
    return json(agent_json(agent, set()), 201)


@router.get("/api-keys", summary="Keys of machines; the key itself is shown once, when it is made")
async def api_keys(gateway: Services, who: Who) -> Response:
    who.require(SCOPE)
    items = [_key_json(key) for key in await gateway.accounts.api_keys(who.tenant)]
    return json({"items": items, "next_cursor": None})


def _key_json(key: ApiKey) -> dict[str, Any]:
    return {"id": key.id[:16], "name": key.name, "hint": key.hint, "scopes": key.scopes}


@router.post("/api-keys", status_code=201, summary="Make a key")
async def add_api_key(gateway: Services, who: Who, body: NewApiKey) -> Response:
    who.require(SCOPE)
    secret = new_key()
    key = ApiKey(id=key_id(secret), tenant=who.tenant, name=body.name, hint=f"…{secret[-4:]}", scopes=list(body.scopes))
    await save(gateway, who, key, new=True)
    return json({**_key_json(key), "key": secret}, 201)


@router.delete("/api-keys/{id}", status_code=204, summary="Revoke a key at once")
async def revoke(gateway: Services, who: Who, id: str) -> Response:
    who.require(SCOPE)
    for key in await gateway.accounts.api_keys(who.tenant):
        if key.id[:16] == id:
            await remove(gateway, who, ApiKey, key.id)
            return Response(status_code=204)
    raise NotFound(f"there is no API key {id}")
