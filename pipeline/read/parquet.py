"""Parquet files with the images' bytes in a column, as Hugging Face data sets keep them."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.read.base import SourceError, SourceFile, SourcePart
from pipeline.read.items import (
    SampleError,
    check_not_empty,
    check_size,
    decode_caption,
    failed_item,
    failed_unit,
    one_caption,
    read_image_file,
    tidy_caption,
    unreadable_is_missing,
)
from pipeline.read.keys import as_key, without_extension
from pipeline.read.location import Location
from pipeline.read.parquet_files import DamagedParquetError, find_name, open_parquet
from pipeline.read.parts import pack_parts
from pipeline.read.spec import is_data, is_parquet, split_options
from pipeline.sample import SourceItem
from schemas.reasons import Reason

_CANDIDATES = {
    "image": ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes"),
    "caption": ("caption", "text", "txt", "sentence"),
    "key": ("key", "id", "image_id", "__key__"),
    "url": ("url", "image_url"),
    "license": ("license",),
}
_BATCH_ROWS = 32
"""Rows decoded at a time: what bounds the memory of a reader."""
_REQUESTS = 8
"""Footers of remote files read at once when planning."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that hold what a sample is made of; None where the file has no such column."""

    image: str
    caption: str | None
    key: str | None
    url: str | None
    license: str | None

    @property
    def names(self) -> list[str]:
        """The columns to read, each once."""
        found = (self.image, self.caption, self.key, self.url, self.license)
        return list(dict.fromkeys(name for name in found if name is not None))


class Parquet:
    """A file, folder or glob of Parquet: `data`, `data/*.parquet`, `data?image=photo&caption=alt&key=id`."""

    kind: ClassVar[str] = "parquet"

    def __init__(self, rest: str) -> None:
        path, self._options = split_options(rest, known=("image", "caption", "key"))
        self._location = Location.of(path)

    def files(self) -> Iterator[SourceFile]:
        """Yield the Parquet files."""
        named = self._location.name is not None
        files = [file for file in self._location.files() if named or (is_parquet(file.uri) and is_data(file.uri))]
        if not any(file.size for file in files):
            raise SourceError(f"{self._location}: found no .parquet file; check the path")
        yield from files

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield ranges of rows, `shard_size` a shard; a shard may span files. Reads the files' footers."""
        with ThreadPoolExecutor(_REQUESTS) as pool:
            uris = [file.uri for file in self.files()]
            counts = list(zip(uris, pool.map(self._count, uris), strict=True))
        if not any(count for _, count in counts):
            raise SourceError(f"{self._location}: no .parquet file here can be read and has rows")
        yield from pack_parts(((uri, 1 if count is None else count) for uri, count in counts), shard_size)

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the rows of the range; a file that cannot be read yields one item that failed."""
        stem = without_extension(part.uri)
        index = part.start
        try:
            with unreadable_is_missing(self._location, part.uri), open_parquet(self._location, part.uri) as parquet:
                columns = find_columns(parquet.schema_arrow, self._options, self._location.url(part.uri))
                for index, row in _rows(parquet, columns, part):
                    yield self._item(row, columns, index, uri=part.uri, stem=stem)
                    index += 1
        except SampleError as error:
            yield failed_unit(part.uri, stem, index, error)
        except DamagedParquetError as error:
            yield failed_unit(part.uri, stem, index, SampleError(Reason.TRUNCATED, f"from row {index} on: {error}"))

    def _count(self, uri: str) -> int | None:
        """Return a file's number of rows, None if it is damaged or not there. Raises SourceError without images."""
        try:
            with open_parquet(self._location, uri) as parquet:
                num_rows = int(parquet.metadata.num_rows)
                if num_rows:  # an empty file may have columns without a type
                    find_columns(parquet.schema_arrow, self._options, self._location.url(uri))
                return num_rows
        except (FileNotFoundError, DamagedParquetError):
            return None

    def _item(self, row: Mapping[str, Any], columns: Columns, index: int, *, uri: str, stem: str) -> SourceItem:
        key = as_key(_text(row, columns.key) or f"{stem}-{index:08d}")
        try:
            data = self._image(row[columns.image], uri, name=f"row {index}")
            caption = _caption(row, columns.caption, name=f"row {index}")
        except SampleError as error:
            return failed_item(key, index, uri, error)
        url, license_ = _text(row, columns.url), _text(row, columns.license)
        return SourceItem(
            key=key, index=index, uri=uri, data=data, captions=one_caption(caption), url=url, license=license_
        )

    def _image(self, scalar: Any, uri: str, *, name: str) -> bytes:
        """Return the bytes of an image cell; those of the file it names, relative to its own, where it has none."""
        struct = pa.types.is_struct(scalar.type)
        content = scalar["bytes"] if struct and scalar.is_valid else scalar
        path = scalar["path"].as_py() if struct and scalar.is_valid and "path" in scalar else None
        if scalar.is_valid and content.is_valid:
            buffer = content.as_buffer()
            check_size(buffer.size, name)
            check_not_empty(buffer.size, name)
            return bytes(buffer.to_pybytes())
        if path:
            return read_image_file(self._location, str(PurePosixPath(uri).parent / path))
        raise SampleError(Reason.NO_IMAGE, f"{name}: the image is null")


