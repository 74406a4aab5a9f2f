"""Lists of JSON objects, in a list or a line each: decoded one at a time, whatever one of them holds.

[{...}, {...}]        bytes of the file in memory, objects one at a time
{...}\\n{...}\\n         a line in memory
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from pipeline.read.base import SourceError
from pipeline.read.location import Location
from pipeline.read.packed_text import open_text, plain_name
from schemas.loose_json import LooseJsonError, decode_json, shown, split_json

_LINES = (".jsonl", ".ndjson")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def is_lines(name: str) -> bool:
    """Return whether a file is JSON lines, by its name."""
    return plain_name(name.lower()).endswith(_LINES)


def json_entries(location: Location) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of each entry of a file; a value that is no JSON is a LooseJsonError.

    Raises SourceError for a file that is no list of entries at all, FileNotFoundError, OSError when the store fails.
    """
    name = location.name or ""
    pieces = _lines(location) if is_lines(name) else _list(location)
    for place, piece in pieces:
        try:
            value = decode_json(piece)
        except LooseJsonError as error:
            yield f"{name} {place}", error
            continue
        yield f"{name} {place}", value


def object_problem(value: Any) -> str | None:
    """Return why an entry is no object, or None."""
    if isinstance(value, LooseJsonError):
        return str(value)
    return None if isinstance(value, dict) else f"is {shown(value)}, not an object"


def _lines(location: Location) -> Iterator[tuple[str, bytes]]:
    with open_text(location) as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith(_UTF16):
                raise SourceError(f"{location}: is UTF-16; write it as UTF-8, as JSON lines are")
            if line.strip(b" \t\r\n\xef\xbb\xbf"):
                yield f"line {number}", line


def _list(location: Location) -> Iterator[tuple[str, bytes]]:
    with open_text(location) as file:
        data = file.read()
    try:
        pieces = split_json(data, list[msgspec.Raw])
    except LooseJsonError as error:
        raise SourceError(f"{location}: is no list of JSON objects: {error}") from error
    for number, piece in enumerate(pieces):
        yield f"entry {number}", bytes(piece)
