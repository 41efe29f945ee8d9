"""The gateway: a Ray actor around uvicorn and the application. Everything of substance is in `context.py`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from actors import directory, processes

if TYPE_CHECKING:
    from hub.config import Config

log = logging.getLogger("hub.gateway")

WEBSOCKET_MAX_BYTES = 256 * 1024
DRAIN_TIMEOUT_S = 10
FILES_WANTED = 65_536


class GatewayActor:
    def __init__(self, name: str, node: str, config: Config) -> None:
        from hub import logs

        logs.configure(config.log_level, name)
        self._name = name
        self._node = node
        self._config = config
        self._incarnation = time.time_ns()
        self._gateway: Any = None
        self._server: Any = None
        self._serving: Any = None
        self._starting: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def ping(self) -> int:
        """Our process id, once we listen. Raises what keeps us from that."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())
        await asyncio.shield(self._starting)
        return os.getpid()

    async def _start(self) -> None:
        import uvicorn

        from actors.assignment import Member
        from api import demo
        from api.app import Application
        from api.context import Gateway
        from api.listener import listen
        from api.server import Server
        from hub import process
        from hub.storage import open_store

        _raise_file_limit()
        config = self._config
        listener = listen(config.host, config.port, shared=config.several_gateways)
        store = await open_store(config.storage)
        member = Member(self._name, "gateway", self._node, config.host, config.port, self._incarnation)
        self._gateway = Gateway(member, config, store, directory.find)
        await self._gateway.start()
        if config.demo:
            await demo.seed(self._gateway)
        settings = uvicorn.Config(
            Application(self._gateway),
            log_level="warning",
            access_log=False,
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_max_size=WEBSOCKET_MAX_BYTES,
            lifespan="off",
            timeout_graceful_shutdown=DRAIN_TIMEOUT_S,
            server_header=False,
            date_header=False,
            proxy_headers=False,
        )
        self._server = Server(settings)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._serving.done():
                await self._serving
            await asyncio.sleep(0.01)
        process.tune()

    async def drain(self, linger_s: float = 0.0) -> None:
        """Say no to `/readyz`, tell the sessions to go elsewhere, finish what is under way.

        Requests are still taken for `linger_s`, until whoever shares them out has seen that we are not ready; each is
        told to bring the next one elsewhere.
        """
        if self._server is None:
            return
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._leave(linger_s))
        await asyncio.shield(self._leaving)

    async def _leave(self, linger_s: float) -> None:
        self._gateway.draining = True
        self._gateway.close_sessions()
        await asyncio.sleep(linger_s)
        self._server.should_exit = True
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._serving
        except TimeoutError:
            log.warning("some connections did not end in %d s", DRAIN_TIMEOUT_S)
        await self._gateway.stop()


def _raise_file_limit() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(FILES_WANTED, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def start(name: str, node: str, config: Config, **placed: Any) -> Any:
    return processes.spawn(GatewayActor, name, name, node, config, **placed)
