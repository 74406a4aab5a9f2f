"""A list of images to take out of a data set, or to look for in one: keys, web addresses and hashes."""

import csv
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from posixpath import splitext
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.folder import DatasetError
from schemas.hashes import fingerprint
from schemas.stores import open_fs

HASH = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
COLUMNS = ("key", "url", "sha256", "image_sha256")
"""Of a list in CSV, Parquet or JSON lines: what of a row names an image."""


@dataclass(frozen=True, kw_only=True)
class DropList:
    """A list of images: keys, web addresses, and sha256 hashes in small letters."""

    path: str
    lines: tuple[str, ...]
    """Each once, in order."""

    @property
    def sha256(self) -> str:
        """Of what is listed, in whatever order and format."""
        return fingerprint(sorted(self.lines))

    @property
    def has_more_than_keys(self) -> bool:
        """Whether a line may be no key."""
        return any(HASH.fullmatch(line) or ":" in line or "/" in line for line in self.lines)


def load_drop_list(path: str) -> DropList:
    """Read a list: a key, address or hash a line (# begins a comment), or CSV, Parquet or JSON lines with `COLUMNS`.

    A first line of text that is the name of such a column is a header.

    Raises DatasetError when it is not there, cannot be read, or names nothing.
    """
    try:
        fs, file = open_fs(path)
        content = fs.cat_file(file)
    except (ValueError, ImportError, OSError) as error:
        raise DatasetError(f"{path}: cannot read this list: {error}") from error
    try:
        lines = list(_lines(content, splitext(path)[1].lower(), path))
    except (pa.ArrowException, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot read this list: {error}") from error
    if not lines:
        raise DatasetError(f"{path}: names no image; write a key, a web address or a sha256 a line")
    return DropList(path=path, lines=tuple(dict.fromkeys(lines)))


def _rows_of_text(content: bytes, suffix: str, path: str) -> list[dict[str, str | None]]:
    written = (line.decode("utf-8-sig") for line in content.splitlines())
    lines = [line for line in written if line.strip() and not line.startswith("#")]
    first = [cell.strip().lower() for cell in next(csv.reader(lines[:1]), [])]
    if any(name in COLUMNS for name in first) and (suffix == ".csv" or len(first) == 1):
        return list(csv.DictReader(lines[1:], first, restkey="")) if suffix == ".csv" else _as_keys(lines[1:])
    if suffix == ".csv" and len(first) > 1:
        raise DatasetError(
            f"{path}: its first line is {lines[0]!r}, and names none of the columns {', '.join(COLUMNS)}; "
            "give it a header that does, or name an image a line"
        )
    return _as_keys(lines)


def _as_keys(lines: list[str]) -> list[dict[str, str | None]]:
    return [{"key": line} for line in lines]


def _lines(content: bytes, suffix: str, path: str) -> Iterator[str]:
    rows: list[Any]
    if suffix == ".parquet":
        table = pq.read_table(pa.BufferReader(content))
        rows = table.select([name for name in COLUMNS if name in table.column_names]).to_pylist()
    elif suffix in (".jsonl", ".json"):
        rows = msgspec.json.Decoder(dict[str, Any]).decode_lines(content.removeprefix(BOM_UTF8))
    else:
        rows = _rows_of_text(content, suffix, path)
    if rows and not any(name in row for row in rows for name in COLUMNS):
        raise DatasetError(f"{path}: has none of the columns {', '.join(COLUMNS)}, by which images are named")
    named = (row.get(name) for row in rows for name in COLUMNS)
    for line in (str(value).strip() for value in named if value is not None):
        if line:
            is_hash = HASH.fullmatch(line)
            yield is_hash[1].lower() if is_hash else line
