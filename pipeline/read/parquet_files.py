"""Opening Parquet files, and telling a damaged file from a store that does not answer."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

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


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0]


def find_name(names: Collection[str], candidates: Sequence[str]) -> str | None:
    """Return the first of `names` that is one of `candidates` in any case, in the order of the candidates."""
    by_lower: dict[str, str] = {}
    for name in names:
        by_lower.setdefault(name.lower(), name)
    return next((by_lower[candidate] for candidate in candidates if candidate in by_lower), None)
