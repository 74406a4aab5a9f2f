"""Captions of image files from a table: delimited text, JSON lines, JSON or Parquet, a row for each caption.

A row that cannot be used is its image's problem, not the table's. Delimited text is read by its own dialect: the
delimiter is the one that makes the columns appear in the header; a quotation mark that opens no field is text.
"""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from pipeline.read.base import SourceError
from pipeline.read.captions import CAPTION_NAMES, CaptionReader, caption_columns
from pipeline.read.items import MAX_MEMBER_BYTES, SampleError, check_size, read_file
from pipeline.read.location import Location
from pipeline.read.names import HOLDS_ITS_PICTURE, is_picture_itself
from pipeline.read.objects import BOXES, COLUMN, LABELS, decoded_cell, decoded_list
from pipeline.read.packed_text import plain_name, unpacked
from pipeline.read.parquet_files import DamagedParquetError, find_name, open_parquet, plain
from pipeline.read.phrases import EXPRESSIONS, row_objects
from schemas.loose_json import LooseJsonError, decode_json, text
from schemas.reasons import Reason
from schemas.text import decode_text

_FILE_NAMES = (
    "file_name",
    "file",
    "filename",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_name",
    "image_file_name",
    "image_filename",
    "image_file",
    "image_filepath",
    "image_file_path",
    "img",
    "img_path",
    "img_name",
    "img_file_name",
    "path",
)
_DELIMITERS = ",\t;|"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table."""

    file: str | None
    """The image as the table names it; None where it names none."""
    values: tuple[Any, ...] = ()
    """What stands in its columns of captions."""
    where: str
    problem: str | None = None
    objects: Any = None
    """Regions: what its field `objects` holds, or what its own fields say of a box."""


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
        data = unpacked(read_file(location, name), where, MAX_MEMBER_BYTES + 1)
        check_size(len(data), where)
        content = decode_text(data)
        if plain_name(name.lower()).endswith((".jsonl", ".ndjson")):
            return list(_line_rows(content, where))
        if plain_name(name.lower()).endswith(".json"):
            return list(_json_rows(decode_json(content.encode("utf-8", "surrogatepass")), where))
        return _delimited_rows(content, where, known)
    except (SampleError, LooseJsonError, DamagedParquetError, UnicodeError, csv.Error) as error:
        raise SourceError(f"{where}: cannot be read as a table of captions: {error}") from error


def _parquet_rows(location: Location, name: str) -> Iterator[Row]:
    with open_parquet(location, name) as parquet:
        file_column, captions, regions = _columns(parquet.schema_arrow.names, str(location))
        columns = list(dict.fromkeys([file_column, *captions, *regions]))
        number = 0
        for batch in parquet.iter_batches(columns=columns):
            for row in range(batch.num_rows):
                cells = {column: plain(batch.column(column)[row]) for column in columns}
                found = _row(text(cells[file_column]), [cells[column] for column in captions], f"row {number}")
                yield replace(found, objects=_objects({name: cells[name] for name in regions}))
                number += 1


def _line_rows(content: str, where: str) -> Iterator[Row]:
    """Yield the rows of JSON lines."""
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
    """Yield the rows of objects, each read by the fields that it has itself: exporters leave out what is null.

    Raises NoCaptionsError where all objects together have no field of files, or none of captions.
    """
    found = list(entries)
    names = dict.fromkeys(name for _, entry in found if isinstance(entry, Mapping) for name in entry)
    if names:
        _columns(list(names), where)
    for place, entry in found:
        if isinstance(entry, Mapping):
            there = [name for name, value in entry.items() if value is not None]
            regions = _region_columns(there)
            captions = [entry[name] for name in caption_columns(there) if name not in regions]
            said = _objects({name: entry[name] for name in regions})
            yield replace(_row(_file_of(entry), captions, place), objects=said)
        else:
            yield Row(file=None, where=place, problem=f"{place} is no JSON object")


def _file_of(entry: Mapping[str, Any]) -> str | None:
    by_name: dict[str, str | None] = {}
    for name, value in entry.items():
        by_name.setdefault(name.strip().lower(), text(value))
    return next((by_name[name] for name in _FILE_NAMES if by_name.get(name)), None)


def _columns(names: list[str], where: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return the column of files, those of captions, and those of regions; captions may be none where regions are."""
    stripped = {name.strip(): name for name in reversed(names)}
    regions = _region_columns(names)
    file_column = find_name(stripped, _FILE_NAMES)
    captions = tuple(name for name in caption_columns(names) if name not in regions)
    if file_column is None or not (captions or regions):
        raise NoCaptionsError(
            f"{where}: the header is {', '.join(names)[:200]!r}; it must name a column of files "
            f"({', '.join(_FILE_NAMES)}) and one of captions ({', '.join(CAPTION_NAMES)})"
        )
    return stripped[file_column], captions, regions


