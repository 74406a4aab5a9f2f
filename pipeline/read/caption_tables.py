"""Captions of image files from a table: delimited text, JSON lines, JSON or Parquet, a row for each caption.

A row that cannot be used is its image's problem, not the table's. Delimited text is read by its own dialect: the
delimiter is the one that makes the columns appear in the header; a quotation mark that opens no field is text.
"""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pipeline.read.base import SourceError
from pipeline.read.captions import CAPTION_NAMES, CaptionReader, caption_columns
from pipeline.read.items import MAX_MEMBER_BYTES, SampleError, read_file
from pipeline.read.location import Location
from pipeline.read.parquet_files import DamagedParquetError, find_name, open_parquet, plain
from schemas.loose_json import LooseJsonError, decode_json, text
from schemas.reasons import Reason
from schemas.text import decode_utf8

_FILE_NAMES = ("file_name", "file", "filename", "filepath", "file_path", "image", "image_path", "image_name", "path")
_DELIMITERS = ",\t;|"
_MAX_LINES = 1000
"""Lines of one quoted field: beyond, the quotation mark was none."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table."""

    file: str | None
    """The image as the table names it; None where it names none."""
    values: tuple[Any, ...] = ()
    """What stands in its columns of captions."""
    where: str
    problem: str | None = None


class NoCaptionsError(SourceError):
    """A table has no column of files, or none of captions."""


def read_table(location: Location, known: Collection[str] = ()) -> list[Row]:
    """Return the rows of the table at `location`; `known` are images that rows may name.

    Raises SourceError, naming the table, where it cannot be read at all, and NoCaptionsError for other columns.
    """
    name, where = location.name or "", str(location)
    try:
        if name.lower().endswith(".parquet"):
            return list(_parquet_rows(location, name))
        content = decode_utf8(read_file(location, name))
        if name.lower().endswith((".jsonl", ".ndjson")):
            return list(_line_rows(content, where))
        if name.lower().endswith(".json"):
            return list(_json_rows(decode_json(content.encode("utf-8", "surrogatepass")), where))
        return _delimited_rows(content, where, known)
    except (SampleError, LooseJsonError, DamagedParquetError, csv.Error) as error:
        raise SourceError(f"{where}: cannot be read as a table of captions: {error}") from error


def _parquet_rows(location: Location, name: str) -> Iterator[Row]:
    with open_parquet(location, name) as parquet:
        file_column, captions = _columns(parquet.schema_arrow.names, str(location))
        number = 0
        for batch in parquet.iter_batches(columns=[file_column, *captions]):
            for row in range(batch.num_rows):
                file, *values = (plain(batch.column(column)[row]) for column in (file_column, *captions))
                yield _row(text(file), values, f"row {number}")
                number += 1


