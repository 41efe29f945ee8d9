"""A real hub in real processes, for tests that go through its public doors only."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import websockets

from tests.processes import command_of, cpu_seconds, descendants

START_TIMEOUT_S = 60.0
CONNECTIONS_MAX_COUNT = 60
FRAME_TIMEOUT_S = 10.0
KEY = {"X-API-Key": "demo-key"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class HubProcess:
    """`args` follow `--demo`; whoever needs another host or no demo says so with `demo=False` and a `ready_url`.

    With a `command` of its own, such as a service's, it is told everything by variables.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        *,
        args: Sequence[str] = (),
        command: Sequence[str] = (),
        demo: bool = True,
        ready_url: str | None = None,
        **env: str,
    ) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}"
        self._args = ["--demo", *args] if demo else args
        self._command = command
        self._ready_url = ready_url or self.url
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("HUB_")} | env
        self.process: subprocess.Popen[bytes] | None = None
        self.seconds_to_ready = 0.0

    def start(self) -> HubProcess:
        began = time.monotonic()
        log = open(self.data_dir.with_suffix(".log"), "ab")  # noqa: SIM115 (lives as long as the process)
        command = [sys.executable, "-m", "api.cli", "serve", "--port", str(self.port)]
        command += ["--data-dir", str(self.data_dir), *self._args]
        told = {"HUB_DEMO": "true", "HUB_PORT": str(self.port), "HUB_DATA_DIR": str(self.data_dir)}
        self.process = subprocess.Popen(
            self._command or command,
            env=self._env | (told if self._command else {}),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        while time.monotonic() - began < START_TIMEOUT_S:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self._ready_url}/readyz", trust_env=False, timeout=5).status_code == 200:
                    self.seconds_to_ready = time.monotonic() - began
                    return self
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError("the hub did not start:\n" + self.log()[-4000:])

    def log(self) -> str:
        return self.data_dir.with_suffix(".log").read_text(errors="replace")

    def pid_of(self, name: str) -> int:
        """Of the processes of a Ray actor class the one that has worked most: not a standby."""
        return max((pid for pid in self.family() if f"ray::{name}" in command_of(pid)), key=cpu_seconds)

    def family(self) -> list[int]:
        """Every process of this hub."""
        assert self.process is not None
        return [self.process.pid, *descendants(self.process.pid)]

    def kill_all(self) -> None:
        """kill -9 of everything at once, as a power cut would."""
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self.process is not None
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        if self.process is None:
            return
        family = self.family()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process = None


@contextlib.contextmanager
def running_hub(data_dir: Path, **env: str) -> Iterator[HubProcess]:
    hub = HubProcess(data_dir, **env).start()
    try:
        yield hub
    finally:
        hub.stop()


@contextlib.asynccontextmanager
async def one_client_for_each_gateway(hub: HubProcess, count: int = 2) -> AsyncIterator[list[httpx.AsyncClient]]:
    """The kernel spreads connections over them: connect until all were met, and keep one to each."""
    async with contextlib.AsyncExitStack() as stack:
        found: dict[str, httpx.AsyncClient] = {}
        for _ in range(CONNECTIONS_MAX_COUNT):
            keep = httpx.Limits(max_connections=1, keepalive_expiry=120)
            http = httpx.AsyncClient(base_url=hub.url, limits=keep, trust_env=False, timeout=30)
            await stack.enter_async_context(http)
            name = (await http.get("/v1/status", headers=KEY)).json()["gateway"]
            found.setdefault(name, http)
            if len(found) == count:
                break
        assert len(found) == count, f"every connection met one of {sorted(found)}"
        yield list(found.values())


# --- the parties ------------------------------------------------------------------------------------------------------


class Frames:
    """A WebSocket as a sequence of JSON objects."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def send(self, **frame: Any) -> None:
        await self._connection.send(json.dumps(frame))

    async def next(self, timeout_s: float = FRAME_TIMEOUT_S) -> dict[str, Any]:
        async with asyncio.timeout(timeout_s):
            found: dict[str, Any] = json.loads(await self._connection.recv())
            return found

    async def until(self, type: str, **wanted: Any) -> dict[str, Any]:
        """The next frame of that type whose fields are as wanted; others are passed over."""
        while True:
            frame = await self.next()
            if frame["type"] == type and all(frame.get(name) == value for name, value in wanted.items()):
                return frame

    async def event(self, type: str) -> dict[str, Any]:
        while True:
            frame = await self.next()
            if frame["type"] == "event" and frame["event"]["type"] == type:
                return frame

    async def close_code(self) -> int:
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                async with asyncio.timeout(FRAME_TIMEOUT_S):
                    await self._connection.recv()
        return int(self._connection.close_code)


@contextlib.asynccontextmanager
async def connected(url: str) -> Any:
    async with websockets.connect(url, max_size=2**24) as connection:
        yield Frames(connection)


@contextlib.asynccontextmanager
async def agent_stream(hub: HubProcess, token: str = "demo-key", position: str | None = None) -> Any:
    """Signed in and subscribed to the inbox; `.subscribed` is the server's answer."""
    async with connected(f"{hub.ws}/v1/stream") as frames:
        await frames.send(type="auth", token=token)
        assert (await frames.next())["type"] == "ready"
        await frames.send(type="subscribe", topic="inbox", position=position)
        frames.subscribed = await frames.until("subscribed")
        yield frames


def whatsapp_payload(*messages: dict[str, Any], name: str = "Kerry Fisher", phone_number_id: str = "10001") -> bytes:
    """A webhook in the shape of Meta's published example."""
    sender = messages[0]["from"] if messages else "0"
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "16505551111", "phone_number_id": phone_number_id},
        "contacts": [{"profile": {"name": name}, "wa_id": sender}],
        "messages": list(messages),
    }
    change = {"value": value, "field": "messages"}
    return json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "0", "changes": [change]}]}).encode()


def whatsapp_text(sender: str, id: str, text: str) -> dict[str, Any]:
    stamp = str(int(time.time()))
    return {"from": sender, "id": id, "timestamp": stamp, "type": "text", "text": {"body": text}}


def signed(body: bytes, secret: str = "demo-secret") -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


async def deliver(http: httpx.AsyncClient, body: bytes, channel: str = "demo-whatsapp") -> httpx.Response:
    return await http.post(f"/webhooks/{channel}", content=body, headers=signed(body))


def client(hub: HubProcess, key: str = "demo-key") -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=hub.url, headers={"X-API-Key": key}, trust_env=False, timeout=30)