def find_columns(schema: pa.Schema, options: Mapping[str, str], where: str) -> Columns:
    """Return the columns of a file: those `options` name, else those with a usual name and a usable type.

    Raises SourceError, naming the columns there are, for an option's column that is not there or cannot be used, and
    where no column holds images.
    """
    image, caption, key, url, license_ = (_column(schema, role, options, where) for role in _CANDIDATES)
    if image is None:
        raise SourceError(
            f"{where}: no column of image bytes among {_described(schema)}; name one as in ?image=COLUMN "
            "(a table of addresses must be downloaded first, with img2dataset for instance)"
        )
    return Columns(image=image, caption=caption, key=key, url=url, license=license_)


def _column(schema: pa.Schema, role: str, options: Mapping[str, str], where: str) -> str | None:
    usable = [field.name for field in schema if _is_usable(role, field.type)]
    if role not in options:
        return find_name(usable, _CANDIDATES[role])
    if options[role] not in usable:
        raise SourceError(f"{where}: ?{role}={options[role]} names no usable column among {_described(schema)}")
    return options[role]


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _is_usable(role: str, kind: pa.DataType) -> bool:
    if role == "image":
        return _is_bytes(kind) or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
    if role == "caption":
        return _is_text(kind) or _is_bytes(kind) or (pa.types.is_list(kind) and _is_text(kind.value_type))
    return _is_text(kind) or (role == "key" and bool(pa.types.is_integer(kind)))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))


def _rows(parquet: pq.ParquetFile, columns: Columns, part: SourcePart) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number, its cells by column) of the part's range, reading the row groups that hold it.

    One group at a time: batches across groups would take good rows down with a damaged group.
    """
    stop = parquet.metadata.num_rows if part.stop is None else part.stop
    first = 0
    for group in range(parquet.metadata.num_row_groups):
        num_rows = parquet.metadata.row_group(group).num_rows
        if first < stop and first + num_rows > part.start:
            wanted = range(max(part.start, first), min(stop, first + num_rows))
            yield from _group_rows(parquet, columns.names, group, first=first, wanted=wanted)
        first += num_rows


def _group_rows(
    parquet: pq.ParquetFile, names: list[str], group: int, *, first: int, wanted: range
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows numbered `wanted` of a row group whose first row is number `first`."""
    for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=names):
        cells = {name: batch.column(name) for name in names}
        for row in range(max(wanted.start - first, 0), min(batch.num_rows, wanted.stop - first)):
            yield first + row, {name: column[row] for name, column in cells.items()}
        first += batch.num_rows
        if first >= wanted.stop:
            return


def _text(row: Mapping[str, Any], column: str | None) -> str | None:
    value = None if column is None else row[column].as_py()
    return None if value is None or value == "" else str(value)


def _caption(row: Mapping[str, Any], column: str | None, *, name: str) -> str | None:
    try:
        value = None if column is None else row[column].as_py()
    except UnicodeDecodeError as error:
        raise SampleError(Reason.CAPTION_ENCODING, f"{name}: byte {error.start} is not UTF-8") from error
    if isinstance(value, list):
        value = next((text for text in value if text), None)
    if isinstance(value, bytes):
        return decode_caption(value, name)
    return None if value is None else tidy_caption(value)
