"""The shards of a unit as they are: which of their items are repeated, and what of those is kept."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.plan.plan import Plan
from pipeline.read.base import UnitPart
from pipeline.read.keys import with_prefix
from pipeline.retry.where import Condition, matching
from pipeline.sample import RegionCaption, Sample
from pipeline.store.storage import Storage
from pipeline.write.rows import caption_of_row
from schemas.folder import DatasetError
from schemas.hashes import sha256
from schemas.names import ShardName
from schemas.reasons import Stage, Status
from schemas.records import ShardMarker, decode_shard_marker
from schemas.tables import REGION_SCHEMA

Occurrence = tuple[str, int]
"""A key, and how many items of the shard had it before: those that died of their key have that of another."""
_OF_CAPTIONING = (Stage.CROP.value, Stage.CAPTION.value)


@dataclass(frozen=True, kw_only=True)
class StoredItem:
    """An image of a shard, with its rows."""

    key: str
    start: int
    """Its first row, which is its own; those of its regions follow."""
    stop: int
    in_tar: bool
    repeated: frozenset[int]
    """Which of its rows are the ones to repeat; if none is, the item is kept as it is."""


@dataclass(kw_only=True)
class RepeatedSample(Sample):
    """A sample that is made again."""

    place: int | None = None
    """Which of the shard's items it stands for; None for one that the source has and the shard had not."""
    after: int = 0
    """The number of items that come before it, for one that is new."""
    image_sha256: str | None = None
    """Of the stored image, for which `kept` holds."""
    kept: Mapping[str, RegionCaption] = field(default_factory=dict)
    """What its regions keep, by id."""


@dataclass(frozen=True, kw_only=True)
class StoredShard:
    """A shard as it is."""

    shard: ShardName
    storage: Storage
    marker: ShardMarker
    rows: pa.Table
    items: tuple[StoredItem, ...]
    """In order."""
    places: Mapping[Occurrence, int]
    """Where each is in `items`."""

    @property
    def has_repeated(self) -> bool:
        """Whether an item of it is to be repeated."""
        return any(item.repeated for item in self.items)

    def row_values(self, item: StoredItem) -> list[dict[str, Any]]:
        """Return the rows of an item, its own first."""
        values: list[dict[str, Any]] = self.rows.slice(item.start, item.stop - item.start).to_pylist()
        return values

    def repeated(self, sample: Sample, place: int) -> RepeatedSample:
        """Return the sample as one that stands for an item, with what the item's other regions keep."""
        item = self.items[place]
        made = RepeatedSample(**vars(sample), place=place)
        if item.in_tar:
            own, *regions = self.row_values(item)
            with self.storage.open(self.shard.tar) as file:
                file.seek(own["tar_offset"])
                made.image_sha256 = sha256(file.read(own["tar_size"]))
            kept = {}
            for number, row in enumerate(regions, start=item.start + 1):
                if number not in item.repeated and _is_said(row):
                    kept[row["region_id"]] = caption_of_row(row)
            made.kept = kept
        return made


def _is_said(row: Mapping[str, Any]) -> bool:
    """Say whether a region's row tells what the captioner made of it."""
    return row["status"] == Status.OK.value or row["stage"] in _OF_CAPTIONING


def load_shard(storage: Storage, shard: ShardName, where: Sequence[Condition]) -> StoredShard:
    """Return a shard as it is, the items marked of which a row meets the conditions. Raises OSError, DatasetError."""
    marker = decode_shard_marker(storage.read(shard.marker), f"{storage.url}/{shard.marker}")
    content = storage.read(shard.parquet)
    if sha256(content) != marker.parquet.sha256:
        raise DatasetError(
            f"{storage.url}/{shard.parquet}: is not the table that its marker describes; "
            "`fineclip doctor` says what to do"
        )
    rows = _with_all_columns(pq.read_table(pa.BufferReader(content)))
    items = tuple(_items(rows, where))
    seen: Counter[str] = Counter()
    places = {}
    for place, item in enumerate(items):
        places[item.key, seen[item.key]] = place
        seen[item.key] += 1
    return StoredShard(shard=shard, storage=storage, marker=marker, rows=rows, items=items, places=places)


