"""Parquet files with the images' bytes in a column, as Hugging Face data sets keep them.

Regions come from a column `objects`, from GRIT's spans of the caption, or from a column of a box with its expressions.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import PurePosixPath
from typing import Any, ClassVar, cast

import pyarrow.parquet as pq

from pipeline.read.base import SourceError, SourceFile, SourcePart
from pipeline.read.captions import CaptionReader, notes
from pipeline.read.describe import Description
from pipeline.read.items import SampleError, failed_item, read_image_file, unreadable_is_missing
from pipeline.read.keys import as_key, key_in_split, splits_told_apart_by_name, without_extension
from pipeline.read.location import Location
from pipeline.read.names import Names
from pipeline.read.objects import (
    Form,
    class_names,
    decoded_cell,
    decoded_list,
    is_boxes_alone,
    may_be_json,
    read_objects,
)
from pipeline.read.parquet_columns import CANDIDATES, Columns, find_columns
from pipeline.read.parquet_files import (
    DamagedParquetError,
    arrow_errors,
    damaged_group,
    find_name,
    is_text,
    open_parquet,
    plain,
    unread_columns,
)
from pipeline.read.parts import pack_parts
from pipeline.read.phrases import OF_PICTURE, is_list_of_boxes, read_lone_boxes, read_spans
from pipeline.read.picture_cells import is_empty, is_picture_text, is_text_or_lists, read_picture
from pipeline.read.spec import is_data, is_parquet, split_options
from pipeline.sample import GivenRegion, SourceItem
from schemas.loose_json import text
from schemas.reasons import Reason
from schemas.text import decode_utf8

_BATCH_ROWS = 32
"""Rows decoded at a time: what bounds the memory of a reader."""
_REQUESTS = 8
"""Footers of remote files read at once when planning."""


class Parquet:
    """A file, folder or glob of Parquet: `data`, `data/*.parquet`, `data?image=photo&caption=alt&key=id`."""

    kind: ClassVar[str] = "parquet"
    known: ClassVar[tuple[str, ...]] = ("image", "caption", "key", "objects", "boxes")
    """Options."""

    def __init__(self, rest: str, *, allow: Sequence[str] = ()) -> None:
        path, self._options = split_options(rest, known=self.known)
        self._form = cast(Form, self._options.get("boxes", "xywh"))
        if self._form not in ("xywh", "xyxy"):
            raise SourceError(f"{path}: ?boxes={self._form} is neither xywh, as COCO has them, nor xyxy")
        self._location = Location.of(path).allowing(allow)
        self._names = Names(self._location)

    def files(self) -> Iterator[SourceFile]:
        """Yield the Parquet files."""
        named = self._location.name is not None
        files = [file for file in self._location.files() if named or (is_parquet(file.uri) and is_data(file.uri))]
        if not any(file.size or file.etag for file in files):
            raise SourceError(f"{self._location}: found no .parquet file; check the path")
        yield from files

    @property
    def root(self) -> str:
        """The folder that uris are relative to."""
        return self._location.root

    def describe(self) -> Description:
        """Name the columns that are read, and those that are not, of the first file that has rows."""
        files = list(self.files())
        for file in files:
            with suppress(FileNotFoundError, DamagedParquetError), self._open(file.uri) as parquet:
                if parquet.metadata.num_rows:
                    columns = self._columns(parquet, self._location.url(file.uri))
                    captions = tuple(f"column {name!r}" for name in columns.captions)
                    boxes = tuple(f"column {name!r}, shares with spans of the caption" for name in columns.spans)
                    if columns.objects is not None:
                        boxes = (f"column {columns.objects!r}, as {self._form}",)
                    return Description(
                        captions=captions,
                        boxes=boxes,
                        unread=unread_columns(parquet.schema_arrow, columns.names),
                        notes=_on_keys(columns.key, [file.uri for file in files]),
                    )
        return Description()

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield ranges of rows, `shard_size` a shard; a shard may span files. Reads the files' footers."""
        with ThreadPoolExecutor(_REQUESTS) as pool:
            uris = [file.uri for file in self.files()]
            counts = list(zip(uris, pool.map(self._count, uris), strict=True))
        if not any(count for _, count in counts):
            raise SourceError(f"{self._location}: no .parquet file here can be read and has rows")
        yield from pack_parts(((uri, 1 if count is None else count) for uri, count in counts), shard_size)

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the rows of the range; those have failed that cannot be read, as they or the whole file are damaged."""
        stem = without_extension(part.uri)
        index = part.start
        try:
            with unreadable_is_missing(self._location, part.uri), self._open(part.uri) as parquet:
                columns = self._columns(parquet, self._location.url(part.uri))
                names = class_names(parquet.schema_arrow.metadata, columns.labels or columns.objects or "")
                for index, row in self._rows(parquet, columns, part):
                    if isinstance(row, SampleError):
                        yield failed_item(as_key(f"{stem}-{index:08d}"), index, part.uri, row)
                    else:
                        yield self._item(row, columns, index, uri=part.uri, stem=stem, names=names)
                    index += 1
            lost = SampleError(Reason.TRUNCATED, f"{part.uri}: the file ends before this row")
        except SampleError as error:
            lost = error
        except DamagedParquetError as error:
            lost = SampleError(Reason.TRUNCATED, str(error))
        for row_number in range(index, part.stop if part.stop is not None else index):
            yield failed_item(as_key(f"{stem}-{row_number:08d}"), row_number, part.uri, lost)

    def _open(self, uri: str) -> AbstractContextManager[Any]:
        """Open a file of rows. Raises FileNotFoundError, OSError when the store fails, and DamagedParquetError."""
        return open_parquet(self._location, uri)

    def _rows(self, opened: Any, columns: Columns, part: SourcePart) -> Iterator[tuple[int, "Cells"]]:
        """Yield (row number, its cells) of the part's range."""
        return _rows(opened, columns, part)

    def _count(self, uri: str) -> int | None:
        """Return a file's number of rows, None if it is damaged or not there. Raises SourceError without images."""
        try:
            with self._open(uri) as parquet:
                num_rows = int(parquet.metadata.num_rows)
                if num_rows:  # an empty file may have columns without a type
                    with suppress(DamagedParquetError):  # its rows count, and each is dead when it is read
                        self._columns(parquet, self._location.url(uri))
                return num_rows
        except (FileNotFoundError, DamagedParquetError):
            return None

    def _columns(self, parquet: pq.ParquetFile, where: str) -> Columns:
        """Return the columns of an open file; text is looked into, as its type does not say that it holds images.

        Raises DamagedParquetError where no row group of the text can be read.
        """
        schema = parquet.schema_arrow
        once = [field for field in schema if schema.names.count(field.name) == 1]
        texts = {
            "image": [field.name for field in once if is_text_or_lists(field.type)],
            "objects": [field.name for field in once if is_text(field.type)],
        }
        roles = {role: self._options.get(role) or find_name(texts[role], CANDIDATES[role]) for role in texts}
        wanted = {role: name for role, name in roles.items() if name is not None and name in texts[role]}
        told: dict[str, list[str]] = {}
        if wanted:
            first = _first_rows(parquet, list(dict.fromkeys(wanted.values())), where)
            values = {role: [plain(cell) for cell in first[name]] for role, name in wanted.items()}
            is_told = {
                "image": any(map(is_picture_text, values.get("image", ()))),
                "objects": all(map(may_be_json, values.get("objects", ()))),
            }
            told = {role: [name] for role, name in wanted.items() if is_told[role]}
        return find_columns(schema, self._options, where, told=told)

    def _key(self, row: Mapping[str, Any], columns: Columns, index: int, *, uri: str, stem: str) -> str:
        """Return the key of a row: its own, within its split, or the file and its number."""
        own = _text(row, columns.key)
        return as_key(f"{stem}-{index:08d}") if own is None else key_in_split(as_key(own), uri)

    def _item(
        self, row: Mapping[str, Any], columns: Columns, index: int, *, uri: str, stem: str, names: Mapping[int, str]
    ) -> SourceItem:
        key = self._key(row, columns, index, uri=uri, stem=stem)
        name = f"row {index}"
        captions = CaptionReader()

        def read_path(path: str) -> bytes:
            return read_image_file(self._location, self._names.uri(path, str(PurePosixPath(uri).parent)))

        try:
            status = _text(row, columns.status)
            if status not in (None, "success") and is_empty(row[columns.image]):
                raise SampleError(Reason.NOT_DOWNLOADED, f"{name}: its status is {status!r}")
            data, note = read_picture(row[columns.image], read_path, name=name)
            for column in columns.captions:
                captions.add(plain(row[column]), name)
            texts = captions.captions()
        except SampleError as error:
            return failed_item(key, index, uri, error)
        given = self._given(row, columns, name, names)
        return SourceItem(
            key=key,
            index=index,
            uri=uri,
            data=data,
            captions=texts,
            url=_text(row, columns.url),
            license=_text(row, columns.license),
            note=notes(captions.note_text, note, _uneven(row, columns, name)),
            given=given,
            given_in_shares=columns.objects is None and bool(columns.spans),
        )

    def _given(
        self, row: Mapping[str, Any], columns: Columns, name: str, names: Mapping[int, str]
    ) -> tuple[GivenRegion, ...]:
        if columns.objects is None:
            caption = plain(row[columns.captions[0]]) if columns.captions and columns.spans else None
            return read_spans({span: plain(row[span]) for span in columns.spans}, caption, name)
        objects = decoded_cell(plain(row[columns.objects]))
        if not is_boxes_alone(objects):
            return read_objects(objects, name, form=self._form, names=names)
        label, said = (
            None if column is None else decoded_list(plain(row[column]))
            for column in (columns.labels, columns.expressions)
        )
        if not is_list_of_boxes(objects) and str(columns.labels).lower() in OF_PICTURE:
            label = None
        return read_lone_boxes(objects, label, said, name, form=self._form, names=names)


