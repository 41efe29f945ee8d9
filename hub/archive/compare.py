"""Are two stores, or a store and an archive, the same? Each is read once and boiled down to a few hashes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import msgspec

from hub.archive.blocks import ArchiveError, Block, Claims, Documents, Events, Header, KeyMarks, Trailer
from hub.ports import StoredRecord

_encode = msgspec.msgpack.Encoder().encode


class Digest(msgspec.Struct):
    """What a store holds, in few bytes. `journal` is by partition."""

    secret: str
    heads: list[int]
    journal: list[bytes]
    documents: bytes
    claims: bytes
    keys: bytes
    totals: Trailer


async def digest(blocks: AsyncIterator[Block]) -> Digest:
    """Raises ArchiveError where it does not begin at the beginning."""
    header: Header | None = None
    rest = {kind: hashlib.blake2b(digest_size=16) for kind in (Documents, Claims, KeyMarks)}
    journal = []
    totals = Trailer(0, 0, 0, 0, 0)
    async for block in blocks:
        if isinstance(block, Header):
            header = block
            journal = [hashlib.blake2b(digest_size=16) for _ in range(block.partitions)]
        elif isinstance(block, Events):
            journal[block.partition].update(b"".join(map(_record, block.records)))
        elif isinstance(block, Trailer):
            totals = block
        else:
            rows: list[object] = [*msgspec.structs.astuple(block)[0]]
            rest[type(block)].update(b"".join(map(_encode, rows)))
    if header is None or any(header.after):
        raise ArchiveError("an incremental archive is only a part of a store; name a full one")
    documents, claims, keys = (found.digest() for found in rest.values())
    return Digest(header.secret, header.heads, [j.digest() for j in journal], documents, claims, keys, totals)


def _record(record: StoredRecord) -> bytes:
    return _encode((record.offset, record.stream, record.body))


def differences(one: Digest, other: Digest) -> list[str]:
    """A line for each thing that is not the same in both."""
    if len(one.heads) != len(other.heads):
        return [f"partitions: {len(one.heads)} and {len(other.heads)}"]
    found = []
    for number, (left, right) in enumerate(zip(one.heads, other.heads, strict=True)):
        if left != right:
            found.append(f"partition {number}: {left} and {right} events")
        elif one.journal[number] != other.journal[number]:
            found.append(f"partition {number}: {left} events each, but not the same")
    for name in ("keys", "documents", "claims"):
        if getattr(one, name) != getattr(other, name):
            counts = f"{getattr(one.totals, name)} and {getattr(other.totals, name)}"
            found.append(f"{name}: not the same ({counts})")
    return found
