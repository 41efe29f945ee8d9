"""A WebSocket that comes back: reconnects with jitter until told to stop."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

RECONNECT_FIRST_S = 0.05
RECONNECT_MAX_S = 2.0


class Socket(WSListener):
    """Subclasses say what to send on opening and what to do with a text frame."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.transport: WSTransport | None = None
        self.stopped = False
        self.reconnects = -1
        self._task: asyncio.Task[None] | None = None
        self._parts: list[bytes] = []

    def opened(self) -> None:
        raise NotImplementedError

    def text(self, raw: bytes) -> None:
        raise NotImplementedError

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    async def stop(self) -> None:
        self.stopped = True
        if self.transport is not None:
            self.transport.disconnect()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def send(self, raw: bytes) -> bool:
        if self.transport is None:
            return False
        self.transport.send(WSMsgType.TEXT, raw)
        return True

    async def _keep_connected(self) -> None:
        delay_s = RECONNECT_FIRST_S
        while not self.stopped:
            try:
                transport, _ = await ws_connect(lambda: self, self.url, max_frame_size=64 * 1024 * 1024)
                delay_s = RECONNECT_FIRST_S
                await transport.wait_disconnected()
            except Exception:
                delay_s = min(delay_s * 2, RECONNECT_MAX_S)
            self.transport = None
            await asyncio.sleep(delay_s * random.random())

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.reconnects += 1
        self.opened()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.transport = None

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind: Any = frame.msg_type
        if kind == WSMsgType.CLOSE:
            transport.disconnect()
            return
        if kind not in (WSMsgType.TEXT, WSMsgType.CONTINUATION):
            return
        if frame.fin and not self._parts:
            self.text(frame.get_payload_as_bytes())
            return
        self._parts.append(frame.get_payload_as_bytes())
        if frame.fin:
            raw, self._parts = b"".join(self._parts), []
            self.text(raw)