def _uneven(row: Mapping[str, Any], columns: Columns, name: str) -> str | None:
    """Say which lists beside a list of boxes are not read, as they are of another length."""
    boxes = None if columns.objects is None else decoded_cell(plain(row[columns.objects]))
    if not is_list_of_boxes(boxes):
        return None
    told = []
    for column in filter(None, (columns.labels, columns.expressions)):
        beside = decoded_list(plain(row[column]))
        if isinstance(beside, list) and len(beside) not in (0, len(boxes)):
            told.append(f"column {column!r} lists {len(beside)} for {len(boxes)} boxes, and is not read")
    return f"{name}: {'; '.join(told)}" if told else None


def _on_keys(column: str | None, uris: Sequence[str]) -> tuple[str, ...]:
    """Say that files may have rows of one key, where their names are of splits and no part of it."""
    splits = splits_told_apart_by_name(uris) if column is not None else ()
    named = " and ".join(splits[:2])
    told = f"rows are called by column {column!r} alone: if {named} count alike, give each as an INPUT of its own"
    return (told,) if splits else ()


def _first_rows(parquet: pq.ParquetFile, names: list[str], where: str) -> Mapping[str, Any]:
    """Return the first rows' cells by column, of the first row group that is not damaged.

    Raises DamagedParquetError where all groups are.
    """
    damage: DamagedParquetError | None = None
    for group in range(parquet.metadata.num_row_groups):
        try:
            with arrow_errors(f"{where}: row group {group}"):
                for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=names):
                    return {name: batch.column(name) for name in names}
        except DamagedParquetError as error:
            damage = damage or error
    if damage is not None:
        raise damage
    return dict.fromkeys(names, ())


