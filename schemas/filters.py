"""Filter lists: which images and regions a person or a rule keeps (`tables.FilterRow`, Parquet or JSON lines).

A row with `keep` false takes a region away, or with `region_id` null an image and all its regions. What no list names
is kept; what any list takes away is gone. Every row must name something in the data set: a list for other data is an
error, not a list without effect.
"""

import os
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from posixpath import splitext
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.folder import DatasetError
from schemas.hashes import sha256
from schemas.names import ShardName
from schemas.stores import open_fs
from schemas.tables import FILTER_SCHEMA, FilterRow, name_rows, row_ids

_GROUP_ROWS = 1 << 21
"""Rows of the data set matched at a time: lookups are built once a group, and one group is in memory."""

ShardIds = Iterable[tuple[ShardName, pa.Table]]
"""Each shard's `key` and `region_id` columns."""

Named = TypeVar("Named")


@dataclass(frozen=True, kw_only=True)
class FilterList:
    """A filter list, read and checked for contradictions, but not against a data set."""

    path: str
    sha256: str
    """Of the file."""
    rows: pa.Table
    """`FILTER_SCHEMA`."""

    @property
    def dropped(self) -> pa.Table:
        """The rows that take an image or a region away."""
        return self.rows.filter(pc.invert(self.rows["keep"]))


def load_filter(path: str | os.PathLike[str]) -> FilterList:
    """Read the filter list at `path` (`.parquet`, `.jsonl` or `.json`; local or a URL).

    Raises DatasetError when it is not there, is not one, or both keeps and drops the same thing.
    """
    name = os.fspath(path)
    parse = {".parquet": _parse_parquet, ".jsonl": _parse_json_lines, ".json": _parse_json_lines}.get(splitext(name)[1])
    if parse is None:
        raise DatasetError(f"{name}: a filter list is a .parquet file, or JSON lines in a .jsonl file")
    try:
        fs, file = open_fs(name)
        content = fs.cat_file(file)
    except (ValueError, ImportError, FileNotFoundError) as error:
        raise DatasetError(
            f"{name}: cannot read this filter list: {getattr(error, 'strerror', None) or error}"
        ) from error
    rows = parse(content, name)
    _check_contradictions(rows, name)
    return FilterList(path=name, sha256=sha256(content), rows=rows)


