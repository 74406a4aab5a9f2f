"""The rows of data sets in DuckDB: a view of the Parquet files where they lie, or a table where they must be joined.

Every relation has the columns of `COLUMNS` and `row`, the position in its shard. The order of a relation is that of the
data: by shard, then by row.
"""

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.viewer.source import OpenedData, Problem
from schemas.folder import DatasetError
from schemas.tables import REGION_SCHEMA

_UNREAD = {"text_sha256", "image_text_hash", "mask_rle", "image_captions", "source_id", "is_crowd"}
"""Columns that no view shows, those among them that earlier releases did not write."""
COLUMNS = tuple(name for name in REGION_SCHEMA.names if name not in _UNREAD)
_BASE_MEMORY = 160 << 20
_MEMORY_A_ROW = 100
_MEMORY_A_HELD_ROW = 1000
"""Where the rows themselves are in memory."""
_PLACES = 100_000
_SQL = {
    "bool": "BOOLEAN",
    "string": "VARCHAR",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint64": "UBIGINT",
    "float": "FLOAT",
}
"""DuckDB's names of Arrow's types."""


class DamagedTableError(DatasetError):
    """A shard's table cannot be read any more. The shard is left out from now on: asking again is answered."""


class NotHereError(DatasetError):
    """The open data sets do not hold what was asked for."""


