"""The plan: which samples make which shard, fixed before any work, so that every run and worker does the same.

    _plan/plan.json      fingerprint, configuration, inputs, and the hashes of the tables
    _plan/files.parquet  every input file with size, etag and a sample's hash: how a changed input is noticed
    _plan/units.parquet  unit -> source ranges -> shard
    _plan/items.parquet  samples of sources that list them (folders, COCO), a row group a unit

A plan is committed like a shard, so two jobs that plan at once end up with one plan. `--append` adds a generation:
`plan-1.json` with tables of its own, whose units continue the numbering.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.read.base import ListedItem, SourceFile, SourcePart, UnitPart
from pipeline.read.describe import InputSummary
from pipeline.settings import splits_of
from pipeline.store.commit import roll_forward
from pipeline.store.storage import Storage, StorageError
from schemas.names import LEASES_DIR, PLAN_DIR, ShardName
from schemas.records import FileDigest

UNITS_SCHEMA = pa.schema(
    [
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("input", pa.int32(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("stop", pa.int64()),
        pa.field("item_group", pa.int32()),
    ]
)
FILES_SCHEMA = pa.schema(
    [
        pa.field("input", pa.int32(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("sample", pa.string(), nullable=False),
    ]
)
ITEMS_SCHEMA = pa.schema([pa.field("item", pa.binary(), nullable=False)])
"""One `ListedItem` a row, as MessagePack: given boxes may hold NaN, which JSON cannot say."""


class PlannedInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An INPUT of the data set."""

    spec: str
    """As given on the command line."""
    prefix: str
    """Put before the keys of this input; "" for a lone input."""
    kind: str
    num_files: int
    bytes: int
    files_sha256: str
    """Of the listing: uri, size and etag of every file."""
    summary: InputSummary | None = None
    """What the input gives; None in plans of earlier versions."""