def _line_rows(content: str, where: str) -> Iterator[Row]:
    """Yield the rows of JSON lines; the first object says which fields hold what."""
    lines = [(number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()]
    yield from _object_rows(((f"line {number}", _line_value(line)) for number, line in lines), where)


def _line_value(line: str) -> Any:
    try:
        return decode_json(line.encode("utf-8", "surrogatepass"))
    except LooseJsonError as error:
        return error


def _json_rows(value: Any, where: str) -> Iterator[Row]:
    """Yield the rows of a JSON file: a list of objects, or an object of captions by file name."""
    if isinstance(value, dict) and "images" in value and "annotations" in value:
        raise NoCaptionsError(f"{where}: is a COCO file; give it as INPUT: coco:FILE?images=FOLDER")
    if isinstance(value, dict):
        for file, captions in value.items():
            yield _row(text(file), [captions], f"entry {file!r}"[:100])
    elif isinstance(value, list):
        yield from _object_rows(((f"entry {number}", entry) for number, entry in enumerate(value)), where)
    else:
        raise NoCaptionsError(f"{where}: is neither a list nor an object")


def _object_rows(entries: Iterable[tuple[str, Any]], where: str) -> Iterator[Row]:
    columns: tuple[str, tuple[str, ...]] | None = None
    for place, entry in entries:
        if not isinstance(entry, Mapping):
            yield Row(file=None, where=place, problem=f"{place} is no JSON object")
            continue
        columns = columns or _columns(list(entry), where)
        yield _row(text(entry.get(columns[0])), [entry.get(name) for name in columns[1]], place)


def _columns(names: list[str], where: str) -> tuple[str, tuple[str, ...]]:
    """Return the column of files and those of captions."""
    stripped = {name.strip(): name for name in reversed(names)}
    file_column, captions = find_name(stripped, _FILE_NAMES), caption_columns(names)
    if file_column is None or not captions:
        raise NoCaptionsError(
            f"{where}: the header is {', '.join(names)[:200]!r}; it must name a column of files "
            f"({', '.join(_FILE_NAMES)}) and one of captions ({', '.join(CAPTION_NAMES)})"
        )
    return stripped[file_column], captions


def _row(file: str | None, values: Iterable[Any], place: str) -> Row:
    named = file is not None and bool(file.strip())
    return Row(
        file=file if named else None,
        values=tuple(values),
        where=place,
        problem=None if named else f"{place} names no file",
    )


def _delimited_rows(content: str, where: str, known: Collection[str]) -> list[Row]:
    csv.field_size_limit(MAX_MEMBER_BYTES)  # the module's own limit is 131,072, for the whole process
    first = next(iter(io.StringIO(content, newline="")), "")
    delimiter, header = _dialect(first, where)
    file_column, captions = _columns(header, where)
    places = [header.index(name) for name in (file_column, *captions)]
    rows = []
    for number, fields in _records(content, delimiter, len(header), known):
        place = f"line {number}"
        wrong = len(fields) > len(header) or len(fields) <= max(places)
        if wrong:
            counts = f"{len(fields)} fields, the header has {len(header)}"
            file = fields[places[0]] if len(fields) > places[0] else None
            problem = f"{place} has {counts}; quote fields that hold {delimiter!r}"
            rows.append(Row(file=file or None, where=place, problem=problem))
        else:
            rows.append(_row(fields[places[0]], [fields[column] for column in places[1:]], place))
    return rows


def _dialect(first_line: str, where: str) -> tuple[str, list[str]]:
    """Return the delimiter and the header."""
    for delimiter in _DELIMITERS:
        header = next(csv.reader([first_line], delimiter=delimiter), [])
        try:
            _columns(header, where)
        except NoCaptionsError:
            continue
        return delimiter, header
    _columns([first_line.rstrip("\r\n")], where)
    raise AssertionError("a lone column is either of files or of captions")


def _records(content: str, delimiter: str, width: int, known: Collection[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (last line, fields) of each record after the header."""
    lines = list(io.StringIO(content, newline=""))
    start = 1
    while start < len(lines):
        stop, fields = _record(lines, start, delimiter, width, known)
        if fields:
            yield stop, fields
        start = stop


def _record(lines: list[str], start: int, delimiter: str, width: int, known: Collection[str]) -> tuple[int, list[str]]:
    """Return the line after the record at `start`, and its fields: quoted as far as that makes a whole record.

    A quoted field may go on for lines, but not over one that is a whole record of its own naming a known image.
    """
    if '"' not in lines[start]:
        return start + 1, _fields([lines[start]], delimiter, quoted=False) or []
    for stop in range(start + 1, min(start + _MAX_LINES, len(lines)) + 1):
        if stop > start + 1 and _is_record(lines[stop - 1], delimiter, width, known):
            break
        fields = _fields(lines[start:stop], delimiter, quoted=True)
        if fields is not None:
            if len(fields) == width:
                return stop, fields
            break
    return start + 1, _fields([lines[start]], delimiter, quoted=False) or []


def _is_record(line: str, delimiter: str, width: int, known: Collection[str]) -> bool:
    fields = _fields([line], delimiter, quoted=False) or []
    return len(fields) == width and any(entry.strip() in known for entry in fields)


def _fields(lines: list[str], delimiter: str, *, quoted: bool) -> list[str] | None:
    """Return the fields of one record, or None where its quotation marks do not fit."""
    try:
        if quoted:
            records = list(csv.reader(lines, delimiter=delimiter, strict=True))
        else:
            records = list(csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE))
    except csv.Error:
        return None
    return records[0] if len(records) == 1 else None


@dataclass(kw_only=True)
class Matched:
    """What the rows of a table say of images, and the rows that name none."""

    readers: dict[str, CaptionReader] = field(default_factory=dict)
    """By uri; those of images that only the table names too."""
    lost: list[Row] = field(default_factory=list)


def match_rows(rows: Iterable[Row], uris: Collection[str], name: str, folder: str = "") -> Matched:
    """Return what the rows of the table `name` say of each image, in the order of the rows.

    A row is matched by its path within `folder`, else by its file name alone where only one image has it. A row that
    matches none is returned under its own path: its image is missing.
    """
    by_name: dict[str, str | None] = {}
    for uri in uris:
        base = PurePosixPath(uri).name
        by_name[base] = uri if base not in by_name else None
    matched = Matched()
    for row in rows:
        if row.file is None:
            matched.lost.append(row)
            continue
        path = str(PurePosixPath(folder) / PurePosixPath(row.file.strip()))
        uri = path if path in uris else by_name.get(PurePosixPath(path).name) or path
        reader = matched.readers.setdefault(uri, CaptionReader())
        if row.problem is not None:
            reader.lose(SampleError(Reason.BAD_RECORD, f"{name}: {row.problem}"))
        for value in row.values:
            reader.add(value, f"{name}: {row.where}")
    return matched


def check_matched(rows: Collection[Row], matched: Matched, uris: Collection[str], where: str) -> None:
    """Raise SourceError if no row names an image of the folder."""
    if any(uri in matched.readers for uri in uris):
        return
    first = next(iter(matched.readers), None)
    named = "it has none" if first is None else f"its first is {first!r}, the first image is {min(uris)!r}"
    raise SourceError(f"{where}: none of its {len(rows)} rows names an image of the folder ({named})")
