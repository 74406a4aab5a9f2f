"""Opening Parquet files, and telling a damaged file from a store that does not answer."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.read.describe import Like, Unread, like
from pipeline.read.location import Location

_BUFFER_BYTES = 2**20


class DamagedParquetError(ValueError):
    """A file is no Parquet file, or a damaged one; the message names it."""


@contextmanager
def open_parquet(location: Location, uri: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file so that columns stream instead of being read whole.

    Raises FileNotFoundError, OSError when the store fails, and DamagedParquetError, also from reads inside the block.
    """
    with (
        location.open_ranges(uri) as file,
        arrow_errors(uri),
        pq.ParquetFile(file, buffer_size=_BUFFER_BYTES) as parquet,
    ):
        yield parquet


@contextmanager
def arrow_errors(uri: str) -> Iterator[None]:
    """Raise DamagedParquetError, naming the file, for what Arrow says of damage; a store's errors go through."""
    try:
        yield
    except pa.ArrowException as error:
        raise DamagedParquetError(f"{uri}: {_first_line(error)}") from error
    except OSError as error:
        # Arrow reports damaged pages as a bare OSError; one from the system or a store has an errno or its own class.
        if type(error) is not OSError or error.errno is not None:
            raise
        raise DamagedParquetError(f"{uri}: {_first_line(error)}") from error


@contextmanager
def damaged_group(group: int) -> Iterator[None]:
    """Raise DamagedParquetError, naming the row group, for damage met inside the block."""
    with arrow_errors(f"row group {group}"):
        yield


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0]


def find_name(names: Collection[str], candidates: Sequence[str]) -> str | None:
    """Return the first of `names` that is one of `candidates` in any case, in the order of the candidates."""
    by_lower: dict[str, str] = {}
    for name in names:
        by_lower.setdefault(name.lower(), name)
    return next((by_lower[candidate] for candidate in candidates if candidate in by_lower), None)


def is_numbers(kind: pa.DataType) -> bool:
    """Return whether a type is a list of numbers, or of such lists."""
    if not is_list(kind):
        return False
    inner = kind.value_type
    return bool(pa.types.is_integer(inner) or pa.types.is_floating(inner)) or is_numbers(inner)


_TEXTS = {pa.string().id, pa.large_string().id, pa.string_view().id}
_BYTES = {pa.binary().id, pa.large_binary().id, pa.binary_view().id, pa.binary(1).id}
_LISTS = {
    kind.id
    for item in [pa.string()]
    for kind in (pa.list_(item), pa.large_list(item), pa.list_view(item), pa.large_list_view(item), pa.list_(item, 1))
}


def plain(scalar: Any) -> Any:
    """Return a cell of any type of strings, lists and structs as Python values; text that is not UTF-8 as bytes."""
    try:
        return scalar.as_py()
    except ValueError:  # text that is not UTF-8, or a struct of two fields of one name, somewhere in it
        kind = scalar.type
    if is_text(kind):
        return bytes((scalar.value if pa.types.is_dictionary(kind) else scalar).as_buffer().to_pybytes())
    if pa.types.is_struct(kind):
        return {kind.field(place).name: plain(scalar[place]) for place in range(kind.num_fields)}
    return [plain(value) for value in scalar.values]


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's lists."""
    return kind.id in _LISTS


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's binaries."""
    return kind.id in _BYTES


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's strings, dictionary-encoded or not."""
    return (kind.value_type if pa.types.is_dictionary(kind) else kind).id in _TEXTS


def unread_columns(schema: pa.Schema, used: Collection[str]) -> tuple[Unread, ...]:
    """Return the columns that are not read: like boxes by name or as lists of numbers, like images as bytes."""
    rest = [field for field in schema if field.name not in used]
    return tuple(Unread(name=f"column {field.name!r}", like=_column_like(field)) for field in rest)


def _column_like(field: pa.Field) -> Like:
    kind = field.type
    struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "images"
    by_name = like(field.name)
    nested = pa.types.is_nested(kind)
    if by_name == "captions" and (nested or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return by_name
    return by_name if by_name == "boxes" and (nested or field.name.lower() == "objects") else "other"
