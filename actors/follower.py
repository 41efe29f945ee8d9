"""A member's side of the directory: joins, beats, and hears of every assignment. Ray-free.

While the directory is away the last assignment stands. Whoever was away from the directory itself knows nothing
for sure until it has joined again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from actors import wire
from actors.assignment import Assignment, Member, decode_assignment
from actors.membership import BEAT_EVERY_S
from actors.wire import Disconnected, Link
from hub.errors import HubError, Unavailable

log = logging.getLogger("hub.follower")

RECONNECT_EVERY_S = 0.1
JOIN_TIMEOUT_S = 5.0
_encode = msgspec.msgpack.Encoder().encode
_numbers = msgspec.msgpack.Decoder(list[int])


class Follower:
    def __init__(
        self,
        member: Member,
        *,
        secret: bytes,
        find: Callable[[], Awaitable[tuple[str, int]]],
        on_assignment: Callable[[Assignment], None],
        on_release: Callable[[list[int]], Awaitable[None]] | None = None,
    ) -> None:
        """`find` says where the directory listens. `on_release` gives partitions up, and has begun when it returns: an
        assignment that follows may be that they are to be opened again.
        """
        self.member = member
        self.assignment = Assignment(0, [])
        self._secret = secret
        self._find = find
        self._on_assignment = on_assignment
        self._on_release = on_release
        self._link: Link | None = None
        self._joined = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.open

    async def joined(self) -> Assignment:
        """The assignment, once there is one that gives every partition an owner."""
        while not self.assignment.owners or not all(self.assignment.owners):
            self._joined.clear()
            await self._joined.wait()
        return self.assignment

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
            except (OSError, TimeoutError, Disconnected, HubError) as error:
                log.debug("the directory cannot be reached: %s", error or type(error).__name__)
            except Exception:
                log.exception("following the directory failed")
            await asyncio.sleep(RECONNECT_EVERY_S)

    async def _where(self) -> tuple[str, int]:
        """Raises Unavailable, whatever it is that `find` raises while the directory is restarted."""
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                return await self._find()
        except Exception as error:
            log.info("the directory cannot be found: %s", type(error).__name__)
            raise Unavailable("the directory cannot be found") from error

    async def _follow(self) -> None:
        """Once connected, until the connection breaks; then at once again, since the directory may not know us dead yet."""
        loop = asyncio.get_running_loop()
        lasted_s = RECONNECT_EVERY_S
        while lasted_s >= RECONNECT_EVERY_S:
            host, port = await self._where()
            began = loop.time()
            await self._stay(host, port)
            lasted_s = loop.time() - began

    async def _stay(self, host: str, port: int) -> None:
        lost = asyncio.Event()
        link = await wire.connect(host, port, secret=self._secret, name=self.member.name, serve=self._serve)
        link.on_lost = lambda _: lost.set()
        try:
            known = self.assignment if self.assignment.version else None
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                self._heard(await link.call(wire.JOIN, _encode((self.member, known))))
            self._link = link
            while link.open:
                link.push(wire.BEAT, b"")
                try:
                    async with asyncio.timeout(BEAT_EVERY_S):
                        await lost.wait()
                except TimeoutError:
                    pass
        finally:
            self._link = None
            link.close()

    def _serve(self, link: Link, kind: int, payload: bytes) -> Awaitable[bytes] | None:
        if kind == wire.ASSIGNMENT:
            self._heard(payload)
            return None
        if kind == wire.RELEASE and self._on_release is not None:
            return _then_nothing(self._on_release(_numbers.decode(payload)))
        return None

    def _heard(self, payload: bytes) -> None:
        assignment = decode_assignment(payload)
        if assignment.version < self.assignment.version:
            return
        self.assignment = assignment
        self._joined.set()
        self._on_assignment(assignment)

    async def ask(self) -> Assignment:
        """The assignment as the directory has it this moment. Raises Unavailable where it cannot be asked."""
        self._heard(await self._call(wire.ROSTER, b""))
        return self.assignment

    async def leave(self, node: str) -> bytes:
        """Tell the directory to drain a node; its status in return. Raises Unavailable, BadRequest."""
        return await self._call(wire.LEAVE, _encode(node))

    async def _call(self, kind: int, payload: bytes) -> bytes:
        link = self._link
        if link is None:
            raise Unavailable("the directory is restarting", retry_after_s=1)
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                return await link.call(kind, payload)
        except (Disconnected, TimeoutError) as error:
            raise Unavailable("the directory does not answer", retry_after_s=1) from error


async def _then_nothing(work: Awaitable[None]) -> bytes:
    await work
    return b""
