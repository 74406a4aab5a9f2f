"""Captions of an image folder from one table: CSV or TSV, with a header, a row an image."""

import csv
import io
from collections.abc import Iterable
from pathlib import PurePosixPath

from pipeline.read.base import SourceError
from pipeline.read.items import SampleError, read_file
from pipeline.read.location import Location
from pipeline.read.parquet_files import find_name

_FILE_COLUMNS = ("file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_name", "path")
_CAPTION_COLUMNS = ("caption", "text", "title")
_DELIMITERS = ",\t;|"


def read_captions(location: Location) -> list[tuple[str, str]]:
    """Return (file as the table names it, caption) of each row of the table at `location`.

    The delimiter is the one that makes both columns appear in the header. Raises SourceError, naming file and line,
    for a table that is not UTF-8, has no such columns, or has a row of another length than its header.
    """
    try:
        text = read_file(location, location.name or "").decode("utf-8-sig")
        return _rows(text, str(location))
    except (SampleError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{location}: cannot be read as a table of captions in UTF-8: {error}") from error


def _rows(text: str, where: str) -> list[tuple[str, str]]:
    delimiter = _delimiter(text.partition("\n")[0].rstrip("\r"), where)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header = [name.strip() for name in next(reader)]
    file_column = header.index(find_name(header, _FILE_COLUMNS) or "")
    caption_column = header.index(find_name(header, _CAPTION_COLUMNS) or "")
    rows = []
    for row in filter(None, reader):
        if len(row) != len(header):
            fields = f"{len(row)} fields, the header has {len(header)}"
            raise SourceError(f"{where}: line {reader.line_num} has {fields}; quote fields that hold {delimiter!r}")
        if not row[file_column].strip():
            raise SourceError(f"{where}: line {reader.line_num} names no file in column {header[file_column]!r}")
        rows.append((row[file_column], row[caption_column]))
    return rows


def _delimiter(header: str, where: str) -> str:
    for delimiter in _DELIMITERS:
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        if find_name(names, _FILE_COLUMNS) and find_name(names, _CAPTION_COLUMNS):
            return delimiter
    raise SourceError(
        f"{where}: the header is {header[:200]!r}; it must name a column of files ({', '.join(_FILE_COLUMNS)}) and one "
        f"of captions ({', '.join(_CAPTION_COLUMNS)})"
    )


def match_captions(rows: Iterable[tuple[str, str]], uris: Iterable[str], where: str) -> dict[str, str]:
    """Return the caption of each image, by uri; the first where an image has several rows.

    A row is matched by its path, else by its file name alone where only one image has it. A row that matches none is
    returned as well, under its own path: its image is missing. Raises SourceError if no row matches at all.
    """
    known = set(uris)
    by_name: dict[str, str | None] = {}
    for uri in sorted(known):
        name = PurePosixPath(uri).name
        by_name[name] = uri if name not in by_name else None
    captions: dict[str, str] = {}
    for file, caption in rows:
        path = str(PurePosixPath(file.strip()))
        uri = path if path in known else by_name.get(PurePosixPath(path).name) or path
        captions.setdefault(uri, caption)
    if not known & captions.keys():
        named = (
            f"its first is {next(iter(captions))!r}, the first image is {min(known)!r}" if captions else "it has none"
        )
        raise SourceError(f"{where}: none of its {len(captions)} rows names an image of the folder ({named})")
    return captions
