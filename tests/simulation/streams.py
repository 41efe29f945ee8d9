"""Customers who do not wait: message after message through one gateway, long before the first is confirmed."""

from __future__ import annotations

import asyncio

from hub import commands as c
from hub.errors import Overloaded
from hub.ids import customer_id
from tests.simulation.cluster import KEYRING, retryable
from tests.simulation.gateway import Gateway
from tests.simulation.people import Town

TENANT = "flow"


class Streamer:
    """Sends nothing again before it has a final answer, or none can come any more because its gateway is gone."""

    def __init__(self, town: Town, gateway: Gateway, partition: int) -> None:
        self._town = town
        self.gateway = gateway
        self.partition = partition
        identity = f"tel:{gateway.name}-{partition}"
        self.stream = customer_id(secret=KEYRING.identity_secret, tenant=TENANT, identity=identity, among=(partition,))
        self._identity = identity
        self._pause_s = town.rng.choice([0.1, 0.5, 2.0])
        self.sent: list[str] = []
        self.again: set[str] = set()
        """Those it had to send again: they may come later than what it sent after them."""
        self.hitches: set[str] = set()
        """Those that were refused, other than for being too many, or that the hub had taken before it confirmed them."""
        self.confirmed_s: list[float] = []

    async def live(self) -> None:
        town = self._town
        while town.steps_left > 0:
            await asyncio.sleep(town.rng.expovariate(1 / self._pause_s))
            for _ in range(town.rng.choice([1, 2, 4])):
                self.write()

    def write(self) -> None:
        name = self._town.fresh("in")
        self.sent.append(name)
        command = c.ReceiveMessage(
            channel=f"{TENANT}-local",
            channel_kind="local",
            identity=self._identity,
            address=self._identity[4:],
            external_id=name,
            text="¿Y bien?",
        )
        self._town.cluster.outside(self._see_through(c.Invocation(TENANT, self.stream, command), name))

    async def _see_through(self, invocation: c.Invocation, name: str) -> None:
        cluster = self._town.cluster
        cluster.asking += 1
        try:
            answer = await self.gateway.submit(invocation)
        finally:
            cluster.asking -= 1
        if answer is None or retryable(answer):
            self.again.add(name)
            if not (isinstance(answer, c.Refused) and answer.code == Overloaded.code):
                self.hitches.add(name)
            answer = await cluster.insist(invocation)
        if isinstance(answer, c.Done) and answer.duplicate:
            self.hitches.add(name)
        self.confirmed_s.append(self._town.loop.now_s)
