"""Reading JSON that strangers wrote: bounded, typed, and refused with the name of the bad field."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from hub.errors import InvalidFields, MalformedBody

T = TypeVar("T")
_SURROGATES = dict.fromkeys(range(55296, 57344), "�")
_CLEAN = {0: None, **_SURROGATES}


def decode(body: bytes | str, decoder: msgspec.json.Decoder[T]) -> T:
    """Raises MalformedBody where it is no JSON, InvalidFields where a field has the wrong type."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidFields(fields=dict([field_of(error)])) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        raise MalformedBody() from None


def field_of(error: msgspec.ValidationError) -> tuple[str, str]:
    """(path, complaint): `Expected `str`, got `int` - at `$.text`` is (`text`, `Expected `str`, got `int``)."""
    complaint, _, path = str(error).partition(" - at `$")
    return path.rstrip("`").lstrip(".") or "body", complaint


def clean(text: str, limit: int) -> str:
    """Text that every database and every client takes: no NUL, no lone surrogate, at most `limit` characters."""
    if text.isascii() and "\0" not in text:
        return text[:limit]
    return text.translate(_CLEAN)[:limit]
