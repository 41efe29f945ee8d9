"""The form of an archive, without any I/O.

    magic                          15 bytes
    frame                          4 bytes of length, 16 of checksum, then so many bytes of payload
    …

A payload is a deflated MessagePack array, one block. The first block is the header, the last one the trailer, so an archive that was
cut short is told from a whole one. A checksum covers the one before it, the length and the payload: a block that was damaged,
left out, moved or taken from another archive does not fit. The checksums tell of accidents, not of forgers.
"""

from __future__ import annotations

import hashlib
import struct
import zlib

import msgspec

from hub.ports import Claim, Document, StoredKey, StoredRecord

MAGIC = b"cocolu-archive\n"
VERSION = 1
FRAME = struct.Struct(">I16s")
CHECKSUM_BYTES = 16
PAYLOAD_MAX_BYTES = 1 << 30
# Sealed content does not shrink; names, ids and kinds around it do, and the fastest level finds them.
COMPRESSION_LEVEL = 1
MARK_BYTES = 8


class ArchiveError(Exception):
    """It cannot be done; the message is one line that says why, and what to do."""


class Damaged(ArchiveError):
    """This is not an archive, or not a whole one any more."""

    def __init__(self, block: int, at: int, what: str) -> None:
        super().__init__(f"block {block} (at byte {at}) {what}")
        self.block = block


class Header(msgspec.Struct, array_like=True, tag="header", frozen=True):
    """What this is an archive of, and from where to where. Lists are by partition."""

    version: int
    id: str
    created_at: int
    secret: str
    """Fingerprint of the installation's secret: without that secret nothing in here can be read."""
    partitions: int
    heads: list[int]
    """It holds every event up to these offsets …"""
    after: list[int]
    """… and none up to these: zeroes in a full archive, the base's heads in an incremental one."""
    tips: list[bytes]
    """Marks of the records at `heads`: whether a store is the one this was made of."""
    base: str | None = None
    """Id of the archive that this one continues."""
    hub: str = ""

    @property
    def events(self) -> int:
        return sum(self.heads) - sum(self.after)


class Events(msgspec.Struct, array_like=True, tag="events"):
    """Records of one partition, in order without a gap, and the keys of streams that have not come up for a while."""

    partition: int
    records: list[StoredRecord]
    keys: list[StoredKey]


class Documents(msgspec.Struct, array_like=True, tag="documents"):
    documents: list[Document]


class Claims(msgspec.Struct, array_like=True, tag="claims"):
    claims: list[Claim]


class KeyMarks(msgspec.Struct, array_like=True, tag="keys"):
    """(stream, mark of its wrapped key), by stream: together, every key there was when the archive was finished.

    A key that an earlier block or archive holds and this list does not was erased meanwhile.
    """

    marks: list[tuple[str, bytes]]


class Trailer(msgspec.Struct, array_like=True, tag="trailer"):
    """How many of each were before it."""

    blocks: int
    events: int
    documents: int
    claims: int
    keys: int


Block = Header | Events | Documents | Claims | KeyMarks | Trailer
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Block] = msgspec.msgpack.Decoder(Block)


def mark(data: bytes) -> bytes:
    """A few bytes that tell whether two things are the same, and do not tell what they are."""
    return hashlib.blake2b(data, digest_size=MARK_BYTES).digest()


class Tally:
    """Counts blocks as they pass, on either side: what the trailer must say."""

    def __init__(self) -> None:
        self.totals = Trailer(0, 0, 0, 0, 0)

    def add(self, block: Block) -> None:
        totals = self.totals
        totals.blocks += 1
        if isinstance(block, Events):
            totals.events += len(block.records)
        elif isinstance(block, Documents):
            totals.documents += len(block.documents)
        elif isinstance(block, Claims):
            totals.claims += len(block.claims)
        elif isinstance(block, KeyMarks):
            totals.keys += len(block.marks)


class Packer:
    """Blocks to bytes."""

    def __init__(self) -> None:
        self._previous = MAGIC

    def pack(self, block: Block) -> bytes:
        payload = zlib.compress(_encoder.encode(block), COMPRESSION_LEVEL)
        if len(payload) > PAYLOAD_MAX_BYTES:
            raise ArchiveError(f"a block of {len(payload)} bytes is more than an archive takes")
        self._previous = _checksum(self._previous, payload)
        return FRAME.pack(len(payload), self._previous) + payload


class Unpacker:
    """Bytes to blocks, each checked before it is looked at. Raises Damaged."""

    def __init__(self) -> None:
        self._previous = MAGIC
        self._at = len(MAGIC)
        self._tally = Tally()
        self._events: list[int] = []
        self.done = False

    def begin(self, magic: bytes) -> None:
        if magic != MAGIC:
            raise ArchiveError("this is not an archive that a hub wrote")

    def frame(self, head: bytes) -> int:
        """How many bytes of payload come after this frame."""
        if len(head) < FRAME.size:
            raise self._damage("is missing: the archive ends here, it was cut short")
        length = int(FRAME.unpack(head)[0])
        if length > PAYLOAD_MAX_BYTES:
            raise self._damage("is damaged")
        return length

    def unpack(self, head: bytes, payload: bytes) -> Block:
        length, checksum = FRAME.unpack(head)
        if len(payload) < length:
            raise self._damage("is not whole: the archive was cut short, or is damaged here")
        if checksum != _checksum(self._previous, payload):
            raise self._damage("is damaged")
        block = self._decode(payload)
        self._follow(block)
        self._previous = checksum
        self._at += FRAME.size + length
        return block

    def end(self, rest: bytes) -> None:
        """What comes after the trailer, which should be nothing."""
        if rest:
            raise self._damage("is not part of this archive: something was written behind its end")

    def _decode(self, payload: bytes) -> Block:
        try:
            return _decoder.decode(zlib.decompress(payload))
        except (zlib.error, msgspec.MsgspecError) as error:
            raise self._damage(f"was not made by this version of the hub: {error}") from error

    def _follow(self, block: Block) -> None:
        """Blocks come in an order, and events without a gap."""
        if isinstance(block, Header) != (self._tally.totals.blocks == 0):
            raise self._damage("is out of place")
        if isinstance(block, Header):
            if block.version > VERSION:
                raise ArchiveError(f"a newer hub wrote this archive (version {block.version}, ours is {VERSION})")
            self._events, self._heads = list(block.after), block.heads
        elif isinstance(block, Events):
            self._continue(block)
        elif isinstance(block, Trailer):
            if block != self._tally.totals or self._events != self._heads:
                raise self._damage("says that something is missing before it")
            self.done = True
            return
        self._tally.add(block)

    def _continue(self, block: Events) -> None:
        expected = self._events[block.partition] + 1
        for record in block.records:
            if record.offset != expected:
                raise self._damage(f"does not have event {expected} of partition {block.partition}")
            expected += 1
        self._events[block.partition] = expected - 1

    def _damage(self, what: str) -> Damaged:
        return Damaged(self._tally.totals.blocks, self._at, what)


def _checksum(previous: bytes, payload: bytes) -> bytes:
    digest = hashlib.blake2b(previous, digest_size=CHECKSUM_BYTES)
    digest.update(len(payload).to_bytes(4, "big"))
    digest.update(payload)
    return digest.digest()
