"""Locust users: customers in the web chat, agents on the stream, API clients, provider webhooks.

    locust -f bench/locustfile.py --headless --host http://127.0.0.1:8000 -u 100 -r 50 -t 30s

For throughput use `python -m bench.flood`; Locust's own cost is part of what it measures.
"""

from __future__ import annotations

import hmac
import json
import random
import secrets
import time
from typing import Any

from locust import FastHttpUser, User, between, events, task
from websockets.sync.client import ClientConnection, connect

from bench.words import PHRASES

KEY = {"X-API-Key": "demo-key"}
APP_SECRET = b"demo-secret"
ANSWER_TIMEOUT_S = 10.0


def socket_url(host: str | None, path: str) -> str:
    return (host or "").replace("http", "ws", 1) + path


class SocketUser(User):
    """Measures a frame and its answer as one request."""

    abstract = True
    wait_time = between(0.05, 0.15)
    socket: ClientConnection

    def exchange(self, name: str, frame: dict[str, Any], answer: str) -> dict[str, Any] | None:
        began, error, found = time.perf_counter(), None, None
        try:
            self.socket.send(json.dumps(frame))
            found = self.until(answer)
        except Exception as problem:
            error = problem
        taken_ms = (time.perf_counter() - began) * 1000
        fire: Any = events.request.fire
        fire(request_type="WS", name=name, response_time=taken_ms, response_length=0, exception=error, context={})
        return found

    def until(self, type: str) -> dict[str, Any]:
        while True:
            frame: dict[str, Any] = json.loads(self.socket.recv(ANSWER_TIMEOUT_S))
            if frame["type"] == type:
                return frame
            if frame["type"] == "error":
                raise RuntimeError(frame["code"])

    def on_stop(self) -> None:
        self.socket.close()


class CustomerUser(SocketUser):
    """Writes in the web chat, and waits for each acknowledgement."""

    weight = 6

    def on_start(self) -> None:
        self.socket = connect(socket_url(self.host, "/v1/chat/demo-web"))
        self.exchange("chat hello", {"type": "hello", "visitor": None, "name": "Locust"}, "welcome")

    @task
    def write(self) -> None:
        frame = {"type": "message", "client_id": secrets.token_hex(8), "text": random.choice(PHRASES)}
        self.exchange("chat message", frame, "ack")


class AgentUser(SocketUser):
    """Follows the inbox and answers what comes."""

    weight = 1

    def on_start(self) -> None:
        self.socket = connect(socket_url(self.host, "/v1/stream"), max_queue=None)
        self.exchange("stream auth", {"type": "auth", "token": "demo-key"}, "ready")
        self.exchange("stream subscribe", {"type": "subscribe", "topic": "inbox", "position": None}, "subscribed")

    @task
    def answer(self) -> None:
        event = self.until("event")["event"]
        if event["type"] != "message.received":
            return
        frame = {"type": "send", "id": "1", "conversation": event["conversation"]["id"], "text": "Gracias por escribir"}
        self.exchange("stream send", frame | {"client_id": secrets.token_hex(8)}, "ack")


class ApiClientUser(FastHttpUser):
    """Hands over messages in lists, and reads the inbox now and then."""

    weight = 2
    wait_time = between(0.05, 0.15)

    @task(8)
    def inbound(self) -> None:
        who = secrets.token_hex(4)
        items = [{"external_id": secrets.token_hex(8), "from": who, "text": random.choice(PHRASES)} for _ in range(10)]
        self.client.post("/v1/channels/demo-api/inbound", json=items, headers=KEY, name="inbound ×10")

    @task(1)
    def inbox(self) -> None:
        self.client.get("/v1/conversations?limit=25", headers=KEY, name="inbox")


class WebhookUser(FastHttpUser):
    """WhatsApp's webhooks, signed, one message each."""

    weight = 3
    wait_time = between(0.05, 0.15)

    def on_start(self) -> None:
        self.sender = f"58414{random.randrange(10**7):07d}"

    @task
    def deliver(self) -> None:
        stamp = str(int(time.time()))
        message = {"from": self.sender, "id": f"wamid.{secrets.token_hex(8)}", "timestamp": stamp, "type": "text"}
        value = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15550001", "phone_number_id": "10001"},
            "contacts": [{"profile": {"name": "Locust"}, "wa_id": self.sender}],
            "messages": [message | {"text": {"body": random.choice(PHRASES)}}],
        }
        entry = {"id": "1", "changes": [{"value": value, "field": "messages"}]}
        body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
        signature = "sha256=" + hmac.digest(APP_SECRET, body, "sha256").hex()
        headers = {"X-Hub-Signature-256": signature, "Content-Type": "application/json"}
        self.client.post("/webhooks/demo-whatsapp", data=body.decode(), headers=headers, name="whatsapp webhook")
