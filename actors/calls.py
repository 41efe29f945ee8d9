"""A call of many commands, answered together once each of them is durable or refused."""

from __future__ import annotations

import asyncio

from hub.commands import Answer, Refused
from hub.errors import HubError


def refusal(error: HubError) -> Refused:
    return Refused(error.code, error.detail, error.retry_after_s)


class Call:
    """Collects the answers of one batch in the order of its commands."""

    __slots__ = ("answers", "done", "missing")

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.answers: list[Answer | None] = [None] * size
        self.missing = size
        self.done: asyncio.Future[None] = loop.create_future()
        if size == 0:
            self.done.set_result(None)

    def ticket(self, index: int) -> Ticket:
        return Ticket(self, index)


class Ticket:
    """The right to one answer. Answering twice is a defect of ours and keeps the first."""

    __slots__ = ("call", "index")

    def __init__(self, call: Call, index: int) -> None:
        self.call = call
        self.index = index

    def answer(self, answer: Answer) -> None:
        call = self.call
        if call.answers[self.index] is not None:
            return
        call.answers[self.index] = answer
        call.missing -= 1
        if call.missing == 0 and not call.done.done():
            call.done.set_result(None)

    def refuse(self, error: HubError) -> None:
        self.answer(refusal(error))
