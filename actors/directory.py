"""The directory: a Ray actor that knows who is there and tells everybody who owns what.

Everything of substance is in `membership.py`. Shards and gateways connect to it on the wire (`follower.py`), beat, and are told of
every new assignment at once. It is not on the way of any message: while it is away, everybody goes on with
the last assignment they know, and only a death or a move in that time has to wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from actors import processes

if TYPE_CHECKING:
    from hub.config import Config

log = logging.getLogger("hub.directory")

NAME = "hub-directory"


class Directory:
    def __init__(self, config: Config, partitions: int, expected: int) -> None:
        # Imported here: Ray ships this class by value, and codecs cannot be pickled.
        from hub import logs

        logs.configure(config.log_level, NAME)
        self._config = config
        self._partitions = partitions
        self._expected = expected
        self._office: Any = None
        self._starting: asyncio.Task[None] | None = None

    async def _started(self) -> Any:
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())
        await asyncio.shield(self._starting)
        return self._office

    async def _start(self) -> None:
        from actors.office import Office
        from hub.sealing import Keyring, load_secret

        config = self._config
        keyring = Keyring(load_secret(config.secret_key, config.data_dir))
        self._office = Office(keyring.derive("wire"), self._partitions, seats=config.shards, expected=self._expected)
        await self._office.open(processes.own_address())

    async def address(self) -> tuple[str, int]:
        """Where shards and gateways connect."""
        address: tuple[str, int] = (await self._started()).address
        return address

    async def status(self) -> dict[str, Any]:
        """For the supervisor and the operator: nodes that drain, nodes that have drained, whether all is to stop."""
        status: dict[str, Any] = (await self._started()).status()
        return status

    async def marks(self) -> dict[str, str]:
        """Of the settings that this hub was started with; see `hub.config.marks`."""
        from hub.config import marks

        return marks(self._config)


def start(config: Config, partitions: int, expected: int, *, clustered: bool) -> Any:
    """In a cluster it lives and dies with the head, without which nobody could start it again anyway: the death of a
    node that carries shards is then decided by somebody who did not die with it.
    """
    return processes.spawn(
        Directory, NAME, config, partitions, expected, retries=-1, on_head=clustered, detached=clustered
    )


async def find() -> tuple[str, int]:
    """Where the directory listens; waits for one that is being restarted."""
    # Ray looks names up by waiting for its control store, which may be away itself: not on the loop that carries messages.
    found = await asyncio.to_thread(processes.find, NAME)
    address: tuple[str, int] = await found.address.remote()
    return address
