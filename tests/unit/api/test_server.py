"""A gateway's server at its end: whoever had connected is answered, not cut off."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn

from api.listener import listen
from api.server import Server


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def test_a_client_that_waits_in_the_listeners_queue_is_answered() -> None:
    listener = listen("127.0.0.1", 0, shared=True)
    address = listener.getsockname()
    server = Server(uvicorn.Config(answer, lifespan="off", log_level="warning"))
    serving = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0)
    # The loop does not run between connecting and the end, so nobody can have accepted.
    client = socket.create_connection(address)
    client.sendall(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n")
    await server.shutdown([listener])
    server.should_exit = True
    assert client.recv(100).startswith(b"HTTP/1.1 204")
    client.close()
    serving.cancel()


async def test_nobody_can_connect_any_more_afterwards() -> None:
    listener = listen("127.0.0.1", 0, shared=False)
    address = listener.getsockname()
    server = Server(uvicorn.Config(answer, lifespan="off", log_level="warning"))
    serving = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0)
    server.should_exit = True
    await serving
    try:
        socket.create_connection(address).close()
    except ConnectionRefusedError:
        return
    raise AssertionError("the listener is still there")
