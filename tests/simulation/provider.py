"""The providers' side: takes what the courier sends, answers as the weather has it, and reports what came of it."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import msgspec

from actors.readers.courier import Traits
from channels.adapter import Outcome, Outgoing
from hub.commands import Invocation, RecordReceipt
from hub.ids import split_message
from hub.model import MessageError, MessageStatus
from tests.simulation.history import History, RealSend

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

# kind → does the provider recognise a second send of the same message
KINDS: dict[str, Traits] = {
    "plain": Traits(local=False, idempotent=False),
    "keyed": Traits(local=False, idempotent=True),
    "local": Traits(local=True, idempotent=False),
}


class Mood(msgspec.Struct):
    """How likely a provider does each of these with one send."""

    retry: float = 0.0
    unknown: float = 0.0
    unknown_after_all: float = 0.0
    """It takes the message and the answer is lost."""
    refuse: float = 0.0
    hang: float = 0.0
    early_receipt: float = 0.3
    receipt_by_our_id: float = 0.2
    strange_receipt: float = 0.1


GOOD_MOOD = Mood()


class Provider:
    """A `Sender`. Every request that gets here is written down, whoever still lives to hear the answer."""

    def __init__(self, *, rng: Random, history: History) -> None:
        self.mood = GOOD_MOOD
        self.cluster: Cluster | None = None
        self.reports = 0
        """Receipts still on their way to the hub."""
        self._rng = rng
        self._history = history
        self._known: dict[str, str] = {}
        self._numbered = 0

    def traits(self, kind: str) -> Traits:
        return KINDS[kind]

    async def send(self, channel: str, kind: str, outgoing: Outgoing) -> Outcome:
        rng, mood = self._rng, self.mood
        await asyncio.sleep(rng.uniform(0.001, 0.02))
        outcome, accepted = self._decide(kind, outgoing)
        record = RealSend(
            self._history.now_s,
            channel,
            kind,
            outgoing.message,
            outgoing.attempt,
            accepted,
            outcome.external_id,
            outcome.kind,
        )
        self._history.sends.append(record)
        self._history.note(f"send {outgoing.message} attempt {outgoing.attempt} by {channel}: {outcome.kind}")
        if accepted:
            self._report_later(channel, outgoing.message, self._known[outgoing.message])
        await asyncio.sleep(rng.uniform(1, 30) if rng.random() < mood.hang else rng.uniform(0.001, 0.05))
        record.heard = True
        return outcome

    def _decide(self, kind: str, outgoing: Outgoing) -> tuple[Outcome, bool]:
        rng, mood = self._rng, self.mood
        fate = rng.random()
        if fate < mood.retry:
            hint = rng.choice([None, 0.2, 3.0])
            return Outcome("retry", code="busy", retry_after_s=hint), False
        if fate < mood.retry + mood.refuse:
            return Outcome("failed", code="no_such_number", detail="nobody there"), False
        if fate < mood.retry + mood.refuse + mood.unknown:
            return Outcome("unknown"), False
        self._numbered += 1
        if not (KINDS[kind].idempotent and outgoing.message in self._known):
            self._known[outgoing.message] = f"ext-{self._numbered}"
        if fate < mood.retry + mood.refuse + mood.unknown + mood.unknown_after_all:
            return Outcome("unknown"), True
        return Outcome("sent", external_id=self._known[outgoing.message]), True

    def _report_later(self, channel: str, message: str, external_id: str) -> None:
        rng = self._rng
        story: list[MessageStatus] = rng.choice(
            [["sent", "delivered", "read"], ["delivered"], ["failed"], [], ["read"]]
        )
        if rng.random() < 0.5:
            rng.shuffle(story)
        for status in story:
            early = rng.random() < self.mood.early_receipt
            delay_s = 0.0 if early else rng.uniform(0.01, 5)
            by_our_id = rng.random() < self.mood.receipt_by_our_id
            self._start(self._report(channel, message, external_id, status, delay_s, by_our_id))
        if rng.random() < self.mood.strange_receipt:
            self._start(self._report(channel, message, f"strange-{self._numbered}", "delivered", 0.1, False))

    def _start(self, report: object) -> None:
        assert self.cluster is not None
        self.reports += 1
        self.cluster.outside(report)  # type: ignore[arg-type]

    async def _report(
        self, channel: str, message: str, external_id: str, status: MessageStatus, delay_s: float, by_our_id: bool
    ) -> None:
        assert self.cluster is not None
        split = split_message(message)
        assert split is not None
        try:
            await asyncio.sleep(delay_s)
            command = RecordReceipt(
                channel=channel,
                status=status,
                external_id=external_id,
                message=message if by_our_id else None,
                error=MessageError("undeliverable", "the phone is off") if status == "failed" else None,
            )
            stream = f"cus_{split[0][4:23]}"
            await self.cluster.insist(Invocation(channel.split("-")[0], stream, command))
        finally:
            self.reports -= 1