class Generation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a `_plan/plan*.json` says."""

    schema_version: str
    fingerprint: str
    configuration: dict[str, Any]
    inputs: list[PlannedInput]
    shard_size: int
    repack: bool
    limit: int | None
    first_unit: int
    num_units: int
    num_images: int | None
    """Samples in all units, where every source could tell without being walked."""
    tables: dict[str, FileDigest]
    allow: list[str] = []
    """Folders outside of the inputs that their tables may name files in."""
    settings: dict[str, dict[str, Any]] = {}
    """Of the models as given (`Configuration.as_given`): a run that repeats something begins with them. Empty in plans
    of earlier versions."""
    dropped: dict[str, Any] = {}
    """Of a materialized data set: the list of images that it was made without, how many these are, and the day."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a data set: its generations, and lazily their tables."""

    storage: Storage
    generations: tuple[Generation, ...]
    _tables: dict[str, Any] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_tables": {}}

    @property
    def fingerprint(self) -> str:
        """The configuration's, the same in every generation."""
        return self.generations[0].fingerprint

    @property
    def inputs(self) -> list[PlannedInput]:
        """Every INPUT, in the order planned."""
        return [planned for generation in self.generations for planned in generation.inputs]

    @property
    def num_units(self) -> int:
        """Units of work: one shard for each split of a unit."""
        return sum(generation.num_units for generation in self.generations)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that every unit is written to, one shard each."""
        return splits_of(self.generations[0].configuration["val_fraction"])

    @property
    def num_images(self) -> int | None:
        """Samples in all units, or None where a source could not tell without being walked."""
        counts = [generation.num_images for generation in self.generations]
        return None if None in counts else sum(count or 0 for count in counts)

    def shards(self, unit: int) -> tuple[ShardName, ...]:
        """Return the shards that a unit is done with, one a split."""
        return tuple(ShardName(split, unit) for split in self.splits)

    @property
    def leases(self) -> str:
        """The folder that holds the leases of units."""
        return LEASES_DIR

    def unit(self, unit: int) -> list[UnitPart]:
        """Return the source ranges of a unit, in order. Raises LookupError for one that is not planned."""
        for number, generation in enumerate(self.generations):
            if 0 <= unit - generation.first_unit < generation.num_units:
                return self._unit(number, unit)
        raise LookupError(f"unit {unit} is not in the plan of {self.storage.url}")

    def _unit(self, number: int, unit: int) -> list[UnitPart]:
        rows = self._rows_by_unit(number)[unit]
        inputs = self.generations[number].inputs
        parts = []
        for row in rows:
            items = None if row["item_group"] is None else self._items(number, row["item_group"])
            part = SourcePart(uri=row["uri"], start=row["start"], stop=row["stop"], items=items)
            planned = inputs[row["input"]]
            parts.append(UnitPart(spec=planned.spec, kind=planned.kind, prefix=planned.prefix, part=part))
        return parts

    def _rows_by_unit(self, number: int) -> dict[int, list[dict[str, Any]]]:
        name = table_name("units", number)
        if name not in self._tables:
            by_unit: dict[int, list[dict[str, Any]]] = {}
            for row in self._table("units", number).to_pylist():
                by_unit.setdefault(row["unit"], []).append(row)
            self._tables[name] = by_unit
        rows: dict[int, list[dict[str, Any]]] = self._tables[name]
        return rows

    def _items(self, number: int, group: int) -> tuple[ListedItem, ...]:
        name = table_name("items", number)
        with self._damage(name), self.storage.open(name) as file:
            rows = pq.ParquetFile(file).read_row_group(group).column("item").to_pylist()
            return tuple(msgspec.msgpack.decode(row, type=ListedItem) for row in rows)

    def _table(self, name: str, number: int) -> pa.Table:
        name = table_name(name, number)
        with self._damage(name):
            return pq.read_table(pa.BufferReader(self.storage.read(name)))

    @contextmanager
    def _damage(self, name: str) -> Iterator[None]:
        """Turn what a damaged or missing table of the plan raises into a StorageError that names it."""
        try:
            yield
        except (FileNotFoundError, pa.ArrowException, msgspec.DecodeError) as error:
            raise StorageError(
                f"{self.storage.url}: {name} is missing or damaged ({error}); restore it from a copy, or choose "
                "another OUTPUT: what is finished here stays readable"
            ) from error

    def own_files(self) -> Iterator[str]:
        """Yield the names of the plan's own files in OUTPUT."""
        for number, generation in enumerate(self.generations):
            yield from generation.tables
            yield f"{PLAN_DIR}/{decision_name(number)}.json"

    def files(self) -> Iterator[tuple[PlannedInput, SourceFile]]:
        """Yield every planned file with its input."""
        for number, generation in enumerate(self.generations):
            for row in self._table("files", number).to_pylist():
                index = row.pop("input")
                yield generation.inputs[index], SourceFile(**row)

    def files_by_input(self) -> dict[str, dict[str, SourceFile]]:
        """Return the planned files of each INPUT, by its spec, by uri."""
        by_input: dict[str, dict[str, SourceFile]] = {planned.spec: {} for planned in self.inputs}
        for planned, file in self.files():
            by_input[planned.spec][file.uri] = file
        return by_input

    @cached_property
    def shard_size(self) -> int:
        """Images a shard, as first planned."""
        return self.generations[0].shard_size


def load_plan(storage: Storage) -> Plan | None:
    """Return the plan of OUTPUT, finishing one whose publication was cut off; None if there is none yet."""
    generations: list[Generation] = []
    while roll_forward(storage, decision_name(len(generations))):
        generations.append(_read_generation(storage, f"{PLAN_DIR}/{decision_name(len(generations))}.json"))
    return Plan(storage=storage, generations=tuple(generations)) if generations else None


def _read_generation(storage: Storage, name: str) -> Generation:
    try:
        return msgspec.json.decode(storage.read(name), type=Generation)
    except msgspec.DecodeError as error:
        raise StorageError(f"{storage.url}: {name} is damaged ({error}); restore it from a copy") from error


def decision_name(number: int) -> str:
    """Return the name under which a generation is committed."""
    return f"plan-{number}" if number else "plan"


def table_name(name: str, number: int) -> str:
    """Return the path of a generation's table called `name`."""
    return f"{PLAN_DIR}/{name}-{number}.parquet" if number else f"{PLAN_DIR}/{name}.parquet"
