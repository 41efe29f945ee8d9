"""Networks of their own for the nodes of a test cluster: namespaces on a bridge of this machine. Root, iproute2."""

from __future__ import annotations

import os
import subprocess

from tests.aftercare import Aftercare


class Bridge:
    """A network of 254 addresses; this machine itself is number 1."""

    def __init__(self, aftercare: Aftercare) -> None:
        self._tag = f"h{os.getpid() % 100_000:x}"
        self._aftercare = aftercare
        self._name = f"{self._tag}br"
        self._connected: list[str] = []
        self.network = f"10.77.{os.getpid() % 250}"
        _ip("link", "add", self._name, "type", "bridge")
        aftercare.promise("ip", "link", "del", self._name)
        _ip("addr", "add", f"{self.network}.1/24", "dev", self._name)
        _ip("link", "set", self._name, "up")

    def connect(self, name: str, ip: str) -> str:
        """A new namespace with that address. Returns its name."""
        netns, outside = f"{self._tag}{name}", self._outside(name)
        _ip("netns", "add", netns)
        self._aftercare.promise("ip", "netns", "del", netns)
        self._connected.append(name)
        _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", netns)
        _ip("link", "set", outside, "master", self._name, "up")
        _ip("-n", netns, "addr", "add", f"{ip}/24", "dev", "eth0")
        _ip("-n", netns, "link", "set", "lo", "up")
        _ip("-n", netns, "link", "set", "eth0", "up")
        return netns

    def _outside(self, name: str) -> str:
        return f"{self._tag}{name}"[:15]

    def cut(self, name: str) -> None:
        _ip("link", "set", self._outside(name), "down")

    def heal(self, name: str) -> None:
        _ip("link", "set", self._outside(name), "up")

    def close(self) -> None:
        for name in self._connected:
            _ip("netns", "del", f"{self._tag}{name}")
        _ip("link", "del", self._name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