Cells = dict[str, Any] | SampleError
"""A row's cells by column, or why they cannot be read."""


def _rows(parquet: pq.ParquetFile, columns: Columns, part: SourcePart) -> Iterator[tuple[int, Cells]]:
    """Yield (row number, its cells) of the part's range, reading the row groups that hold it.

    One group at a time: batches across groups would take good rows down with a damaged group.
    """
    stop = parquet.metadata.num_rows if part.stop is None else part.stop
    first = 0
    for group in range(parquet.metadata.num_row_groups):
        num_rows = parquet.metadata.row_group(group).num_rows
        wanted = range(max(part.start, first), min(stop, first + num_rows))
        done = wanted.start
        try:
            with damaged_group(group):
                for done, cells in _group_rows(parquet, columns.names, group, first=first, wanted=wanted):
                    yield done, cells
                    done += 1
        except DamagedParquetError as error:
            lost = SampleError(Reason.TRUNCATED, f"{part.uri}: {error}")
            yield from ((row, lost) for row in range(done, wanted.stop))
        first += num_rows


def _group_rows(
    parquet: pq.ParquetFile, names: list[str], group: int, *, first: int, wanted: range
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows numbered `wanted` of a row group whose first row is number `first`."""
    if not wanted:
        return
    for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=names):
        cells = {name: batch.column(name) for name in names}
        for row in range(max(wanted.start - first, 0), min(batch.num_rows, wanted.stop - first)):
            yield first + row, {name: column[row] for name, column in cells.items()}
        first += batch.num_rows
        if first >= wanted.stop:
            return


def _text(row: Mapping[str, Any], column: str | None) -> str | None:
    value = None if column is None else plain(row[column])
    return text(decode_utf8(value) if isinstance(value, bytes) else value)
