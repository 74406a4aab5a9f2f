"""Arrow files of Hugging Face's `save_to_disk`: rows as Parquet has them, in a folder a split.

FOLDER/dataset_dict.json                      where there are splits
FOLDER/train/state.json                       names the files of data; those that it does not name are caches
FOLDER/train/data-00000-of-00001.arrow
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, ClassVar

from pipeline.read.arrow_files import open_arrow
from pipeline.read.base import SourceError, SourceFile, SourcePart
from pipeline.read.items import SampleError, read_file
from pipeline.read.parquet import Cells, Parquet
from pipeline.read.parquet_columns import Columns
from pipeline.read.parquet_files import DamagedParquetError
from schemas.loose_json import LooseJsonError, decode_json
from schemas.reasons import Reason

STATE = "state.json"
_CACHES = ("cache-", "tmp")


class Arrow(Parquet):
    """A folder or a file: `arrow:FOLDER`, `arrow:FOLDER?split=train&caption=alt`; options as those of Parquet."""

    kind: ClassVar[str] = "arrow"
    known: ClassVar[tuple[str, ...]] = (*Parquet.known, "split")

    def files(self) -> Iterator[SourceFile]:
        """Yield the files of data of the wanted split. Raises SourceError where there are none."""
        found = [file for file in self._location.files() if self._location.name or file.uri.endswith(".arrow")]
        named = {file.uri: self._named(file.uri.rpartition("/")[0]) for file in found}
        data = [file for file in found if self._location.name or _is_data(file.uri, named[file.uri])]
        if not any(file.size or file.etag for file in data):
            raise SourceError(f"{self._location}: found no .arrow file of data; check the path")
        split = self._options.get("split")
        wanted = [file for file in data if split is None or _split(file.uri) == split]
        if not wanted:
            there = ", ".join(sorted({_split(file.uri) for file in data}))
            raise SourceError(f"{self._location}: has no split {split!r}; there are {there}")
        yield from wanted

    def _named(self, folder: str) -> Sequence[str] | None:
        """Return the files that the state of a folder names; None where it has none."""
        with suppress(SampleError, LooseJsonError, AttributeError, TypeError, KeyError):
            state = decode_json(read_file(self._location, f"{folder}/{STATE}".removeprefix("/")))
            return [f"{folder}/{entry['filename']}".removeprefix("/") for entry in state["_data_files"]]
        return None

    def _open(self, uri: str) -> AbstractContextManager[Any]:
        return open_arrow(self._location, uri)

    def _rows(self, opened: Any, columns: Columns, part: SourcePart) -> Iterator[tuple[int, Cells]]:
        """Yield (row number, its cells) of the part's range; the row where the file is damaged has failed."""
        first, done = 0, part.start
        try:
            for batch in opened.iter_batches(columns=columns.names):
                stop = first + batch.num_rows if part.stop is None else min(part.stop, first + batch.num_rows)
                cells = {name: batch.column(name) for name in columns.names}
                for done in range(max(part.start, first), stop):
                    yield done, {name: column[done - first] for name, column in cells.items()}
                first += batch.num_rows
                if part.stop is not None and first >= part.stop:
                    return
        except DamagedParquetError as error:
            yield max(first, part.start), SampleError(Reason.TRUNCATED, str(error))


def _is_data(uri: str, named: Sequence[str] | None) -> bool:
    return uri in named if named is not None else not uri.rpartition("/")[2].startswith(_CACHES)


def _split(uri: str) -> str:
    return uri.rpartition("/")[0].rpartition("/")[2]
