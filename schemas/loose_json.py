"""JSON as others write it, read for what it means: numbers in quotation marks, ids of either kind, NaN, odd text.

bytes --decode_json--> values --number, text, id_text--> what they mean, or None
      --split_json--> one piece a list item, not decoded yet: a large file is never in memory as Python objects
"""

import json
import math
import re
from typing import Any, TypeVar

import msgspec

from schemas.text import SURROGATE, decode_utf8, mended

_Shape = TypeVar("_Shape")
_SHOWN = 80
"""Characters of a value that messages show."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b', re.DOTALL)
_IN_STRING = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.|([\x00-\x1f])",
    re.DOTALL,
)
"""In a string: pairs of surrogates and other escapes, a lone surrogate (1), a control character as such (2)."""


class LooseJsonError(ValueError):
    """The data is no JSON at all, or nested beyond all use."""


def decode_json(data: bytes) -> Any:
    """Return the value of `data`; NaN, control characters in strings and bytes that are not UTF-8 are taken.

    Raises LooseJsonError for what is no JSON, or nested too deep.
    """
    try:
        return json.loads(decode_utf8(data), strict=False)
    except RecursionError as error:
        raise LooseJsonError("nested too deep to be read") from error
    except ValueError as error:
        raise LooseJsonError(f"no JSON: {error}") from error


def split_json(data: bytes, shape: type[_Shape]) -> _Shape:
    """Return `data` as `shape`, a Struct whose fields of `msgspec.Raw` are pieces for `decode_json`, not decoded yet.

    The pieces are views of `data`, so that memory is the file's bytes and some 100 bytes a piece; a file with NaN, lone
    surrogates or control characters in strings is copied once more. Raises LooseJsonError for what is no JSON of that
    shape, or nested too deep.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        try:
            return msgspec.json.decode(data, type=shape)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return msgspec.json.decode(_TOKEN.sub(_strict_token, data), type=shape)
    except RecursionError as error:
        raise LooseJsonError("nested too deep to be read") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LooseJsonError(str(error)) from error


def _strict_token(token: re.Match[bytes]) -> bytes:
    """Return a string or an odd number as strict JSON; the number becomes a string, which `number` reads."""
    found = token[0]
    return _IN_STRING.sub(_strict_character, found) if found.startswith(b'"') else b'"' + found + b'"'


def _strict_character(found: re.Match[bytes]) -> bytes:
    if found[2] is not None:
        return b"\\u%04x" % found[2][0]
    return found[0] if found[1] is None else b"\\u%04x" % ord(SURROGATE)


def number(value: Any) -> float | None:
    """Return the number that `value` means, as a number or as text; None for anything else. May be NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def text(value: Any) -> str | None:
    """Return a string or a number as text that can be stored; None for anything else and for empty text."""
    if isinstance(value, str):
        return mended(value) or None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return mended(str(value)) or None


def id_text(value: Any) -> str | None:
    """Return an id as text, the same for 1, 1.0 and "1"; None for what is no id."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    said = text(value)
    return said.strip() or None if said else None


def shown(value: Any) -> str:
    """Return the beginning of a value as messages show it."""
    said = repr(value)
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."