def _region_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that say regions: `objects`, else a box with its category and what is said of it."""
    stripped = {name.strip(): name for name in names}
    if COLUMN in stripped or not any(name in stripped for name in BOXES):
        return tuple(name for plain, name in stripped.items() if plain == COLUMN)
    said = {*LABELS, *EXPRESSIONS} - {*CAPTION_NAMES}
    return tuple(name for plain, name in stripped.items() if plain in BOXES or plain in said)


def _objects(cells: Mapping[str, Any]) -> Any:
    """Return what the cells of a row say of regions."""
    by_name = {name.strip(): value for name, value in cells.items()}
    if COLUMN in by_name:
        return decoded_cell(by_name[COLUMN])
    return row_objects(
        {name: decoded_cell(value) if name in BOXES else decoded_list(value) for name, value in by_name.items()}
    )


def _row(file: str | None, values: Iterable[Any], place: str) -> Row:
    problem = None if file is not None and file.strip() else f"{place} names no file"
    if file is not None and is_picture_itself(file):
        problem = f"{place} {HOLDS_ITS_PICTURE}"
    return Row(file=None if problem else file, values=tuple(values), where=place, problem=problem)


def _delimited_rows(content: str, where: str, known: Collection[str]) -> list[Row]:
    csv.field_size_limit(MAX_MEMBER_BYTES)  # the module's own limit is 131,072, for the whole process
    first = next(iter(io.StringIO(content, newline="")), "")
    delimiter, header = _dialect(first, where)
    file_column, captions, regions = _columns(header, where)
    places = [header.index(name) for name in (file_column, *captions, *regions)]
    rows = []
    for number, fields in _records(content, delimiter, header, places[0], known):
        place = f"line {number}"
        wrong = len(fields) > len(header) or len(fields) <= max(places)
        if wrong:
            counts = f"{len(fields)} fields, the header has {len(header)}"
            file = fields[places[0]] if len(fields) > places[0] else None
            problem = f"{place} has {counts}; quote fields that hold {delimiter!r}"
            rows.append(Row(file=file or None, where=place, problem=problem))
        else:
            values = [fields[column] for column in places[1:]]
            said = _objects(dict(zip(regions, values[len(captions) :], strict=True)))
            rows.append(replace(_row(fields[places[0]], values[: len(captions)], place), objects=said))
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


def _records(
    content: str, delimiter: str, header: list[str], file_place: int, known: Collection[str]
) -> list[tuple[int, list[str]]]:
    """Return (last line, fields) of each record after the header, as the csv module reads it where it can.

    A quoted field may hold lines that are whole records naming a known image: they are text, as long as that image has
    a record of its own; otherwise the quotation mark was a lone one, and the image would be robbed of its caption.
    """
    lines = list(io.StringIO(content, newline=""))
    records = list(_split(lines, delimiter, len(header), frozenset()))
    named = {fields[file_place].strip() for _, fields in records if len(fields) > file_place}
    robbed = frozenset(known) - named
    if len(records) == len(lines) - 1 or not robbed:
        return records
    return list(_split(lines, delimiter, len(header), robbed))


def _split(lines: list[str], delimiter: str, width: int, robbed: Collection[str]) -> Iterator[tuple[int, list[str]]]:
    start = 1
    while start < len(lines):
        stop, fields = _record(lines, start, delimiter, width, robbed)
        if fields:
            yield stop, fields
        start = stop


def _record(lines: list[str], start: int, delimiter: str, width: int, robbed: Collection[str]) -> tuple[int, list[str]]:
    """Return the line after the record at `start`, and its fields: quoted where that makes a whole record."""
    if '"' in lines[start]:
        reader = csv.reader((lines[number] for number in range(start, len(lines))), delimiter=delimiter, strict=True)
        try:
            fields = next(reader)
        except csv.Error:
            fields = []
        stop = start + reader.line_num
        robs = (_is_record(line, delimiter, width, robbed) for line in lines[start + 1 : stop])
        if len(fields) == width and not any(robs):
            return stop, fields
    return start + 1, _unquoted(lines[start], delimiter)


def _is_record(line: str, delimiter: str, width: int, robbed: Collection[str]) -> bool:
    if not robbed:
        return False
    fields = _unquoted(line, delimiter)
    return len(fields) == width and any(entry.strip() in robbed for entry in fields)


def _unquoted(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_NONE), [])
    except csv.Error:
        return []


@dataclass(kw_only=True)
class Matched:
    """What the rows of a table say of images, and the rows that name none."""

    readers: dict[str, CaptionReader] = field(default_factory=dict)
    """By uri; those of images that only the table names too."""
    objects: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)
    """(where, what a row's `objects` holds), by uri."""
    lost: list[Row] = field(default_factory=list)


def match_rows(rows: Iterable[Row], uris: Collection[str], name: str, folder: str = "", root: str = "") -> Matched:
    """Return what the rows of the table `name` say of each image, in the order of the rows.

    Files of rows are relative to `root`, where the table lies in `folder`. A name alone is also that of the one image
    below `folder` that has it; a name with folders is also that of the one image whose whole path ends so. A row that
    matches none is returned under its own path: its image is missing.
    """
    by_name: dict[str, list[str]] = {}
    for uri in uris:
        if uri.startswith(f"{folder}/" if folder else ""):
            by_name.setdefault(PurePosixPath(uri).name, []).append(uri)
    matched = Matched()
    for row in rows:
        if row.file is None:
            matched.lost.append(row)
            continue
        uri = row.file
        if uri not in uris:
            written = uri.removeprefix(f"{folder}/") if folder else uri
            alike = by_name.get(PurePosixPath(uri).name, ())
            found = [other for other in alike if f"{root}/{other}".endswith(f"/{written}")]
            uri = found[0] if len(found) == 1 else uri
        reader = matched.readers.setdefault(uri, CaptionReader())
        if row.problem is not None:
            reader.lose(SampleError(Reason.BAD_RECORD, f"{name}: {row.problem}"))
        for value in row.values:
            reader.add(value, f"{name}: {row.where}")
        if row.objects is not None:
            matched.objects.setdefault(uri, []).append((f"{name}: {row.where}", row.objects))
    return matched


def check_matched(rows: Collection[Row], matched: Matched, uris: Collection[str], where: str) -> None:
    """Raise SourceError if no row names an image of the folder."""
    if any(uri in matched.readers for uri in uris):
        return
    first = next(iter(matched.readers), None)
    named = "it has none" if first is None else f"its first is {first!r}, the first image is {min(uris)!r}"
    raise SourceError(f"{where}: none of its {len(rows)} rows names an image of the folder ({named})")
