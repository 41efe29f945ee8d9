"""Signing in, and who am I."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from api.auth import CREDENTIAL_MAX_CHARS
from api.context import Gateway
from api.passwords import verify
from api.rest.deps import Services, Who, json
from hub.errors import InvalidFields, Unauthenticated

router = APIRouter(tags=["auth"])
SIGN_INS_PER_MINUTE_CLIENT = "sign-in"


@router.post("/v1/auth/token", summary="Sign in, or refresh (OAuth 2.0 password and refresh_token grants)")
async def token(
    request: Request,
    gateway: Services,
    grant_type: Annotated[str, Form()] = "password",
    username: Annotated[str | None, Form(max_length=320)] = None,
    password: Annotated[str | None, Form(max_length=1024)] = None,
    refresh_token: Annotated[str | None, Form(max_length=512)] = None,
) -> Response:
    await _limit(gateway, request)
    if grant_type == "refresh_token":
        if not refresh_token:
            raise InvalidFields(fields={"refresh_token": "is required for this grant"})
        return json(await gateway.auth.refresh(refresh_token))
    if grant_type != "password":
        raise InvalidFields(fields={"grant_type": "takes password or refresh_token"})
    missing = {name: "is required" for name, value in (("username", username), ("password", password)) if not value}
    if missing or username is None or password is None:
        raise InvalidFields(fields=missing)
    agent_id = await gateway.accounts.agent_id_of_email(username)
    agent = await gateway.accounts.agent(agent_id) if agent_id else None
    if not await verify(password, agent.password if agent else None) or agent is None:
        raise Unauthenticated("the e-mail address or the password is wrong")
    return json(await gateway.auth.sign_in(agent))


@router.post("/v1/auth/revoke", summary="Sign out: end all tokens of a sign-in, by any one of them (RFC 7009)")
async def revoke(
    request: Request,
    gateway: Services,
    token: Annotated[str, Form(min_length=1, max_length=CREDENTIAL_MAX_CHARS)],
    token_type_hint: Annotated[str | None, Form(max_length=64)] = None,
) -> Response:
    """200 for a token that is not valid, too: what its sender wants is so already. The hint is not needed."""
    await _limit(gateway, request)
    await gateway.auth.revoke(token)
    return Response()


async def _limit(gateway: Gateway, request: Request) -> None:
    """Raises RateLimited. Who has not signed in is known by their address."""
    client = request.client.host if request.client else "unknown"
    if not gateway.config.demo:
        await gateway.limits.take(f"{SIGN_INS_PER_MINUTE_CLIENT}:{client}")


@router.get("/v1/me", summary="Who I am")
async def me(who: Who) -> Response:
    return json(
        {
            "id": who.id,
            "type": who.type,
            "name": who.name,
            "tenant": who.tenant,
            "role": who.role,
            "scopes": sorted(who.scopes),
        }
    )
