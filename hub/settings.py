"""A tenant's settings: channels, agents, API keys. Each is a document, decided by the tenant actor.

Secrets inside a document are sealed with the installation's settings key before they reach a journal,
a table or another process; `Vault` is the only place that opens them.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

from hub.ids import SPREAD_MAX_PARTITIONS
from hub.sealing import Keyring

Role = Literal["agent", "administrator"]
DOCUMENT_VERSION = 1
SCOPES = ("conversations", "customers", "settings", "inbound", "stream")


class Tenant(msgspec.Struct, kw_only=True):
    """An organisation. `spread`: over how many partitions its customers live (`hub/ids.py`), fixed when it is created."""

    id: str
    name: str
    locale: str = "es"
    time_zone: str = "UTC"
    spread: Annotated[int, msgspec.Meta(ge=1, le=SPREAD_MAX_PARTITIONS)] = 1


class Channel(msgspec.Struct, kw_only=True):
    """A connected provider account. `settings` may be shown; `secrets` never leave the hub."""

    id: str
    tenant: str
    kind: str
    name: str
    settings: dict[str, str] = {}
    secrets: dict[str, str] = {}


class Agent(msgspec.Struct, kw_only=True):
    """A person who signs in. `password` is an scrypt hash; see `api/passwords.py`."""

    id: str
    tenant: str
    email: str
    name: str
    role: Role = "agent"
    password: str = ""


class ApiKey(msgspec.Struct, kw_only=True):
    """A machine's credential. `id` is the SHA-256 of the key itself, which is shown once and not stored."""

    id: str
    tenant: str
    name: str
    hint: str
    scopes: list[str] = []


Setting = Tenant | Channel | Agent | ApiKey
KINDS: dict[type[Setting], str] = {Tenant: "tenant", Channel: "channel", Agent: "agent", ApiKey: "api_key"}
T = TypeVar("T", Tenant, Channel, Agent, ApiKey)


class _Envelope(msgspec.Struct, array_like=True):
    version: int
    body: bytes
    secrets: bytes | None


def tenant_in(document: bytes) -> Tenant:
    """The tenant that an encoded document describes; it has no secrets. Raises msgspec.MsgspecError."""
    return msgspec.msgpack.decode(msgspec.msgpack.decode(document, type=_Envelope).body, type=Tenant)


class Vault:
    """Encodes settings with their secrets sealed, and opens them again."""

    def __init__(self, keyring: Keyring) -> None:
        self._cipher = keyring.settings

    def encode(self, setting: Setting) -> bytes:
        if not isinstance(setting, Channel):
            return msgspec.msgpack.encode(_Envelope(DOCUMENT_VERSION, msgspec.msgpack.encode(setting), None))
        sealed = self._cipher.seal(msgspec.msgpack.encode(setting.secrets), setting.id.encode())
        shown = msgspec.structs.replace(setting, secrets={})
        return msgspec.msgpack.encode(_Envelope(DOCUMENT_VERSION, msgspec.msgpack.encode(shown), sealed))

    def decode(self, body: bytes, kind: type[T]) -> T:
        envelope = msgspec.msgpack.decode(body, type=_Envelope)
        setting = msgspec.msgpack.decode(envelope.body, type=kind)
        if envelope.secrets is not None and isinstance(setting, Channel):
            opened = self._cipher.open(envelope.secrets, setting.id.encode())
            setting.secrets = msgspec.msgpack.decode(opened, type=dict[str, str])
        return setting