class Database:
    """One DuckDB in memory, which may read the data sets' own folders and nothing else; safe for many threads."""

    def __init__(self, sources: Sequence[OpenedData]) -> None:
        self._connection = duckdb.connect(
            config={"autoinstall_known_extensions": False, "autoload_known_extensions": False, "temp_directory": ""}
        )
        memory = _BASE_MEMORY  # beyond it, queries fail rather than the machine
        for source in sources:
            markers = source.dataset.markers.values()
            num_rows = sum(marker.images.inputs + marker.regions.inputs for marker in markers)
            memory += num_rows * (_MEMORY_A_ROW if source.in_place else _MEMORY_A_HELD_ROW)
        folders = [source.folder.path("") for source in sources if source.in_place]
        # A path is checked both as the pattern that it is given as and as the file that is found.
        readable = ", ".join(quoted(spelled) for folder in folders for spelled in (folder, not_a_pattern(folder)))
        for setting in (
            "parquet_metadata_cache = true",
            f"memory_limit = '{memory >> 20}MiB'",
            f"allowed_directories = [{readable}]",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")
        self.lock = threading.RLock()
        """Held while relations are made anew."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows. Raises duckdb.Error."""
        with self._connection.cursor() as cursor:
            return cursor.execute(sql, list(parameters)).fetchall()

    def replace_table(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Make the table `name` hold `rows`, in their order."""
        with self.lock, self._connection.cursor() as cursor:
            if isinstance(rows, pa.Table) and not rows.num_rows:  # to register any imports pandas: half a second
                cursor.execute(f"CREATE OR REPLACE TABLE {name} AS {_no_rows(rows.schema)}")
                return
            cursor.register("incoming", rows)
            cursor.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM incoming")
            cursor.unregister("incoming")

    def close(self) -> None:
        """Free everything."""
        self._connection.close()


class RegionTable:
    """A data set's rows as the relation `name` of a database."""

    def __init__(self, database: Database, source: OpenedData, name: str) -> None:
        """Make the relation. Raises DatasetError when none of the shards' tables can be read."""
        self.source = source
        self.name = name
        self._database = database
        self._shards = [str(shard) for shard in source.dataset.shards]
        self._places: dict[tuple[str, str], tuple[int, int] | None] = {}
        if source.in_place:
            self._exclude(self._unreadable(deep=False))
        else:
            schema = pa.schema([*(REGION_SCHEMA.field(name) for name in COLUMNS), pa.field("row", pa.int64())])
            reader = pa.RecordBatchReader.from_batches(schema, self._batches(list(self._shards)))
            database.replace_table(name, reader)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement that reads this relation.

        Raises DamagedTableError where a table turns out to be damaged, and duckdb.Error for anything else.
        """
        try:
            return self._database.execute(sql, parameters)
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException, duckdb.OutOfMemoryException):
            raise
        except duckdb.Error as error:  # damaged pages have no class of their own
            broken = self._unreadable(deep=True) if self.source.in_place else {}
            if not broken:
                raise
            self._exclude(broken)
            raise DamagedTableError("; ".join(broken.values())) from error

    def relation(self, shards: Iterable[str] | None = None) -> str:
        """Return SQL that reads the rows of `shards` (default all), and opens no other shard's file."""
        if shards is None:
            return self.name
        wanted = sorted(set(shards) & set(self._shards))
        if not self.source.in_place:
            return f"(SELECT * FROM {self.name} WHERE shard IN ({', '.join(map(quoted, wanted)) or 'NULL'}))"
        return f"({self._select(wanted)})"

    def place(self, shard: str, key: str) -> tuple[int, int]:
        """Return offset and size of an image's bytes in the shard's tar.

        Raises NotHereError for an unknown image, DatasetError for one whose bytes are not in the tar.
        """
        if (shard, key) not in self._places:
            self.remember_places(
                (shard, key, offset, size)
                for offset, size in self.query(
                    f"SELECT tar_offset, tar_size FROM {self.relation([shard])} WHERE key = ? AND region_id IS NULL "
                    "ORDER BY tar_offset NULLS LAST LIMIT 1",
                    [key],
                )
            )
        if (shard, key) not in self._places:
            raise NotHereError(f"{shard}: there is no image {key!r}")
        place = self._places[shard, key]
        if place is None:
            raise DatasetError(f"{shard}: the image {key!r} is not in the tar; its row says why")
        return place

    def remember_places(self, places: Iterable[tuple[str, str, int | None, int | None]]) -> None:
        """Keep (shard, key, tar_offset, tar_size) of images that will be asked for next."""
        if len(self._places) > _PLACES:
            self._places.clear()
        for shard, key, offset, size in places:
            self._places[shard, key] = None if offset is None or size is None else (offset, size)

    def _path(self, shard: str) -> str:
        return self.source.folder.path(f"{shard}.parquet")

    def _select(self, shards: Sequence[str]) -> str:
        columns = ", ".join(COLUMNS)
        if not shards:
            fields = [REGION_SCHEMA.field(name) for name in COLUMNS]
            return _no_rows(pa.schema([*fields, pa.field("row", pa.int64())]))
        paths = ", ".join(quoted(not_a_pattern(self._path(shard))) for shard in shards)
        # A folder called `label=cat` is no column.
        options = "file_row_number = true, hive_partitioning = false"
        return f"SELECT {columns}, file_row_number AS row FROM read_parquet([{paths}], {options})"

    def _unreadable(self, *, deep: bool) -> dict[str, str]:
        """Return what is wrong with tables that cannot be read, by shard; `deep` reads all of their contents."""
        broken = {}
        for shard in self._shards:
            try:
                if deep:
                    self.source.dataset.regions(shards=[shard])
                    continue
                with Path(self._path(shard)).open("rb") as file:
                    file.seek(-4, 2)
                    if file.read() != b"PAR1":
                        where = self.source.folder.where(f"{shard}.parquet")
                        raise DatasetError(f"{where}: not a readable Parquet file; fetch it, or write the shard again")
            except DatasetError as error:
                broken[shard] = str(error)
        return broken

    def _exclude(self, broken: dict[str, str]) -> None:
        with self._database.lock:
            self.source.problems.extend(Problem(shard=shard, message=text) for shard, text in broken.items())
            self._shards = [shard for shard in self._shards if shard not in broken]
            self._database.execute(f"CREATE OR REPLACE VIEW {self.name} AS {self._select(self._shards)}")

    def _batches(self, shards: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of `shards` as overlays and filter lists leave them; what cannot be read is a problem."""
        for shard in shards:
            try:
                rows = self.source.dataset.regions(columns=COLUMNS, shards=[shard])
            except (DatasetError, OSError) as error:
                self.source.problems.append(Problem(shard=shard, message=str(error)))
                self._shards.remove(shard)
                continue
            yield from rows.append_column("row", pa.array(np.arange(len(rows)))).to_batches()


def _no_rows(schema: pa.Schema) -> str:
    """Return SQL that gives the columns of `schema`, and no row."""
    return f"SELECT {', '.join(f'NULL::{_SQL[str(field.type)]} AS {field.name}' for field in schema)} WHERE false"


def quoted(text: str) -> str:
    """Return text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def not_a_pattern(path: str) -> str:
    """Return the pattern that matches `path` alone: DuckDB takes file names for patterns."""
    return re.sub(r"([*?\[])", r"[\1]", path)
