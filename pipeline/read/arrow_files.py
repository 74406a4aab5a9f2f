"""Opening Arrow files, as `datasets` saves them: a stream of batches without an index, or Arrow's file format.

A stream has no count of its rows and no checksum. What is cut is damage: within a batch Arrow tells of it, between two
the mark at the end is missing. A damaged file counts one row more than can be read, which is a dead one.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from pipeline.read.location import Location
from pipeline.read.parquet_files import DamagedParquetError, arrow_errors

_MAGIC = b"ARROW1"
_END = b"\xff\xff\xff\xff\0\0\0\0"


class ArrowFile:
    """As much of `pq.ParquetFile` as the source of rows uses."""

    def __init__(self, file: Any, uri: str) -> None:
        self._file, self._uri = file, uri
        with arrow_errors(uri):
            self.schema_arrow: pa.Schema = self._open().schema
        self.metadata = SimpleNamespace(num_rows=self._count(), num_row_groups=1)

    def iter_batches(
        self, *, batch_size: int = 0, row_groups: Sequence[int] = (0,), columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the batches as they lie in the file, with these columns. Raises DamagedParquetError at damage."""
        with arrow_errors(self._uri):
            for batch in self._batches():
                yield batch.select(list(columns))
        if not self._is_whole():
            raise DamagedParquetError(f"{self._uri}: ends without Arrow's end mark, so rows may be missing")

    def _open(self) -> Any:
        self._file.seek(0)
        is_file = self._file.read(len(_MAGIC)) == _MAGIC
        self._file.seek(0)
        return pa.ipc.open_file(self._file) if is_file else pa.ipc.open_stream(self._file)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        reader = self._open()
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            yield from reader

    def _is_whole(self) -> bool:
        self._file.seek(0, 2)
        size = self._file.tell()
        self._file.seek(max(0, size - len(_END)))
        tail = self._file.read(len(_END))
        return bool(tail == _END or tail.endswith(_MAGIC))

    def _count(self) -> int:
        num_rows = 0
        try:
            with arrow_errors(self._uri):
                for batch in self._batches():
                    num_rows += batch.num_rows
        except DamagedParquetError:
            return num_rows + 1
        return num_rows + (not self._is_whole())


@contextmanager
def open_arrow(location: Location, uri: str) -> Iterator[ArrowFile]:
    """Open an Arrow file: mapped into memory where it is local, else a copy of it. Raises as `open_parquet`."""
    with ExitStack() as stack:
        file: Any = stack.enter_context(location.open_whole(uri))
        if location.is_local:
            with arrow_errors(uri):
                file = stack.enter_context(pa.memory_map(location.url(uri)))
        yield ArrowFile(file, uri)