def _parse_json_lines(content: bytes, path: str) -> pa.Table:
    try:
        rows = msgspec.json.Decoder(FilterRow).decode_lines(content.removeprefix(BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not JSON lines of key, region_id, keep: {error}") from error
    columns = {name: [getattr(row, name) for row in rows] for name in FILTER_SCHEMA.names}
    return pa.table(columns, schema=FILTER_SCHEMA)


def _parse_parquet(content: bytes, path: str) -> pa.Table:
    """Types may be wider than ours (pandas writes large_string), but not other."""
    try:
        table = pq.read_table(pa.BufferReader(content))
        table.validate(full=True)  # text that is not UTF-8 would be found by whoever reads it first
        required = [name for name in FILTER_SCHEMA.names if name != "note"]
        unknown = set(table.column_names) - set(FILTER_SCHEMA.names)
        if unknown or not set(required) <= set(table.column_names):
            raise DatasetError(f"{path}: columns {table.column_names}, where key, region_id, keep and note belong")
        columns = [
            table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
            for field in FILTER_SCHEMA
        ]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DatasetError(f"{path}: not a filter list in Parquet: {error}") from error
    nullable = [field.name for field in FILTER_SCHEMA if not field.nullable]
    empty = [name for name in nullable if table[name].null_count]
    if empty:
        raise DatasetError(f"{path}: {', '.join(empty)} is null in some rows; give every row a key and a decision")
    return pa.Table.from_arrays(columns, schema=FILTER_SCHEMA)


def _check_contradictions(rows: pa.Table, path: str) -> None:
    kept, dropped = rows.filter(rows["keep"]), rows.filter(pc.invert(rows["keep"]))
    for ids in (_image_keys, _region_ids):
        both = ids(dropped).filter(pc.is_in(ids(dropped), value_set=ids(kept)))
        if len(both):
            raise DatasetError(f"{path}: both keeps and drops {name_rows(both)}; leave one row of each")


def _image_keys(rows: pa.Table) -> pa.Array:
    """Return the keys of rows that stand for an image."""
    return rows.filter(pc.is_null(rows["region_id"]))["key"].combine_chunks()


def _region_ids(rows: pa.Table) -> pa.Array:
    """Return the `row_ids` of rows that stand for a region."""
    return row_ids(rows).drop_null()


@dataclass
class _Matcher:
    """One list being matched with the data set, group by group."""

    path: str
    images: pa.Array
    regions: pa.Array
    dropped_images: pa.Array
    dropped_regions: pa.Array
    found_images: npt.NDArray[np.bool_] = field(init=False)
    found_regions: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.found_images = np.zeros(len(self.images), dtype=np.bool_)
        self.found_regions = np.zeros(len(self.regions), dtype=np.bool_)

    def find(self, group: pa.Table) -> None:
        """Remember which rows of the list are met by rows of the group."""
        self.found_images |= _is_in(self.images, _image_keys(group))
        self.found_regions |= _is_in(self.regions, _region_ids(group))

    def dropped(self, group: pa.Table) -> npt.NDArray[np.bool_]:
        """Return `[rows]` bool, true for rows of the group that the list drops."""
        dropped = _is_in(group["key"].combine_chunks(), self.dropped_images)
        return dropped | _is_in(row_ids(group), self.dropped_regions)

    def check_all_found(self) -> None:
        """Raise DatasetError for rows of the list that met nothing."""
        images, regions = (self.images, self.found_images), (self.regions, self.found_regions)
        for kind, (ids, found) in {"image": images, "region": regions}.items():
            if not found.all():
                named = name_rows(ids.filter(pa.array(~found)))
                raise DatasetError(f"{self.path}: no such {kind} in the data set: {named}; is the list for other data?")


def _is_in(values: pa.Array, value_set: pa.Array) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = pc.is_in(values, value_set=value_set).to_numpy(zero_copy_only=False)
    return found


def _matcher(filter_list: FilterList) -> _Matcher:
    dropped = filter_list.dropped
    return _Matcher(
        path=filter_list.path,
        images=_image_keys(filter_list.rows),
        regions=_region_ids(filter_list.rows),
        dropped_images=_image_keys(dropped),
        dropped_regions=_region_ids(dropped),
    )


def kept_rows(filters: Iterable[FilterList], shards: ShardIds) -> dict[ShardName, npt.NDArray[np.bool_]]:
    """Return which rows of each shard the lists keep: `[rows]` bool, only for shards that lose any.

    Raises DatasetError, naming the list and the first few, for rows of a list that are not in the data set.
    """
    matchers = [_matcher(filter_list) for filter_list in filters]
    masks = {}
    for group in _groups(shards):
        table = pa.concat_tables([table for _, table in group])
        kept = np.ones(len(table), dtype=np.bool_)
        for matcher in matchers:
            matcher.find(table)
            kept &= ~matcher.dropped(table)
        ends = np.cumsum([0, *(len(table) for _, table in group)])
        for (shard, _), (start, stop) in zip(group, pairwise(ends), strict=True):
            if not kept[start:stop].all():
                masks[shard] = kept[start:stop].copy()
    for matcher in matchers:
        matcher.check_all_found()
    return masks


def check_rows(filters: Iterable[FilterList], tables: Iterable[pa.Table]) -> None:
    """Raise DatasetError as `kept_rows` does, unless every row of the lists is in one of `tables` (its ids alone)."""
    matchers = [_matcher(filter_list) for filter_list in filters]
    for group in _groups((None, table) for table in tables):
        joined = pa.concat_tables([table for _, table in group])
        for matcher in matchers:
            matcher.find(joined)
    for matcher in matchers:
        matcher.check_all_found()


def _groups(shards: Iterable[tuple[Named, pa.Table]]) -> Iterator[list[tuple[Named, pa.Table]]]:
    group: list[tuple[Named, pa.Table]] = []
    for shard, table in shards:
        group.append((shard, table))
        if sum(len(table) for _, table in group) >= _GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group
