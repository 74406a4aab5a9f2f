"""Opening Parquet files, and telling a damaged file from a store that does not answer."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.read.location import Location

_BUFFER_BYTES = 2**20


class DamagedParquetError(ValueError):
    """A file is no Parquet file, or a damaged one; the message names it."""


@contextmanager
def open_parquet(location: Location, uri: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file so that columns stream instead of being read whole.

    Raises FileNotFoundError, OSError when the store fails, and DamagedParquetError, also from reads inside the block.
    """
    with location.open(uri) as file, _arrow_errors(uri), pq.ParquetFile(file, buffer_size=_BUFFER_BYTES) as parquet:
        yield parquet


@contextmanager
def _arrow_errors(uri: str) -> Iterator[None]:
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
    with _arrow_errors(f"row group {group}"):
        yield


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0]


def find_name(names: Collection[str], candidates: Sequence[str]) -> str | None:
    """Return the first of `names` that is one of `candidates` in any case, in the order of the candidates."""
    by_lower: dict[str, str] = {}
    for name in names:
        by_lower.setdefault(name.lower(), name)
    return next((by_lower[candidate] for candidate in candidates if candidate in by_lower), None)


def plain(scalar: Any) -> Any:
    """Return a cell of any type of strings, lists and structs as Python values; text that is not UTF-8 as bytes."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_dictionary(kind):
        return plain(scalar.value)
    if pa.types.is_struct(kind):
        return {kind.field(place).name: plain(scalar[place]) for place in range(kind.num_fields)}
    if is_list(kind):
        return [plain(value) for value in scalar.values]
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return bytes(scalar.as_buffer().to_pybytes())


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's lists."""
    tests = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(bool(getattr(pa.types, test)(kind)) for test in tests)


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's binaries."""
    tests = ("is_binary", "is_large_binary", "is_fixed_size_binary", "is_binary_view")
    return any(bool(getattr(pa.types, test)(kind)) for test in tests)


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's strings, dictionary-encoded or not."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(bool(getattr(pa.types, test)(value)) for test in ("is_string", "is_large_string", "is_string_view"))
