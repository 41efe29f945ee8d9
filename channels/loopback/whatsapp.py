"""A Cloud API that answers as Meta's would: takes a message, then posts its signed statuses to our webhook."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

log = logging.getLogger("hub.loopback")

STATUS_DELAY_S = 0.08
CALLBACK_ATTEMPTS_MAX_COUNT = 6
CALLBACK_BACKOFF_FIRST_S = 0.2
REMEMBERED_MAX_COUNT = 1_000
Post = Callable[[bytes, dict[str, str]], Awaitable[int]]


class LoopbackWhatsApp:
    """`post` delivers a signed body to the channel's webhook and returns the HTTP status."""

    def __init__(self, *, app_secret: str, post: Post) -> None:
        self._secret = app_secret.encode()
        self._post = post
        self._numbers = itertools.count(1)
        self._run = f"{time.time_ns():x}"
        self.received: deque[dict[str, Any]] = deque(maxlen=REMEMBERED_MAX_COUNT)
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, phone_number_id: str, body: bytes) -> tuple[int, bytes]:
        """`POST /{phone_number_id}/messages`: (HTTP status, JSON)."""
        try:
            message = msgspec.json.decode(body)
            to = str(message["to"])
        except (msgspec.DecodeError, KeyError, TypeError):
            return 400, msgspec.json.encode({"error": {"message": "(#100) Invalid parameter", "code": 100}})
        wamid = f"wamid.LOOPBACK{self._run}{next(self._numbers)}"
        self.received.append({"id": wamid, **message})
        task = asyncio.get_running_loop().create_task(self._tell(phone_number_id, wamid, to, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        answer = {
            "messaging_product": "whatsapp",
            "contacts": [{"input": to, "wa_id": to.lstrip("+")}],
            "messages": [{"id": wamid, "message_status": "accepted"}],
        }
        return 200, msgspec.json.encode(answer)

    async def _tell(self, phone_number_id: str, wamid: str, to: str, message: dict[str, Any]) -> None:
        for status in ("sent", "delivered", "read"):
            await asyncio.sleep(STATUS_DELAY_S)
            news = {
                "id": wamid,
                "status": status,
                "timestamp": str(int(time.time())),
                "recipient_id": to.lstrip("+"),
                "biz_opaque_callback_data": message.get("biz_opaque_callback_data"),
            }
            await self._deliver(_payload(phone_number_id, news))

    async def _deliver(self, payload: dict[str, Any]) -> None:
        body = msgspec.json.encode(payload)
        signature = "sha256=" + hmac.digest(self._secret, body, "sha256").hex()
        headers = {"content-type": "application/json", "x-hub-signature-256": signature}
        for attempt in range(CALLBACK_ATTEMPTS_MAX_COUNT):
            try:
                if await self._post(body, headers) == 200:
                    return
            except OSError as error:
                log.debug("the webhook was not reached: %s", error)
            await asyncio.sleep(CALLBACK_BACKOFF_FIRST_S * 2**attempt)


def _payload(phone_number_id: str, status: dict[str, Any]) -> dict[str, Any]:
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550001", "phone_number_id": phone_number_id},
        "statuses": [status],
    }
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": "loopback", "changes": [{"value": value, "field": "messages"}]}],
    }
