"""A web chat customer: says hello, writes on schedule, sends again what was not acknowledged."""

from __future__ import annotations

import asyncio
import json
import random
import time

from picows import WSTransport

from bench.ledger import Ledger
from bench.peers.socket import Socket
from bench.words import text

RETRY_AFTER_S = 0.2
_ACK = b'{"type":"ack","client_id":"'


class Customer(Socket):
    def __init__(self, url: str, run: str, number: int, ledger: Ledger, *, gives_up: bool = False) -> None:
        """`gives_up`: what is refused is not sent again."""
        super().__init__(url)
        self._gives_up = gives_up
        self._run = run
        self._number = number
        self._ledger = ledger
        self._token: str | None = None
        self._waiting: dict[int, bytes] = {}
        self.welcomed = asyncio.Event()
        self.warm = asyncio.Event()
        self._warm_id = f"warm-{run}-{number}"

    def opened(self) -> None:
        self.send(json.dumps({"type": "hello", "token": self._token, "name": f"Customer {self._number}"}).encode())

    def warm_up(self) -> None:
        self.send(json.dumps({"type": "message", "client_id": self._warm_id, "text": "hola"}).encode())

    def write(self, n: int) -> None:
        words = json.dumps(text(self._run, self._number, n), ensure_ascii=False)
        frame = f'{{"type":"message","client_id":"{self._run}-{n}","text":{words}}}'.encode()
        self._waiting[n] = frame
        if self.welcomed.is_set():
            self.send(frame)

    def text(self, raw: bytes) -> None:
        if raw.startswith(_ACK):
            end = raw.index(b'"', len(_ACK))
            name = raw[len(_ACK) : end]
            if name == self._warm_id.encode():
                self.warm.set()
                return
            n = int(name[name.rindex(b"-") + 1 :])
            self._waiting.pop(n, None)
            self._ledger.ack(n, time.perf_counter())
            return
        frame = json.loads(raw)
        if frame["type"] == "welcome":
            self._token = frame["token"]
            self.welcomed.set()
            for waiting in list(self._waiting.values()):
                self.send(waiting)
        elif frame["type"] == "error":
            self._refused(frame)

    def _refused(self, frame: dict[str, object]) -> None:
        name = str(frame.get("client_id") or "")
        if not frame.get("retryable") or not name:
            self._ledger.errors += 1
            return
        if self._gives_up and name != self._warm_id:
            n = int(name.rpartition("-")[2])
            if self._waiting.pop(n, None) is not None:
                self._ledger.refused.add(n)
            return
        self._ledger.retries += 1
        told_s = frame.get("retry_after")
        wait_s = max(RETRY_AFTER_S, float(told_s) if isinstance(told_s, int | float) else 0.0)
        asyncio.get_running_loop().call_later(wait_s * random.uniform(1, 1.5), self._again, name)

    def _again(self, name: str) -> None:
        if name == self._warm_id:
            self.warm_up()
            return
        frame = self._waiting.get(int(name.rpartition("-")[2]))
        if frame is not None:
            self.send(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        super().on_ws_disconnected(transport)
        self.welcomed.clear()
