"""The network: stands in for TCP under the hub's own wire, in virtual time.

What is written arrives later, in order, or not at all: a connection breaks, a stretch of it is slow, two processes are cut
off from each other. As with real TCP, whoever writes into a cut gives up after a while, whoever only listens learns
nothing; a killed process's peers are told by its kernel, those of a machine without power are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from actors.wire import UNACKNOWLEDGED_MAX_MS
from tests.simulation.history import History
from tests.simulation.loop import PROCESS, Process, VirtualLoop

LATENCIES_MAX_S = [0.0003, 0.0015, 0.02]
"""Connections differ: what two processes tell a third one may arrive in any order."""
CUT_LOOK_EVERY_S = 0.2


class Traffic(msgspec.Struct):
    """How likely each of these happens to one frame."""

    breaks: float = 0.0
    """The connection breaks instead."""
    slow: float = 0.0
    """It, and what follows it, is late by up to `slow_max_s`."""
    slow_max_s: float = 10.0


SMOOTH = Traffic()


class Server:
    """What asyncio calls a server."""

    def __init__(self, network: Network, process: Process, factory: Callable[[], Any], port: int) -> None:
        self.network = network
        self.process = process
        self.factory = factory
        self.port = port
        self.sockets = [self]

    def getsockname(self) -> tuple[str, int]:
        return ("", self.port)

    def close(self) -> None:
        self.network.servers.pop(self.port, None)


class End:
    """One end of a connection: what asyncio calls a transport."""

    def __init__(self, network: Network, process: Process, latency_max_s: float) -> None:
        self.network = network
        self.process = process
        self._rng = Random(network.rng.getrandbits(32))
        """Its own, so that the order in which a process closes its connections does not matter to anybody else."""
        self._latency_max_s = latency_max_s
        self.protocol: Any = None
        self.peer: End | None = None
        self.gone = False
        """Closed, broken, or its process is dead."""
        self.held: list[bytes] = []
        """Written into a cut."""
        self._arrives_s = 0.0
        self._gives_up = False

    # --- what asyncio's transports can do -------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self.gone

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.held))

    def writelines(self, parts: list[bytes]) -> None:
        if self.gone:
            return
        network = self.network
        if self._draws(network.traffic.breaks):
            network.history.note(f"the connection of {self.process.name} and {self._peer.process.name} breaks")
            self.abort()
        elif self.unreachable:
            self.held.append(b"".join(parts))
            self._give_up_later()
        else:
            self.carry(b"".join(parts))

    def abort(self) -> None:
        if not self.gone:
            self.end()
            self.tell_peer()

    close = abort

    # --- what the network does ------------------------------------------------------------------------------------

    @property
    def _peer(self) -> End:
        assert self.peer is not None
        return self.peer

    @property
    def unreachable(self) -> bool:
        return self.network.are_cut(self.process, self._peer.process)

    def _draws(self, rate: float) -> bool:
        return rate > 0 and self._rng.random() < rate

    def _due_s(self) -> float:
        network = self.network
        due_s = network.loop.now_s + self._rng.uniform(0.5, 1.0) * self._latency_max_s
        due_s += network.lags.get(frozenset((self.process.role, self._peer.process.role)), 0.0)
        if self._draws(network.traffic.slow):
            due_s += self._rng.uniform(0, network.traffic.slow_max_s)
        self._arrives_s = max(self._arrives_s, due_s)
        return self._arrives_s

    def carry(self, data: bytes) -> None:
        self.network.at(self._due_s(), lambda: self._peer.run(self._peer.take, data))

    def run(self, step: Callable[..., None], *arguments: Any) -> None:
        """In the process of this end, when it gets to it."""
        self.network.loop.call_soon(step, *arguments, context=self.process.context)

    def take(self, data: bytes) -> None:
        if not self.gone:
            self.protocol.data_received(data)

    def end(self) -> None:
        """Over, on this side."""
        self.gone = True
        self.network.ends.pop(self, None)
        self.run(self._lost)

    def _lost(self) -> None:
        if self.protocol is not None:
            self.protocol.connection_lost(None)

    def tell_peer(self) -> None:
        """The kernel does, where it can; else it does so when somebody knocks again."""
        if not self.unreachable:
            self.network.at(self._due_s(), lambda: self._peer.run(self._peer.hear_of_the_end))
        elif not self.network.is_silent(self.process):
            self.network.owed.append(self)

    def hear_of_the_end(self) -> None:
        if not self.gone:
            self.end()

    def _give_up_later(self) -> None:
        if not self._gives_up:
            self._gives_up = True
            self.network.at(self.network.loop.now_s + UNACKNOWLEDGED_MAX_MS / 1000, self._give_up)

    def _give_up(self) -> None:
        self._gives_up = False
        if self.held:
            self.abort()

    def mended(self) -> None:
        held, self.held = self.held, []
        for data in held:
            self.carry(data)


class Network:
    def __init__(self, loop: VirtualLoop, rng: Random, history: History) -> None:
        self.loop = loop
        self.rng = rng
        self.history = history
        self.traffic = SMOOTH
        self.servers: dict[int, Server] = {}
        self.ends: dict[End, None] = {}
        self.owed: list[End] = []
        """Ends whose peer is still to hear that they are gone."""
        self.lags: dict[frozenset[str], float] = {}
        """Between these two roles everything takes so many seconds longer."""
        self._cuts: set[frozenset[str]] = set()
        self._silent: set[str] = set()
        self._port = 0
        loop.network = self

    def at(self, when_s: float, step: Callable[[], object]) -> None:
        """In the network's own time: no process has a hand in it."""
        asyncio.BaseEventLoop.call_at(self.loop, when_s, step)

    # --- connecting -----------------------------------------------------------------------------------------------

    def listen(self, factory: Callable[[], Any]) -> Server:
        process = PROCESS.get()
        assert process is not None
        self._port += 1
        server = self.servers[self._port] = Server(self, process, factory, self._port)
        return server

    async def connect(self, factory: Callable[[], Any], port: int) -> tuple[End, Any]:
        process = PROCESS.get()
        assert process is not None
        latency_max_s = self.rng.choice(LATENCIES_MAX_S)
        await asyncio.sleep(latency_max_s * 2)
        server = self.servers.get(port)
        while server is not None and self.are_cut(process, server.process):
            await asyncio.sleep(CUT_LOOK_EVERY_S)
            server = self.servers.get(port)
        if server is None:
            raise ConnectionRefusedError
        here, there = End(self, process, latency_max_s), End(self, server.process, latency_max_s)
        here.peer, there.peer = there, here
        self.ends |= {here: None, there: None}
        here.protocol = factory()
        there.run(self._accept, server, there)
        here.protocol.connection_made(here)
        return here, here.protocol

    def _accept(self, server: Server, end: End) -> None:
        end.protocol = server.factory()
        end.protocol.connection_made(end)

    # --- ends of processes ----------------------------------------------------------------------------------------

    def died(self, process: Process) -> None:
        for port in [port for port, server in self.servers.items() if server.process is process]:
            if not self.is_silent(process):
                del self.servers[port]
        for end in [end for end in self.ends if end.process is process]:
            end.abort()

    def silence(self, process: Process) -> None:
        """Its machine loses power: nobody is told."""
        self._silent.add(process.name)

    def is_silent(self, process: Process) -> bool:
        return process.name in self._silent

    # --- cuts -----------------------------------------------------------------------------------------------------

    def are_cut(self, one: Process, other: Process) -> bool:
        if one.name in self._silent or other.name in self._silent:
            return True
        return bool(self._cuts) and frozenset((one.role, other.role)) in self._cuts

    def cut(self, one: str, other: str) -> None:
        self._cuts.add(frozenset((one, other)))

    def mend(self, one: str, other: str) -> None:
        self._cuts.discard(frozenset((one, other)))
        self._after_mending()

    def mend_all(self) -> None:
        self._cuts.clear()
        self._after_mending()

    def _after_mending(self) -> None:
        for end in list(self.ends):
            if end.held and not end.unreachable:
                end.mended()
        owed, self.owed = self.owed, []
        for end in owed:
            end.tell_peer()
