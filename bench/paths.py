"""The ways a customer's message can take into the hub."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from typing import Protocol

from bench.ledger import Ledger
from bench.peers.customer import Customer
from bench.peers.http import HttpPool, request
from bench.words import text

CONNECT_MAX_AT_ONCE = 100
CONNECT_TIMEOUT_S = 60.0
APP_SECRET = b"demo-secret"
PHONE_NUMBER_ID = "10001"


class Path(Protocol):
    async def open(self) -> None: ...

    def write(self, n: int, conversation: int) -> None:
        """Send message `n` now."""
        ...

    def flush(self) -> None:
        """Send what is collected for a batch."""
        ...

    async def close(self) -> None: ...


class WebChat:
    def __init__(self, url: str, channel: str, run: str, ledger: Ledger, *, gives_up: bool = False) -> None:
        target = f"{url.replace('http', 'ws', 1)}/v1/chat/{channel}"
        self.customers = [Customer(target, run, n, ledger, gives_up=gives_up) for n in range(ledger.conversations)]

    async def open(self) -> None:
        slots = asyncio.Semaphore(CONNECT_MAX_AT_ONCE)

        async def one(customer: Customer) -> None:
            async with slots:
                customer.start()
                await customer.welcomed.wait()
                customer.warm_up()
                await customer.warm.wait()

        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await asyncio.gather(*(one(customer) for customer in self.customers))

    def write(self, n: int, conversation: int) -> None:
        self.customers[conversation].write(n)

    def flush(self) -> None:
        pass

    async def close(self) -> None:
        await asyncio.gather(*(customer.stop() for customer in self.customers))


class _Http:
    def __init__(self, url: str, run: str, ledger: Ledger, connections: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._host, self._port = host, int(port or 80)
        self._run = run
        self._ledger = ledger
        self._connections = connections
        self._pool: HttpPool | None = None

    async def open(self) -> None:
        self._pool = HttpPool(self._host, self._port, self._connections, self._done)

    def _post(self, token: object, path: str, headers: dict[str, str], body: bytes) -> None:
        assert self._pool is not None
        headers = {"Content-Type": "application/json", **headers}
        self._pool.put(token, request("POST", path, self._host, headers, body))

    def _done(self, token: object, status: int, body: bytes) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        if self._pool is not None:
            self._ledger.retries += self._pool.retries
            await self._pool.stop()


class Inbound(_Http):
    """`POST /v1/channels/{id}/inbound` in lists."""

    def __init__(
        self, url: str, channel: str, run: str, ledger: Ledger, connections: int, key: str, batch: int
    ) -> None:
        super().__init__(url, run, ledger, connections)
        self._path = f"/v1/channels/{channel}/inbound"
        self._key = key
        self._batch = batch
        self._items: list[tuple[int, dict[str, str]]] = []

    def write(self, n: int, conversation: int) -> None:
        item = {
            "external_id": f"{self._run}-{n}",
            "from": f"{self._run}-{conversation}",
            "text": text(self._run, conversation, n),
        }
        self._items.append((n, item))
        if len(self._items) >= self._batch:
            self.flush()

    def flush(self) -> None:
        if not self._items:
            return
        items, self._items = self._items, []
        body = json.dumps([item for _, item in items], ensure_ascii=False).encode()
        self._post([n for n, _ in items], self._path, {"X-API-Key": self._key}, body)

    def _done(self, token: object, status: int, body: bytes) -> None:
        at = time.perf_counter()
        numbers: list[int] = token  # type: ignore[assignment]
        if status != 200:
            self._ledger.errors += len(numbers)
            return
        for n, result in zip(numbers, json.loads(body)["items"], strict=True):
            if result["status"] in ("accepted", "duplicate"):
                self._ledger.ack(n, at)
            else:
                self._ledger.errors += 1


class WhatsApp(_Http):
    """Signed Cloud API webhooks, one message each."""

    def __init__(self, url: str, channel: str, run: str, ledger: Ledger, connections: int) -> None:
        super().__init__(url, run, ledger, connections)
        self._path = f"/webhooks/{channel}"
        self._number = int(time.time()) % 10**8

    def write(self, n: int, conversation: int) -> None:
        sender = f"58{self._number:08d}{conversation:05d}"
        message = {
            "from": sender,
            "id": f"wamid.{self._run}{n}",
            "timestamp": str(int(time.time())),
            "type": "text",
            "text": {"body": text(self._run, conversation, n)},
        }
        value = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15550001", "phone_number_id": PHONE_NUMBER_ID},
            "contacts": [{"profile": {"name": f"Customer {conversation}"}, "wa_id": sender}],
            "messages": [message],
        }
        payload = {
            "object": "whatsapp_business_account",
            "entry": [{"id": "1", "changes": [{"value": value, "field": "messages"}]}],
        }
        body = json.dumps(payload, ensure_ascii=False).encode()
        signature = "sha256=" + hmac.digest(APP_SECRET, body, "sha256").hex()
        self._post(n, self._path, {"X-Hub-Signature-256": signature}, body)

    def flush(self) -> None:
        pass

    def _done(self, token: object, status: int, body: bytes) -> None:
        if status == 200:
            self._ledger.ack(int(token), time.perf_counter())  # type: ignore[call-overload]
        else:
            self._ledger.errors += 1