def _with_all_columns(rows: pa.Table) -> pa.Table:
    """Return a shard's table with the columns that an earlier release did not write, null."""
    for column in (column for column in REGION_SCHEMA if column.name not in rows.column_names):
        rows = rows.append_column(column, pa.nulls(len(rows), column.type))
    return rows.select(REGION_SCHEMA.names)


def _items(rows: pa.Table, where: Sequence[Condition]) -> Iterator[StoredItem]:
    is_image = pc.is_null(rows["region_id"])
    starts = pc.indices_nonzero(is_image.combine_chunks()).to_pylist()
    wanted = set(pc.indices_nonzero(matching(rows, where).combine_chunks()).to_pylist())
    keys, offsets = rows["key"].take(starts).to_pylist(), rows["tar_offset"].take(starts).to_pylist()
    for key, offset, start, stop in zip(keys, offsets, starts, [*starts[1:], len(rows)], strict=True):
        repeated = frozenset(number for number in range(start, stop) if number in wanted)
        yield StoredItem(key=key, start=start, stop=stop, in_tar=offset is not None, repeated=repeated)


@dataclass(frozen=True, kw_only=True)
class StoredUnit:
    """The shards of a unit as they are, and how its source is gone through again."""

    shards: Mapping[str, StoredShard]
    """By split."""
    parts: tuple[UnitPart, ...]
    """What is read of the source: listed samples that are repeated, and other parts whole."""
    is_whole: bool
    """Whether all of the source is read."""

    def repeated(
        self, samples: Iterator[Sample], split_of: Callable[[Sample], str], lost: dict[str, int]
    ) -> Iterator[RepeatedSample]:
        """Yield those of the unit's samples that are to be repeated, or are new; `lost` is given the bytes by split."""
        seen: Counter[str] = Counter()
        after = dict.fromkeys(self.shards, 0)
        for sample in samples:
            split = split_of(sample)
            stored = self.shards[split]
            lost[split] = lost.get(split, 0) + sample.item.bytes_lost
            place = stored.places.get((sample.key, seen[sample.key]))
            seen[sample.key] += 1
            if place is None:
                yield RepeatedSample(**vars(sample), after=after[split])
                continue
            after[split] = max(after[split], place + 1)
            if stored.items[place].repeated:
                yield stored.repeated(sample, place)


def load_unit(plan: Plan, unit: int, where: Sequence[Condition]) -> StoredUnit:
    """Return the shards of a unit as they are, and what is to be read of its source. Raises OSError, DatasetError."""
    shards = {shard.split: load_shard(plan.storage, shard, where) for shard in plan.shards(unit)}
    keys = {item.key for stored in shards.values() for item in stored.items if item.repeated}
    parts: list[UnitPart] = []
    is_whole = True
    for part in plan.unit(unit):
        if part.part.items is None:
            parts.append(part)
        else:
            is_whole = False
            parts += _listed(part, keys)
    return StoredUnit(shards=shards, parts=tuple(parts), is_whole=is_whole)


def _listed(part: UnitPart, keys: set[str]) -> Iterator[UnitPart]:
    """Yield parts of the listed samples with one of these keys, one for those in a row: each keeps its number."""
    items, first = part.part.items or (), part.part.start
    wanted = [with_prefix(item.key, part.prefix) in keys for item in items]
    start = 0
    for is_wanted, row in itertools.groupby(wanted):
        stop = start + len(list(row))
        if is_wanted:
            alone = msgspec.structs.replace(part.part, start=first + start, stop=first + stop, items=items[start:stop])
            yield msgspec.structs.replace(part, part=alone)
        start = stop
