"""The dedupe window: which external ids a stream has seen, and what became of each.

A packed array of 16-byte entries (8 bytes of hash, 4 of conversation ordinal, 4 of seq), oldest first.
Twenty remembered messages cost 320 bytes, where a dict of strings would cost twenty times that, and
a look-up is one C scan. The odds of two different ids colliding in a full window are below 2⁻⁵⁰.
"""

from __future__ import annotations

import hashlib
import struct

WINDOW_MAX_ENTRIES = 4_096
ENTRY_BYTES = 16
_TAIL = struct.Struct("<II")


def fingerprint(external_id: str) -> bytes:
    return hashlib.blake2b(external_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def find(window: bytearray, mark: bytes) -> tuple[int, int] | None:
    """(ordinal, seq) remembered for a fingerprint, or None."""
    at = window.find(mark)
    while at != -1:
        if at % ENTRY_BYTES == 0:
            ordinal, seq = _TAIL.unpack_from(window, at + 8)
            return ordinal, seq
        at = window.find(mark, at + 1)
    return None


def remember(window: bytearray, mark: bytes, ordinal: int, seq: int) -> None:
    window += mark + _TAIL.pack(ordinal, seq)
    excess = len(window) - WINDOW_MAX_ENTRIES * ENTRY_BYTES
    if excess > 0:
        # An eighth at a time: moving 64 KB for every message of a very long thread would be waste.
        del window[: max(excess, WINDOW_MAX_ENTRIES * ENTRY_BYTES // 8)]
