"""The reader of data sets: shards with their overlays and filter lists, from a folder or any fsspec URL.

    dataset = Dataset.open("gs://bucket/regions", overlays=["blip2"], filters=["keep.jsonl"])
    dataset.regions(columns=["x0", "y0", "x1", "y1", "caption"])     a table of all regions
    dataset.region_batches(...)                                      the same, shard by shard
    dataset.samples("train-000000")                                  images and records, in the tar's order
    dataset.read_sample("some-key")                                  one of them

A data set is what its folder held when it was opened. It can be pickled, and survives a fork.
"""

import functools
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.filters import FilterList, kept_rows, load_filter
from schemas.folder import ONE_SAMPLE, DatasetError, Folder
from schemas.hashes import fingerprint, sha256
from schemas.names import ShardName
from schemas.overlays import JOIN_COLUMNS, Overlay, open_overlay
from schemas.reasons import Status
from schemas.records import ImageRecord, RecordError, ShardMarker, decode_image_record
from schemas.shards import check_not_repaired, find_shards
from schemas.tables import REGION_SCHEMA, lacking_columns, schema_problem
from schemas.tar import BLOCK, RawSample, member_size, read_samples
from schemas.views import RECORD_COLUMNS, ShardView, shard_view

__all__ = ["Dataset", "DatasetError", "Sample"]

Path = str | os.PathLike[str]
"""A local path or an fsspec URL."""

_log = logging.getLogger(__name__)

_VIEWS = 4
"""Views of shards kept for random access."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image with its record, as the data set's overlays and filter lists show it."""

    key: str
    image: bytes
    """The stored file's bytes; boxes are in its frame."""
    suffix: str
    """Of the image: `jpg`, `png` or `webp`."""
    image_caption: str | None
    record: ImageRecord


@dataclass(frozen=True, kw_only=True)
class _Images:
    """Where the images of all shards are."""

    keys: pa.ChunkedArray
    offsets: npt.NDArray[np.uint64]
    """Of the image's bytes in its shard's tar."""
    ends: npt.NDArray[np.int64]
    """`[shards]`: how many images there are up to and with each shard."""


