"""An activation: the in-memory life of one stream, and the bounded queue of what it is asked.

    activating ──load──▶ active ──idle──▶ passivating ──▶ gone
         └──────────── load failed ──────────────────────────▲

While it is activating, commands wait in its mailbox. Once active, a command's turn runs at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import ModuleType
from typing import Any

from actors import customer, tenant
from actors.calls import Ticket
from hub.codec import decode_record, decode_snapshot
from hub.commands import Invocation
from hub.errors import Internal, Overloaded
from hub.model import CustomerImage, TenantImage
from hub.ports import StreamImage
from hub.sealing import Cipher, Keyring, Unsealable

MAILBOX_MAX_COMMANDS = 1_024
SNAPSHOT_EVERY_EVENTS = 256

Image = CustomerImage | TenantImage
BEHAVIOURS: dict[str, ModuleType] = {"cus": customer, "ten": tenant}


class Activation:
    __slots__ = (
        "active",
        "behaviour",
        "cipher",
        "events_since_snapshot",
        "gone",
        "image",
        "last_batch",
        "last_offset",
        "last_used",
        "mailbox",
        "new_key",
        "stream",
        "tenant",
        "waiters",
    )

    def __init__(self, stream: str, tenant_name: str) -> None:
        self.stream = stream
        self.tenant = tenant_name
        self.behaviour: Any = BEHAVIOURS[stream[:3]]
        self.active = False
        self.gone = False
        self.image: Any = None
        self.cipher: Cipher | None = None
        self.new_key: bytes | None = None
        """The wrapped data key, until an append has made it durable."""
        self.mailbox: deque[tuple[Invocation, Ticket]] | None = None
        self.waiters: list[asyncio.Future[None]] | None = None
        self.last_batch = 0
        """Serial of the group commit that holds its newest event; see `Partition`."""
        self.last_offset = 0
        self.last_used = 0.0
        self.events_since_snapshot = 0

    def enqueue(self, invocation: Invocation, ticket: Ticket) -> None:
        """Raises Overloaded where the mailbox is full."""
        if self.mailbox is None:
            self.mailbox = deque()
        if len(self.mailbox) >= MAILBOX_MAX_COMMANDS:
            raise Overloaded(f"more than {MAILBOX_MAX_COMMANDS} commands wait for {self.stream}", retry_after_s=1)
        self.mailbox.append((invocation, ticket))

    async def risen(self) -> None:
        """Return once it is active or gone."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters = [*(self.waiters or ()), waiter]
        await waiter

    def wake(self) -> None:
        waiters, self.waiters = self.waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def rise(self, stored: StreamImage, keyring: Keyring) -> None:
        """Become active from what the store holds. Raises Internal where that cannot be read."""
        if stored.key is not None:
            self.cipher = self._unwrap(stored.key, keyring)
        self.image = self.behaviour.empty(self.stream, self.tenant)
        self._restore_snapshot(stored)
        for record in stored.records:
            opened = decode_record(record.body, stream=self.stream, offset=record.offset, cipher=self.cipher)
            self._belongs_to(opened.tenant)
            self.behaviour.apply(self.image, opened.event, opened.at)
            self.last_offset = record.offset
        self.events_since_snapshot = len(stored.records)
        if self.cipher is None:
            # A new stream, or one whose key was erased: what comes next is sealed with a fresh key.
            self.cipher, self.new_key = keyring.new_data_key(self.stream)
        self.active = True

    def _unwrap(self, wrapped: bytes, keyring: Keyring) -> Cipher:
        try:
            return keyring.unwrap(self.stream, wrapped)
        except Unsealable as error:
            raise Internal("a data key cannot be opened: was HUB_SECRET_KEY or secret.key changed?") from error

    def _restore_snapshot(self, stored: StreamImage) -> None:
        if stored.snapshot is None or self.cipher is None:
            return
        offset = stored.snapshot.offset
        image = decode_snapshot(stored.snapshot.body, stream=self.stream, offset=offset, cipher=self.cipher)
        if image is not None:
            self.image, self.last_offset = image, offset
            self._belongs_to(image.customer.tenant if isinstance(image, CustomerImage) else image.tenant.tenant)

    def adopted_by(self, tenant_name: str) -> bool:
        """A stream without a past belongs to nobody yet: who asked about it first must not lock its owner out."""
        if self.last_offset:
            return False
        self._belongs_to(tenant_name)
        return True

    def _belongs_to(self, tenant_name: str) -> None:
        """The journal says whose stream this is; who asked first may have been wrong, or the hub itself."""
        if self.tenant != tenant_name:
            self.tenant = tenant_name
            whose = self.image.customer if isinstance(self.image, CustomerImage) else self.image.tenant
            whose.tenant = tenant_name
