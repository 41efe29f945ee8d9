"""Names of things. An id says where its owner is, so routing from an id needs no look-up.

    customer      cus_{ppp}{hhhhhhhhhhhhhhhh}          partition, keyed hash of (tenant, identity)
    conversation  cnv_{ppp}{hhhhhhhhhhhhhhhh}-{n}      its customer's n-th conversation
    message       msg_{ppp}{hhhhhhhhhhhhhhhh}-{n}-{seq}

A customer's id is derived from the identity (channel address), never drawn: fifty parallel first
messages from one new number name the same customer without asking anybody. The hash is keyed with a
secret of the store, so an id does not give a phone number away.

The same hash says in which of its tenant's partitions the customer lives. A tenant has one, its home, or is
*spread* over several, chosen when it is created: were that to change, an identity would name another customer.

A *stream* is the unit that is loaded, ordered and sealed together: one customer with all their
conversations (`cus_…`), or one tenant's settings (`ten_{tenant}`).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from functools import lru_cache

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE = {c: i for i, c in enumerate(_ALPHABET)}
PARTITIONS_MAX = 4096
SPREAD_MAX_PARTITIONS = 64
TENANT_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")
_CUSTOMER = re.compile(rf"^cus_[{_ALPHABET}]{{19}}$")
_CONVERSATION = re.compile(rf"^cnv_([{_ALPHABET}]{{19}})-([1-9][0-9]{{0,8}})$")
_MESSAGE = re.compile(rf"^msg_([{_ALPHABET}]{{19}})-([1-9][0-9]{{0,8}})-([1-9][0-9]{{0,9}})$")


def crockford(value: int, width: int) -> str:
    """`value` in Crockford's base-32 alphabet, lower case, left-padded to `width` characters."""
    out = []
    for _ in range(width):
        out.append(_ALPHABET[value & 31])
        value >>= 5
    return "".join(reversed(out))


def random_id(prefix: str) -> str:
    """A fresh name for something a person creates, such as a channel or an agent."""
    return f"{prefix}_{crockford(secrets.randbits(80), 16)}"


@lru_cache(maxsize=65_536)
def tenant_partition(tenant: str, partitions: int) -> int:
    """The home partition of a tenant: where its settings and, unless it is spread, its customers live."""
    return int.from_bytes(hashlib.blake2b(tenant.encode(), digest_size=8).digest(), "big") % partitions


@lru_cache(maxsize=65_536)
def partitions_of(tenant: str, spread: int, partitions: int) -> tuple[int, ...]:
    """Where a tenant's customers live, its home first: `spread` neighbours, or all there are in a smaller store."""
    home = tenant_partition(tenant, partitions)
    return tuple((home + i) % partitions for i in range(min(spread, partitions)))


def tenant_stream(tenant: str) -> str:
    return f"ten_{tenant}"


def customer_id(*, secret: bytes, tenant: str, identity: str, among: tuple[int, ...]) -> str:
    """The customer that `identity` (such as `tel:+584120000000`) names in `tenant`, which lives `among` these partitions."""
    digest = hashlib.blake2b(f"{tenant}\0{identity}".encode(), digest_size=10, key=secret).digest()
    number = int.from_bytes(digest, "big")
    return f"cus_{crockford(among[number % len(among)], 3)}{crockford(number, 16)}"


def conversation_id(customer: str, ordinal: int) -> str:
    return f"cnv_{customer[4:]}-{ordinal}"


def message_id(conversation: str, seq: int) -> str:
    return f"msg_{conversation[4:]}-{seq}"


def is_customer(value: str) -> bool:
    return _CUSTOMER.match(value) is not None


def customer_of(conversation: str) -> str | None:
    """The stream a conversation lives in, or None where this is no conversation id."""
    match = _CONVERSATION.match(conversation)
    return f"cus_{match[1]}" if match else None


def ordinal_of(conversation: str) -> int:
    return int(conversation[24:])


def split_message(message: str) -> tuple[str, int] | None:
    """(conversation, seq) of a message id, or None where this is none."""
    match = _MESSAGE.match(message)
    return (f"cnv_{match[1]}-{match[2]}", int(match[3])) if match else None


def stream_partition(stream: str, partitions: int) -> int:
    """The partition that owns a stream."""
    if stream.startswith("cus_"):
        return (_VALUE[stream[4]] << 10) | (_VALUE[stream[5]] << 5) | _VALUE[stream[6]]
    return tenant_partition(stream[4:], partitions)