class Dataset:
    """A data set, open for reading. All errors about its contents are `DatasetError`; the store's are OSError."""

    markers: Mapping[ShardName, ShardMarker]
    """The shards' markers, sorted by split and number."""

    def __init__(
        self,
        folder: Folder,
        *,
        markers: Mapping[ShardName, ShardMarker],
        overlays: Sequence[Overlay] = (),
        filters: Sequence[FilterList] = (),
    ) -> None:
        """Use `Dataset.open`, which finds the parts."""
        self.markers = markers
        self._shards = {str(shard): shard for shard in markers}
        self._folder = folder
        self._overlays = tuple(overlays)
        self._filter_digests = [filter_list.sha256 for filter_list in filters]
        ids = ((shard, self._shard_rows(shard, JOIN_COLUMNS)) for shard in markers)
        self._kept = kept_rows(filters, ids) if filters else {}
        self._start_caches()

    def _start_caches(self) -> None:
        self._images: _Images | None = None
        self._cached_view = functools.lru_cache(_VIEWS)(self._view)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_images", "_cached_view")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start_caches()

    @classmethod
    def open(cls, path: Path, *, overlays: Sequence[str] = (), filters: Sequence[Path] = ()) -> "Dataset":
        """Open the data set at `path`, a folder or an fsspec URL, finished or still growing.

        `overlays` are names; where two hold the same column, the later one wins. `filters` are paths or URLs of filter
        lists. Raises DatasetError, naming the file and what to do, when nothing is there, a marker is not of this
        schema version or lacks its tar or table, an overlay does not fit, or a filter list names what is not there.
        """
        folder = Folder(path)
        sizes = folder.sizes()
        markers = find_shards(folder, sizes)
        opened = [open_overlay(folder, name, shards=markers, sizes=sizes) for name in overlays]
        for overlay in opened:
            if overlay.changes:
                _log.warning("%s: %s", folder.url, overlay.changes)
        loaded = [load_filter(filter_path) for filter_path in filters]
        return cls(folder, markers=markers, overlays=opened, filters=loaded)

    @property
    def shards(self) -> tuple[ShardName, ...]:
        """The shards, sorted by split and number."""
        return tuple(self._shards.values())

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of `regions`: the shards' own, then those that overlays add."""
        added = (name for overlay in self._overlays for name in overlay.added)
        return tuple(dict.fromkeys((*REGION_SCHEMA.names, *added)))

    def schema(self, columns: Sequence[str] | None = None) -> pa.Schema:
        """Return the names and types of `columns` (default all of `self.columns`) as `regions` gives them."""
        added = {name: kind for overlay in self._overlays for name, kind in overlay.fields.items()}
        own = {field.name: field for field in REGION_SCHEMA}
        return pa.schema([own.get(name) or pa.field(name, added[name]) for name in self._check_columns(columns)])

    def data_fingerprint(self) -> str:
        """Return the sha256 of what is read: the digests of all tars and tables, of overlays' tables and filter lists.

        Equal for copies of a data set anywhere. It costs nothing: shards' digests come from their markers.
        """
        shards = [[str(shard), marker.tar.sha256, marker.parquet.sha256] for shard, marker in self.markers.items()]
        overlays = [[overlay.name, *(m.parquet.sha256 for m in overlay.markers.values())] for overlay in self._overlays]
        return fingerprint({"shards": shards, "overlays": overlays, "filters": self._filter_digests})

    def regions(
        self, columns: Sequence[str] | None = None, shards: Iterable[ShardName | str] | None = None
    ) -> pa.Table:
        """Return the rows of `shards` (default all) as one table, in order; see `tables.RegionRow` for the columns.

        There is a row an image (`region_id` null) and a row a region, whatever their status. Only `columns` (default
        all of `self.columns`) are read. Rows that a filter list drops are not there.
        """
        wanted = self._check_columns(columns)
        tables = [self._kept_rows(shard, wanted) for shard in self._check_shards(shards)]
        return pa.concat_tables(tables) if tables else self.schema(wanted).empty_table()

    def region_batches(
        self, columns: Sequence[str] | None = None, shards: Iterable[ShardName | str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of `regions` in batches; one shard's `columns` are in memory at a time."""
        wanted = self._check_columns(columns)
        for shard in self._check_shards(shards):
            yield from self._kept_rows(shard, wanted).to_batches()

    def samples(self, shard: ShardName | str, *, verify: bool = False) -> Iterator[Sample]:
        """Yield the shard's samples in the tar's order, reading it from end to end.

        `verify` compares the sha256 of each image with its record. Raises DatasetError, naming shard, key and byte,
        where the tar is cut, is not laid out as `schemas.tar` says, or holds a record that breaks the schema.
        """
        (name,) = self._check_shards([shard])
        view = self._cached_view(name)
        where, num_samples = self._folder.where(name.tar), self.markers[name].images.ok
        keys = set()
        with self._folder.stream(name.tar) as file:
            self._check_not_repaired(name)
            for raw in read_samples(file, where=where):
                if raw.key in keys:
                    raise DatasetError(f"{where}: key {raw.key!r}: a second sample of this key at byte {raw.offset}")
                keys.add(raw.key)
                sample = _decode(raw, where, view=view, verify=verify)
                if sample is not None:
                    yield sample
        if len(keys) != num_samples:
            raise DatasetError(f"{where}: {len(keys)} samples where the marker says {num_samples}; fetch the tar again")

    def read_sample(self, key: str, *, verify: bool = False) -> Sample:
        """Return the sample `key` by reading only its bytes; the first call reads where all images are.

        Raises DatasetError when there is no such sample, or a filter list drops it, and as `samples` does.
        """
        shard, offset = self._locate(key)
        where, start = self._folder.where(shard.tar), offset - BLOCK
        with self._folder.stream(shard.tar, offset=start, fetch_size=ONE_SAMPLE) as file:
            self._check_not_repaired(shard)
            raw = next(read_samples(file, where=where, offset=start), None)
        if raw is None or raw.key != key:
            raise DatasetError(f"{where}: key {key!r} is not at byte {offset}, where the table says; write it again")
        sample = _decode(raw, where, view=self._cached_view(shard), verify=verify)
        if sample is None:
            raise DatasetError(f"{self._folder.url}: a filter list drops the image {key!r}")
        return sample

    def read_image(self, shard: ShardName | str, *, tar_offset: int, tar_size: int) -> bytes:
        """Return an image's stored bytes: shard, offset and size are those of its row."""
        (name,) = self._check_shards([shard])
        start = max(0, tar_offset - BLOCK)
        try:
            data = self._folder.read_range(
                name.tar,
                offset=start,
                size=tar_offset + tar_size - start,
                check=lambda: self._check_not_repaired(name),
            )
        except DatasetError:
            self._check_not_repaired(name)
            raise
        if member_size(data[:BLOCK]) != tar_size:  # not what the table says, so it may be of a repaired tar
            self._check_not_repaired(name)
        return data[tar_offset - start :]

    def _check_not_repaired(self, shard: ShardName) -> None:
        """Raise DatasetError where the shard is being repaired, or was since the data set was opened."""
        check_not_repaired(self._folder, shard, self.markers[shard])

    def open_tar(self, shard: ShardName | str) -> AbstractContextManager[BinaryIO]:
        """Open a shard's tar to be read once, from end to end: on a store in one request, and without a local copy.

        Raises DatasetError when it is not there; reading raises StorageError where the store fails.
        """
        (name,) = self._check_shards([shard])
        return self._folder.whole(name.tar)

    def tar_address(self, shard: ShardName) -> str:
        """Return where a shard's tar is, as messages say it."""
        return self._folder.where(shard.tar)

    def _check_columns(self, columns: Sequence[str] | None) -> list[str]:
        unknown = [name for name in columns or () if name not in self.columns]
        if unknown:
            known = ", ".join(self.columns)
            raise DatasetError(f"{self._folder.url}: no column {', '.join(unknown)}; there are {known}")
        return list(self.columns if columns is None else columns)

    def _check_shards(self, shards: Iterable[ShardName | str] | None) -> list[ShardName]:
        wanted = list(self._shards) if shards is None else [str(shard) for shard in shards]
        unknown = [stem for stem in wanted if stem not in self._shards]
        if unknown:
            raise DatasetError(f"{self._folder.url}: no shard {', '.join(unknown)} among the {len(self._shards)} here")
        return [self._shards[stem] for stem in wanted]

    def _kept_rows(self, shard: ShardName, columns: Sequence[str]) -> pa.Table:
        table = self._joined_rows(shard, columns)
        return table.filter(pa.array(self._kept[shard])) if shard in self._kept else table

    def _joined_rows(self, shard: ShardName, columns: Sequence[str]) -> pa.Table:
        """Return `columns` of all the shard's rows, overlays joined, dropped rows included."""
        joins = [(overlay, [name for name in columns if name in overlay.fields]) for overlay in self._overlays]
        joins = [(overlay, names) for overlay, names in joins if names]
        needed = dict.fromkeys((*columns, *JOIN_COLUMNS, "status") if joins else columns)
        table = self._shard_rows(shard, [name for name in needed if name in REGION_SCHEMA.names])
        if joins:
            ok = pc.and_(pc.equal(table["status"], Status.OK.value), pc.is_valid(table["region_id"]))
            ok_rows = ok.to_numpy()
            for overlay, names in joins:
                table = overlay.apply(self._folder, shard, base=table, ok=ok_rows, columns=names)
        return table.select(list(columns))

    def _shard_rows(self, shard: ShardName, columns: Sequence[str]) -> pa.Table:
        """Return columns of a shard's table; those that an earlier release did not write are null."""
        lacking: set[str] = set()

        def check(schema: pa.Schema, where: str) -> None:
            self._check_region_schema(schema, where, shard)
            lacking.update(lacking_columns(schema))

        table = self._folder.table(shard.parquet, columns=columns, check=check)
        self._check_not_repaired(shard)
        for name in (name for name in columns if name in lacking):
            table = table.append_column(REGION_SCHEMA.field(name), pa.nulls(len(table), REGION_SCHEMA.field(name).type))
        return table.select(list(columns))

    def _check_region_schema(self, schema: pa.Schema, where: str, shard: ShardName) -> None:
        problem = schema_problem(schema)
        if problem is not None:
            writer = self.markers[shard].written_by or "a release that does not say so"
            raise DatasetError(
                f"{where}: not a version 1 table of regions: {problem}; written by {writer}; write the shard again"
            )

    def _view(self, shard: ShardName) -> ShardView | None:
        """Return what overlays and filter lists change in the shard's records, or None for nothing."""
        replaced = {name for overlay in self._overlays for name in overlay.fields}
        if shard not in self._kept and not replaced & {*RECORD_COLUMNS, "status"}:
            return None
        columns = [*JOIN_COLUMNS, "status", *(name for name in RECORD_COLUMNS if name in replaced)]
        rows = self._joined_rows(shard, columns)
        return shard_view(rows, kept=self._kept.get(shard), where=self._folder.where(shard.parquet))

    def _locate(self, key: str) -> tuple[ShardName, int]:
        """Return the shard of an image, and where its bytes begin in the tar."""
        if self._images is None:
            self._images = self._read_locations()
        rows = np.flatnonzero(pc.equal(self._images.keys, key).to_numpy())
        shards = [self.shards[shard] for shard in np.searchsorted(self._images.ends, rows, side="right")]
        if not shards:
            raise DatasetError(f"{self._folder.url}: no image {key!r} in the shards here; was it filtered or dead?")
        if len(shards) > 1:
            named = " and ".join(map(str, shards))
            raise DatasetError(f"{self._folder.url}: key {key!r} is in {named}; give the inputs different prefixes")
        return shards[0], int(self._images.offsets[rows[0]])

    def _read_locations(self) -> _Images:
        tables = []
        for shard in self.markers:
            rows = self._shard_rows(shard, ["key", "region_id", "tar_offset"])
            stored = pc.and_(pc.is_null(rows["region_id"]), pc.is_valid(rows["tar_offset"]))
            tables.append(rows.filter(stored).select(["key", "tar_offset"]))
        images = pa.concat_tables(tables)
        ends = np.cumsum([len(table) for table in tables])
        return _Images(keys=images["key"], offsets=images["tar_offset"].to_numpy(), ends=ends)


def _decode(raw: RawSample, where: str, *, view: ShardView | None, verify: bool) -> Sample | None:
    """Return the sample as it is seen, or None where its image is dropped."""
    place = f"{where}: key {raw.key!r} at byte {raw.offset}"
    try:
        record = decode_image_record(raw.json, place)
    except RecordError as error:
        raise DatasetError(f"{error}; write the shard again") from error
    if record.key != raw.key:
        raise DatasetError(f"{place}: its record is that of {record.key!r}")
    caption = record.image_caption
    if raw.text != (None if caption is None else caption.encode("utf-8", "surrogatepass")):
        raise DatasetError(f"{place}: {raw.key}.txt is not the record's image_caption")
    if verify and sha256(raw.image) != record.image_sha256:
        raise DatasetError(f"{place}: the image's sha256 is not its record's; fetch or write the shard again")
    seen = record if view is None else view.apply(record)
    if seen is None:
        return None
    return Sample(key=raw.key, image=raw.image, suffix=raw.suffix, image_caption=caption, record=seen)
