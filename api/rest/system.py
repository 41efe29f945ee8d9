"""Health, metrics, and what the command line asks."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, StringConstraints

from actors.assignment import Assignment
from api.rest.deps import Services, Who, json
from hub import __version__
from hub.errors import Forbidden, HubError

router = APIRouter(tags=["system"])


@router.get("/healthz", summary="Alive")
async def healthz() -> Response:
    return json({"status": "ok"})


@router.get("/readyz", summary="Can take traffic")
async def readyz(gateway: Services) -> Response:
    checks = await _ask_shards(gateway)
    ok = gateway.router.complete and all(checks.values()) and not gateway.draining
    state = "draining" if gateway.draining else "ready" if ok else "waiting for shards"
    return json({"status": state, "shards": checks, "shared": gateway.shared.health().state}, 200 if ok else 503)


async def _ask_shards(gateway: Services) -> dict[str, bool]:
    """Of those that own something, whether each answers."""

    async def one(shard: str) -> bool:
        try:
            await gateway.router.metrics(shard)
        except HubError:
            return False
        return True

    shards = gateway.router.shards
    return dict(zip(shards, await asyncio.gather(*(one(shard) for shard in shards)), strict=True))


@router.get("/metrics", summary="Prometheus metrics of this gateway and its shards")
async def metrics(gateway: Services) -> Response:
    for shard in gateway.router.members:
        try:
            gateway.metrics.shards.by_shard[shard] = await gateway.router.metrics(shard)
        except HubError:
            gateway.metrics.shards.by_shard.pop(shard, None)
    gateway.metrics.shared.health = gateway.shared.health()
    gateway.metrics.published.set(gateway.fanout.published)
    gateway.metrics.not_admitted.set(gateway.admission.refused + gateway.router.lanes.refused)
    gateway.metrics.waiting.set(gateway.router.lanes.queued)
    gateway.metrics.lag_seconds.set(gateway.admission.lag_s)
    return Response(gateway.metrics.text(gateway.name), media_type="text/plain; version=0.0.4")


@router.get("/v1/status", summary="What the hub is made of (operators only)")
async def status(gateway: Services, who: Who) -> Response:
    if who.role != "operator" and "settings" not in who.scopes:
        raise Forbidden("only operators and administrators may see this")
    figures = {}
    for shard in gateway.router.members:
        try:
            figures[shard] = await gateway.router.metrics(shard)
        except HubError as error:
            figures[shard] = {"unavailable": error.detail}  # type: ignore[dict-item]
    assignment = gateway.router.directory.assignment
    return json(
        {
            "version": __version__,
            "gateway": gateway.name,
            "node": gateway.node,
            "shards": figures,
            "sessions": gateway.fanout.sessions(),
            "nodes": _nodes(assignment),
            "members": [
                {"name": m.name, "role": m.role, "node": m.node, "partitions": len(assignment.of(m.name))}
                for m in assignment.members
            ],
        }
    )


def _nodes(assignment: Assignment) -> list[dict[str, object]]:
    """What each node carries; one that drains says so until nobody is left on it."""
    return [
        {
            "name": node,
            "state": "draining" if node in assignment.draining else "serving",
            "partitions": sum(len(assignment.of(m.name)) for m in assignment.members if m.node == node),
        }
        for node in sorted({member.node for member in assignment.members})
    ]


class Drain(BaseModel):
    model_config = ConfigDict(extra="forbid")
    node: Annotated[str, StringConstraints(max_length=128)] = ""


@router.post("/v1/drain", summary="Empty a node, or stop the hub (operators only); ask again to see how far it is")
async def drain(gateway: Services, who: Who, body: Drain) -> Response:
    if who.role != "operator":
        raise Forbidden("only operators may drain; use hub drain")
    return json(msgspec.msgpack.decode(await gateway.router.directory.leave(body.node)))
