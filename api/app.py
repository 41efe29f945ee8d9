"""The composition root: one ASGI application out of all doors.

Hot paths are recognised by their path and go straight to bare ASGI; everything else is FastAPI's.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.asgi import PROBLEM, Receive, Scope, Send, problem_body, problem_headers
from api.chat import customer_chat
from api.context import Gateway, problem_of
from api.inbound import inbound
from api.loopback import Loopback
from api.pages import Pages
from api.rest import auth, conversations, customers, settings, system
from api.sessions import GOING_AWAY
from api.stream import agent_stream
from api.webhooks import webhook
from hub import __version__
from hub.errors import BadRequest, HubError, InvalidFields, MalformedBody, NotFound

CSP = (
    b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    b"connect-src 'self' ws: wss:; frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
)


class Application:
    """Dispatches a connection to its door."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._rest = rest_app(gateway)
        self._pages = Pages(Path(__file__).parent.parent / "web" / "static", demo=gateway.config.demo)
        self._loopback = Loopback(gateway) if gateway.config.demo else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind, path = scope["type"], scope.get("path", "")
        if kind == "websocket":
            await self._websocket(path, scope, receive, send)
        elif kind == "http":
            await self._http(path, scope, receive, send)
        else:
            await _lifespan(receive, send)

    async def _websocket(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        if self._gateway.draining:
            await _close(receive, send, GOING_AWAY, "this server is going away; resume elsewhere")
        elif path == "/v1/stream":
            await agent_stream(self._gateway, scope, receive, send)
        elif path.startswith("/v1/chat/") and path.count("/") == 3:
            await customer_chat(self._gateway, path[9:], scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 4404, "reason": "no such stream"})

    async def _http(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if self._gateway.draining:
            send = _for_the_last_time(send)
        if path.startswith("/webhooks/") and path.count("/") == 2 and method in ("GET", "POST"):
            await webhook(self._gateway, path[10:], scope, receive, send)
        elif method == "POST" and path.startswith("/v1/channels/") and path.endswith("/inbound"):
            await inbound(self._gateway, path[13:-8], scope, receive, send)
        elif self._loopback is not None and path.startswith("/demo/provider/"):
            await self._loopback(scope, receive, send)
        elif method in ("GET", "HEAD") and (page := self._pages.find(path)) is not None:
            await page.respond(scope, send, CSP)
        else:
            await self._rest(scope, receive, send)


async def _close(receive: Receive, send: Send, code: int, reason: str) -> None:
    """Accepted first: a browser learns the code of a WebSocket that was open only."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": code, "reason": reason})


def _for_the_last_time(send: Send) -> Send:
    """The answer, and a word that the next request must come on a new connection: to somebody else, we hope."""

    async def tell(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await send(message)

    return tell


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def rest_app(gateway: Gateway) -> FastAPI:
    app = FastAPI(
        title="Cocolu Hub",
        version=__version__,
        description="A real-time omnichannel messaging hub. Streams: `/v1/stream` (agents), `/v1/chat/{channel}` (customers).",
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.gateway = gateway
    for module in (auth, conversations, customers, settings, system):
        app.include_router(module.router)
    app.add_exception_handler(HubError, _show)
    app.add_exception_handler(RequestValidationError, _show_validation)
    app.add_exception_handler(HTTPException, _show_http)
    app.add_exception_handler(Exception, _show)
    return app


def _response(error: HubError) -> Response:
    headers = {name.decode(): value.decode() for name, value in problem_headers(error)}
    return Response(problem_body(error), error.status, headers, media_type=PROBLEM.decode())


async def _show(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    gateway: Gateway = request.app.state.gateway
    gateway.metrics.refused.labels(problem.code).inc()
    return _response(problem)


async def _show_validation(request: Request, error: Exception) -> Response:
    details: list[Any] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    if any(detail["type"] == "json_invalid" for detail in details):
        return await _show(request, MalformedBody())
    fields = {".".join(str(part) for part in detail["loc"][1:]) or "body": detail["msg"] for detail in details}
    return await _show(request, InvalidFields(fields=fields))


async def _show_http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return await _show(request, NotFound("there is nothing at this address"))
    problem = BadRequest(str(getattr(error, "detail", "")) or "the request cannot be understood")
    gateway: Gateway = request.app.state.gateway
    gateway.metrics.refused.labels(problem.code).inc()
    response = _response(problem)
    response.status_code = status
    return response
