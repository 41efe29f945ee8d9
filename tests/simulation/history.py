"""What happened in a run, as seen from outside: who was told what, and when."""

from __future__ import annotations

import hashlib

import msgspec

from hub.commands import Answer, Done, Invocation
from tests.simulation.loop import VirtualLoop


class Told(msgspec.Struct):
    """One answer. `head`: how far the journal really was at that moment."""

    at_s: float
    invocation: Invocation
    answer: Answer
    head: int


class RealSend(msgspec.Struct):
    """A request that reached a provider. `outcome` is what it answered, None where it never could."""

    at_s: float
    channel: str
    kind: str
    message: str
    attempt: int
    accepted: bool
    external_id: str | None
    outcome: str | None = None
    heard: bool = False
    """The hub was alive to hear it."""


class History:
    def __init__(self, loop: VirtualLoop, *, show: bool = False) -> None:
        self._loop = loop
        self._show = show
        self._digest = hashlib.sha256()
        self.told: list[Told] = []
        """What reached its asker."""
        self.said: list[Told] = []
        """What the true owner of a partition said, whoever heard it. One that was taken over and does not know it yet can
        write nothing, but what it shows is old: of that nothing is promised.
        """
        self.sends: list[RealSend] = []
        self.troubles: list[float] = []
        self.healed_at_s: float | None = None
        self.broken: list[str] = []
        """Violations that were plain at the moment they happened."""

    @property
    def now_s(self) -> float:
        return self._loop.now_s

    def note(self, line: str) -> None:
        line = f"{self._loop.now_s:11.6f} {line}"
        self._digest.update(line.encode())
        if self._show:
            print(line)

    def trouble(self, what: str) -> None:
        """Something was done to the hub: for a while nothing is promised about its timing."""
        self.troubles.append(self._loop.now_s)
        self.note(f"!! {what}")

    def say(self, invocation: Invocation, answer: Answer, head: int, *, owned: bool) -> None:
        """A shard has an answer."""
        self._check_durable(invocation, answer, head)
        if owned:
            self.said.append(Told(self._loop.now_s, invocation, answer, head))

    def _check_durable(self, invocation: Invocation, answer: Answer, head: int) -> None:
        if isinstance(answer, Done) and answer.offset > head:
            name = type(invocation.command).__name__
            self.broken.append(f"{name} was answered with offset {answer.offset}, the journal ends at {head}")

    def tell(self, invocation: Invocation, answer: Answer, head: int) -> None:
        """An answer has reached whoever asked."""
        self.told.append(Told(self._loop.now_s, invocation, answer, head))
        self._check_durable(invocation, answer, head)
        name = type(invocation.command).__name__
        if isinstance(answer, Done):
            about = answer.message_id or answer.conversation_id or invocation.stream
            self.note(f"{name} done {about} @{answer.partition}-{answer.offset}{' again' * answer.duplicate}")
        else:
            self.note(f"{name} {invocation.stream} refused {answer.code}: {answer.detail}")

    def calm_between(self, start_s: float, end_s: float) -> bool:
        return not any(start_s <= at <= end_s for at in self.troubles)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()
