"""The dedupe window remembers what was seen and what became of it, within a fixed size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.window import ENTRY_BYTES, WINDOW_MAX_ENTRIES, find, fingerprint, remember


def test_what_was_remembered_is_found_with_its_place() -> None:
    window = bytearray()
    remember(window, fingerprint("a"), 3, 41)
    remember(window, fingerprint("b"), 1, 2)
    assert find(window, fingerprint("a")) == (3, 41)
    assert find(window, fingerprint("b")) == (1, 2)


def test_what_was_never_seen_is_not_found() -> None:
    assert find(bytearray(), fingerprint("a")) is None


def test_bytes_that_only_look_like_a_fingerprint_across_two_entries_are_no_match() -> None:
    """A match must begin where an entry begins: the tail of one and the head of the next prove nothing."""
    window = bytearray()
    remember(window, b"AAAAAAAA", 0x42424242, 0x42424242)
    assert find(window, b"AAAABBBB") is None
    assert find(window, b"BBBBBBBB") is None


def test_a_look_alike_does_not_hide_the_real_entry_behind_it() -> None:
    window = bytearray()
    remember(window, b"xxxxxxxx", 0x42424242, 0x42424242)
    remember(window, b"BBBBBBBB", 7, 9)
    assert find(window, b"BBBBBBBB") == (7, 9)


def test_a_full_window_forgets_the_oldest_first_and_never_grows() -> None:
    window = bytearray()
    for number in range(WINDOW_MAX_ENTRIES + 1):
        remember(window, fingerprint(str(number)), 1, number)
    assert len(window) <= WINDOW_MAX_ENTRIES * ENTRY_BYTES
    assert find(window, fingerprint("0")) is None
    assert find(window, fingerprint(str(WINDOW_MAX_ENTRIES))) == (1, WINDOW_MAX_ENTRIES)


def test_at_least_seven_eighths_of_the_window_are_always_remembered() -> None:
    window = bytearray()
    for number in range(3 * WINDOW_MAX_ENTRIES):
        remember(window, fingerprint(str(number)), 1, number)
        oldest = number - WINDOW_MAX_ENTRIES * 7 // 8 + 1
        if number % 97 == 0 and oldest > 0:
            assert find(window, fingerprint(str(oldest))) == (1, oldest)


@given(st.text())
def test_any_text_has_a_fingerprint_of_eight_bytes(text: str) -> None:
    """A provider's id may be anything, lone surrogates included."""
    assert len(fingerprint(text)) == 8
