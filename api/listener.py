"""The listening socket of a gateway."""

from __future__ import annotations

import socket

LISTEN_BACKLOG = 4_096


def listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """`shared`: several gateways take turns on one port. Raises RuntimeError with what to do about it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise RuntimeError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error
    listener.listen(LISTEN_BACKLOG)
    listener.setblocking(False)
    return listener
