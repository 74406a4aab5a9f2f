"""Whether images are gone: each file of a data set is searched for their keys, web addresses and hashes.

    tars        names of members, records, hashes of the stored images
    tables      every column of text: shards', overlays', the plan's, and the plan's items
    the rest    JSON, logs, sheets, lists, whatever else lies there: their text, and the hash of the file

All that lies below the folder is looked at, attempts and leftovers too. What cannot be read is an error: nothing is
proved of it. A key that may be a word or a number of something else (no digit in it and fewer than 8 characters) counts
in fields that hold keys, addresses or names of files alone.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.doctor.findings import Findings
from pipeline.overlay.drop_list import HASH, DropList
from schemas.folder import DatasetError, Folder
from schemas.hashes import sha256
from schemas.names import IMAGE_SUFFIXES
from schemas.store_errors import read_errors
from schemas.tar import read_members

_REMEDY = (
    "make the data set without it (`fineclip materialize DATA OUT --drop FILE`) and look at OUT; files that are no "
    "part of it (sheets, marks, logs in _run/) are removed by hand"
)
_UNREADABLE = "find out why it cannot be read, or remove it: nothing is known of what it holds"
_FIELDS = ("key", "__key__", "keys", "repeated_keys", "uri", "url", "sha256", "image_sha256")
"""Fields and columns in which a key, an address or a hash is one, however it reads."""
_LEAST_TELLING = 8
"""Characters from which on a key without a digit is taken for one in any text."""
_WORDS = re.compile(r"[A-Za-z0-9_-]+")
_ADDRESSES = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\"'<>\\]+")
_EMBEDDED = re.compile(rb"base64,[A-Za-z0-9+/=]+")
_MAGIC_PARQUET = b"PAR1"


def examine_absence(folder: Folder, drop: DropList, findings: Findings, threads: int) -> int:
    """Report each place below the folder where a line of the list is; returns the number of files looked at.

    Raises OSError where the folder cannot be listed, and DatasetError where there is none.
    """
    names = sorted(_files(folder))
    if not names:
        raise DatasetError(f"{folder.url}: no file is there; give the OUTPUT of `fineclip materialize`")
    wanted = _Wanted(drop)
    with ThreadPoolExecutor(threads) as pool:
        for name, found, problem in pool.map(lambda name: _look_into(folder, name, wanted), names):
            for line, place in sorted(found):
                findings.error("present", f"{line} is still in {name}: {place}", remedy=_REMEDY)
            if problem is not None:
                findings.error("unreadable", f"{name} cannot be searched: {problem}", remedy=_UNREADABLE)
    return len(names)


def _files(folder: Folder) -> Iterator[str]:
    """Yield the names of all files below the folder."""
    root = folder.path("").rstrip("/")
    with read_errors(folder.url):
        folder.fs.invalidate_cache()
        for path in folder.fs.find(root):
            yield str(path)[len(root) :].lstrip("/")


_Found = set[tuple[str, str]]
"""Lines of the list, and where in the file they are, in words."""


def _look_into(folder: Folder, name: str, wanted: "_Wanted") -> tuple[str, _Found, str | None]:
    """Return a file's name, what is in it, and why it cannot be searched."""
    found: _Found = set()
    try:
        with folder.stream(name) as file:
            begins = file.read(512)
            file.seek(0)
            is_tar, is_table = begins[257:262] == b"ustar", begins[:4] == _MAGIC_PARQUET
            if is_tar:
                _look_into_tar(file, name, wanted, found)
            elif is_table:
                _look_into_table(file.read(), wanted, found)
            else:
                _look_into_text(file.read(), name, wanted, found)
        found |= {(line, "its name") for line in wanted.in_text(name.rpartition("/")[2])}
    except (DatasetError, OSError, pa.ArrowException, msgspec.DecodeError, ValueError) as error:
        return name, found, str(error)
    return name, found, None


def _look_into_tar(file: BinaryIO, name: str, wanted: "_Wanted", found: _Found) -> None:
    for member in read_members(file, name, 0):
        place = f"member {member.key}.{member.suffix}"
        found |= {(line, place) for line in wanted.named(member.key)}
        if member.suffix in IMAGE_SUFFIXES:
            found |= {(line, f"the bytes of {place}") for line in wanted.named(sha256(member.data))}
        elif member.suffix == "json":
            found |= {(line, f"{place}, {where}") for line, where in wanted.in_value(msgspec.json.decode(member.data))}
        else:
            found |= {(line, place) for line in wanted.in_text(member.data.decode(errors="replace"))}


def _look_into_table(content: bytes, wanted: "_Wanted", found: _Found) -> None:
    table = pq.read_table(pa.BufferReader(content))
    for column in table.column_names:
        kind = table.schema.field(column).type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            values: list[Any] = [msgspec.msgpack.decode(value) for value in table[column].to_pylist() if value]
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            values = table[column].unique().to_pylist()
        else:
            values = [value for value in table[column].to_pylist() if value is not None] if _is_nested(kind) else []
        for value in values:
            found |= {(line, f"column {where}") for line, where in wanted.in_value(value, column)}


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind) or pa.types.is_dictionary(kind))


def _look_into_text(content: bytes, name: str, wanted: "_Wanted", found: _Found) -> None:
    found |= {(line, "the bytes of the file") for line in wanted.named(hashlib.sha256(content).hexdigest())}
    values = _json_values(content, name)
    if values is not None:
        for value in values:
            found |= set(wanted.in_value(value))
        return
    text = _EMBEDDED.sub(b"", content).decode(errors="replace")
    found |= {(line, "its text") for line in wanted.in_text(text)}


def _json_values(content: bytes, name: str) -> list[Any] | None:
    """Return what a file of JSON or JSON lines holds; None for one that is neither."""
    lines = msgspec.json.Decoder().decode_lines
    decoders: list[Callable[[bytes], Any]] = [lambda data: [msgspec.json.decode(data)], lines]
    for decode in decoders if name.endswith((".json", ".jsonl")) else []:
        try:
            return list(decode(content))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return None


class _Wanted:
    """The lines of a list, looked for in names, values and text."""

    def __init__(self, drop: DropList) -> None:
        self._lines = frozenset(drop.lines)
        self._telling = frozenset(line for line in drop.lines if _is_telling(line))

    def named(self, name: str) -> set[str]:
        """Return the line that a key, an address or a hash is."""
        return {name} & self._lines

    def in_text(self, text: str) -> set[str]:
        """Return the lines that a text says: keys and hashes as words, addresses whole."""
        words = {*_WORDS.findall(text), *(found.rstrip(".,;:)]") for found in _ADDRESSES.findall(text))}
        return {word for word in words if word in self._telling}

    def in_value(self, value: Any, field: str = "") -> Iterator[tuple[str, str]]:
        """Yield the lines that a value of JSON says, with the name of the field."""
        if isinstance(value, dict):
            for name, each in value.items():
                yield from self.in_value(name, field)
                yield from self.in_value(each, str(name))
        elif isinstance(value, list | tuple):
            for each in value:
                yield from self.in_value(each, field)
        elif isinstance(value, str):
            lines = self.in_text(value) | ({value} & (self._lines if field in _FIELDS else self._telling))
            yield from ((line, field or "its text") for line in lines)


def _is_telling(line: str) -> bool:
    is_key = HASH.fullmatch(line) is None and ":" not in line
    return not is_key or len(line) >= _LEAST_TELLING or any(character.isdigit() for character in line)
