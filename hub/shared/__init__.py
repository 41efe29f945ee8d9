"""What gateways share, and the one function that opens a home for it by URL: Redis, or this process alone.

The contract, checked for every home by one suite (`tests/contract/test_shared.py`):

* No message depends on any of this. It may all be lost at any moment, and comes back by itself.
* No method raises because the shared server is away, and none waits for it longer than `WAIT_MAX_S`. While it is
  away each gateway goes by what it knows itself; `health` says so.
* Nothing secret is told here: ids, hashes, and the names of those who are present.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

WAIT_MAX_S = 0.03
"""How long a request waits for the shared server before it goes on without."""

Hear = Callable[[bytes], None]


class Health(msgspec.Struct, frozen=True):
    """`state` is for people: `in process`, `ok`, or `degraded: …`. The counts go up only."""

    state: str
    up: bool
    errors: int = 0
    fallbacks: int = 0


class Buckets(Protocol):
    async def take(self, client: str) -> None:
        """One request of this client: a token of its bucket, which refills to the limit within a minute.

        Raises RateLimited with the seconds until the next token.
        """
        ...


class Roster(Protocol):
    """Who is where, each for a while: a gateway that dies takes nobody's place for ever."""

    def enter(self, place: str, who: str, for_s: float) -> None:
        """From now on, and for `for_s` seconds unless said again. Never waits."""
        ...

    def leave(self, place: str, who: str) -> None: ...

    async def present(self, place: str) -> list[str]:
        """Those who are there, at most `PRESENT_MAX_COUNT`, in no order."""
        ...


class Notices(Protocol):
    def tell(self, topic: str, notice: bytes) -> None:
        """To the followers in *other* gateways, once or not at all. Never waits."""
        ...

    def follow(self, topic: str, hear: Hear) -> None:
        """Call `hear` with each notice of the topic. One follower a topic."""
        ...

    def unfollow(self, topic: str) -> None: ...


class Shared(Protocol):
    @property
    def buckets(self) -> Buckets: ...

    @property
    def roster(self) -> Roster: ...

    @property
    def notices(self) -> Notices: ...

    def health(self) -> Health: ...

    async def start(self) -> None:
        """Return when the server answers, or soon where it does not."""
        ...

    async def close(self) -> None: ...


PRESENT_MAX_COUNT = 1_000


def open_shared(url: str | None, *, installation: str, per_minute: int) -> Shared:
    """The home at `url`, or this process where there is none. Raises ValueError for a URL that cannot be read.

    `installation` keeps apart the hubs that share one server; `per_minute` is how often a client may ask.
    """
    if url is None:
        from hub.shared.process import InProcess

        return InProcess(per_minute)
    from hub.shared.redis.home import InRedis

    return InRedis(url, installation=installation, per_minute=per_minute)
