"""The door of the built-in provider, in demo mode: `/demo/provider/whatsapp/v21.0/{phone number id}/messages`."""

from __future__ import annotations

import httpx

from api.asgi import Receive, Scope, Send, read_body, respond, respond_problem
from api.context import Gateway, problem_of
from channels.loopback.whatsapp import LoopbackWhatsApp
from hub.errors import NotFound

DEMO_CHANNEL = "demo-whatsapp"
DEMO_APP_SECRET = "demo-secret"


class Loopback:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._http: httpx.AsyncClient | None = None
        self._whatsapp = LoopbackWhatsApp(app_secret=DEMO_APP_SECRET, post=self._post)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            parts = scope["path"].split("/")
            if len(parts) != 7 or parts[3] != "whatsapp" or parts[6] != "messages" or scope["method"] != "POST":
                raise NotFound("the built-in provider knows only WhatsApp messages")
            status, body = self._whatsapp.take(parts[5], await read_body(receive))
            await respond(send, status, body)
        except Exception as error:
            await respond_problem(send, problem_of(error))

    async def _post(self, body: bytes, headers: dict[str, str]) -> int:
        config = self._gateway.config
        if self._http is None:
            self._http = httpx.AsyncClient(trust_env=False, timeout=10)
        url = f"http://{config.host}:{config.port}/webhooks/{DEMO_CHANNEL}"
        try:
            return (await self._http.post(url, content=body, headers=headers)).status_code
        except httpx.HTTPError as error:
            raise OSError(str(error)) from error
