"""uvicorn as a gateway runs it: without signal handling, and with an end that refuses nobody."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from typing import Any

import uvicorn

FAREWELL_S = 0.25
"""How long those who were still let in have for their request to arrive."""
ACCEPTS_MAX = 4_096


class Server(uvicorn.Server):
    def __init__(self, settings: uvicorn.Config) -> None:
        super().__init__(settings)
        # The supervisor decides when to stop.
        self.capture_signals = contextlib.nullcontext  # type: ignore[assignment, method-assign]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Whoever is connected already, and waits in the listener's queue, would be cut off: let them in first.

        The kernel gives new connections to other listeners of a shared port once ours is closed, but not those.
        """
        waiting = [client for listener in sockets or [] for client in _accept_all(listener)]
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        loop = asyncio.get_running_loop()
        for client in waiting:
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(self._protocol, client)
        if waiting:
            await asyncio.sleep(FAREWELL_S)
        await super().shutdown(sockets)

    @property
    def _protocol(self) -> Any:
        return functools.partial(
            self.config.http_protocol_class,  # type: ignore[call-arg]
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    found: list[socket.socket] = []
    with contextlib.suppress(OSError):
        while len(found) < ACCEPTS_MAX:
            client, _ = listener.accept()
            client.setblocking(False)
            found.append(client)
    return found
