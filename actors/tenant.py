"""The tenant actor: which settings a tenant has, and that every change of them has one order and one revision.

The settings themselves are documents, projected from these events; the actor keeps their revisions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from actors.decision import Decision
from hub import commands as c
from hub.errors import Conflict, InvalidFields, NotFound, RevisionConflict
from hub.events import Content, Event, SettingChanged, SettingRemoved
from hub.model import TenantImage, TenantState
from hub.settings import KINDS, Tenant, tenant_in

TENANT = KINDS[Tenant]
SETTINGS_MAX_OF_A_KIND = 10_000


def empty(stream: str, tenant: str) -> TenantImage:
    return TenantImage(tenant=TenantState(tenant=tenant))


def decide(image: TenantImage, command: c.Command, now: int) -> Decision:
    """Raises HubError where the command is refused; the state is untouched either way."""
    return _DECIDE[type(command)](image.tenant, command)


def _put(state: TenantState, command: c.PutSetting) -> Decision:
    known = state.settings.get(command.kind, {})
    revision = known.get(command.id, 0)
    if command.if_revision is not None and max(revision, 0) != command.if_revision:
        raise RevisionConflict(f"{command.kind} {command.id} is at revision {max(revision, 0)}")
    if revision == 0 and len(known) >= SETTINGS_MAX_OF_A_KIND:
        raise Conflict(f"a tenant has at most {SETTINGS_MAX_OF_A_KIND} settings of kind {command.kind}")
    event = SettingChanged(
        kind=command.kind,
        id=command.id,
        revision=abs(revision) + 1,
        by=command.by.id,
        spread=_spread(state, command) if command.kind == TENANT else 1,
        content=Content(document=command.document),
    )
    return Decision([event], revision=event.revision)


def _spread(state: TenantState, command: c.PutSetting) -> int:
    """Over how many partitions the tenant is to be spread. Raises Conflict where that would be a change."""
    try:
        described = tenant_in(command.document)
    except msgspec.MsgspecError as error:
        raise InvalidFields(f"tenant {command.id} cannot be read: {error}") from None
    if not described.id == command.id == state.tenant:
        raise Conflict(f"tenant {state.tenant} describes itself only, not {command.id}")
    # Removed and made again is still the same tenant: its customers are where they were.
    if TENANT in state.settings and described.spread != state.spread:
        raise Conflict(
            f"tenant {state.tenant} is spread over {state.spread} partitions since it was created; "
            f"leave spread at {state.spread}, or create another tenant"
        )
    return described.spread


def _remove(state: TenantState, command: c.RemoveSetting) -> Decision:
    revision = state.settings.get(command.kind, {}).get(command.id, 0)
    if revision <= 0:
        raise NotFound(f"there is no {command.kind} {command.id}")
    event = SettingRemoved(kind=command.kind, id=command.id, revision=revision + 1, by=command.by.id)
    return Decision([event], revision=event.revision)


_DECIDE: dict[type[c.Command], Callable[[TenantState, Any], Decision]] = {
    c.PutSetting: _put,
    c.RemoveSetting: _remove,
}


def apply(image: TenantImage, event: Event, at: int) -> None:
    state = image.tenant
    state.created_at = state.created_at or at
    if isinstance(event, SettingChanged):
        state.settings.setdefault(event.kind, {})[event.id] = event.revision
        if event.kind == TENANT:
            state.spread = event.spread
    elif isinstance(event, SettingRemoved):
        # A negative revision is a grave: a setting made again under the same name must count on from it.
        state.settings.setdefault(event.kind, {})[event.id] = -event.revision
