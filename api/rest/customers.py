"""Customers: what the CRM will grow from."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from msgspec import UNSET
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.rest.deps import PAGE_DEFAULT, Cursor, Limit, Services, Who, page, raw, read_cursor, write_cursor
from hub import commands as c

router = APIRouter(prefix="/v1/customers", tags=["customers"])
SCOPE = "customers"
ATTRIBUTES_MAX_COUNT = 100
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Value = Annotated[str, StringConstraints(max_length=1024)]


class Change(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Name | None = None
    attributes: Annotated[dict[Key, Value | None], Field(max_length=ATTRIBUTES_MAX_COUNT)] | None = None


@router.get("", summary="Customers, the last seen first")
async def listing(
    gateway: Services,
    who: Who,
    q: Annotated[str | None, Query(max_length=256)] = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> Response:
    who.require(SCOPE)
    await gateway.views_ready(who.tenant)
    text = q.lower() if q else None
    rows = await gateway.store.views.customers(who.tenant, text=text, before=read_cursor(cursor), limit=limit + 1)
    more = len(rows) > limit
    rows = rows[:limit]
    return page([row.body for row in rows], write_cursor(rows[-1].updated_at, rows[-1].id) if more else None)


@router.get("/{id}", summary="One customer, from its actor")
async def one(gateway: Services, who: Who, id: str) -> Response:
    who.require(SCOPE)
    return raw((await gateway.ask(who.tenant, gateway.stream_of_customer(id), c.GetCustomer())).customer)


@router.patch("/{id}", summary="Rename, or set attributes (null removes one)")
async def change(gateway: Services, who: Who, id: str, body: Change) -> Response:
    who.require(SCOPE)
    given: dict[str, Any] = body.model_dump(exclude_unset=True)
    attributes = given.get("attributes")
    command = c.UpdateCustomer(name=given.get("name", UNSET), attributes=UNSET if attributes is None else attributes)
    return raw((await gateway.ask(who.tenant, gateway.stream_of_customer(id), command)).customer)
