"""That a setting or a sign-in has changed: what is remembered of it is forgotten, and whoever it admitted is asked again.

It is heard from three sides: this gateway's own writes, the shards' feeds (settings of tenants that have sessions here),
and the other gateways' notices (sign-ins, and settings of tenants without sessions here). Where none of them reaches us,
what is remembered ends by itself within seconds, and every session is asked again in turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from api.accounts import Accounts
from api.auth import Auth, Principal
from api.signins import REFRESH
from hub.errors import HubError, Unauthenticated
from hub.settings import KINDS, Agent, ApiKey
from hub.shared import Notices

log = logging.getLogger("hub.changes")

TOPIC = "changes"
CONFIRM_EVERY_S = 1.0
CONFIRM_BATCH_SESSIONS = 50
CONFIRM_PAUSE_S = 0.1
"""So at most 500 sessions a second; each costs the store a read once in `REMEMBER_FOR_S`."""

Dismiss = Callable[[str], None]


class Admission:
    """A session that was let in, and how to close it with a reason."""

    __slots__ = ("dismiss", "who")

    def __init__(self, who: Principal, dismiss: Dismiss) -> None:
        self.who = who
        self.dismiss = dismiss

    def rests_on(self) -> tuple[tuple[str, str], ...]:
        if self.who.type == "agent":
            return ((REFRESH, self.who.credential), (KINDS[Agent], self.who.id))
        return ((KINDS[ApiKey], self.who.credential),)


class Changes:
    def __init__(self, accounts: Accounts, auth: Auth, notices: Notices) -> None:
        self._accounts = accounts
        self._auth = auth
        self._notices = notices
        self._admissions: dict[tuple[str, str], set[Admission]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what has changed -----------------------------------------------------------------------------------------

    def made(self, kind: str, id: str) -> None:
        """Changed here, and durable."""
        self.heard(kind, id)
        self._notices.tell(TOPIC, msgspec.msgpack.encode((kind, id)))

    def heard(self, kind: str, id: str) -> None:
        if kind == REFRESH:
            self._auth.sign_ins.forget(id)
        else:
            self._accounts.forget(kind, id)
        for admission in list(self._admissions.get((kind, id), ())):
            task = asyncio.get_running_loop().create_task(self._confirm(admission))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _notified(self, notice: bytes) -> None:
        kind, id = msgspec.msgpack.decode(notice, type=tuple[str, str])
        self.heard(kind, id)

    # --- who was let in -------------------------------------------------------------------------------------------

    def admit(self, who: Principal, dismiss: Dismiss) -> Admission:
        """From now on `dismiss` is called once `who` may be here no longer."""
        admission = Admission(who, dismiss)
        for key in admission.rests_on():
            self._admissions.setdefault(key, set()).add(admission)
        return admission

    def left(self, admission: Admission) -> None:
        for key in admission.rests_on():
            group = self._admissions.get(key, set())
            group.discard(admission)
            if not group:
                self._admissions.pop(key, None)

    async def _confirm(self, admission: Admission) -> None:
        try:
            await self._auth.confirm(admission.who)
        except Unauthenticated as error:
            self.left(admission)
            admission.dismiss(error.detail)
        except HubError as error:
            log.info("a session could not be confirmed now (%s); it is asked again", error.code)

    async def run(self) -> None:
        """Hear the other gateways, and ask everybody again in turn: a notice may be lost, a change may not."""
        self._notices.follow(TOPIC, self._notified)
        while True:
            everybody = {admission for group in list(self._admissions.values()) for admission in group}
            for n, admission in enumerate(everybody, 1):
                await self._confirm(admission)
                if n % CONFIRM_BATCH_SESSIONS == 0:
                    await asyncio.sleep(CONFIRM_PAUSE_S)
            await asyncio.sleep(CONFIRM_EVERY_S)
