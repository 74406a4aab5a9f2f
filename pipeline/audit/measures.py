"""The measures: of each ok region, and of each ok image, a number for every filter.

A table has key, region id (null in an image's row), the measures, box, caption and place. It is there whole or not at
all, so what is stopped goes on. Null: there is nothing to measure.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.audit import near
from pipeline.audit.boxes import box_columns
from pipeline.audit.captions import caption_columns
from pipeline.audit.copies import count_texts, hash_numbers
from pipeline.audit.filters import FILTERS
from pipeline.audit.hashes import Hashes, as_array, input_hashes, shard_hashes
from pipeline.audit.layout import HASHES
from pipeline.export.part import write_whole
from schemas.boxes import as_boxes
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.names import ShardName
from schemas.overlays import SCORES
from schemas.reasons import Status

COLUMNS: tuple[str, ...] = tuple(dict.fromkeys(each.column for each in FILTERS))
_BOX = ("x0", "y0", "x1", "y1")
_SHOWN = ("caption", "label", "tar_offset", "tar_size")
_HASH_SCHEMA = pa.schema([pa.field("key", pa.string()), pa.field("hash", pa.uint64())])

Watch = Callable[[str, int, int], None]
"""Told what is being done, and how many of how many shards are."""


@dataclass(frozen=True, kw_only=True)
class Near:
    """Which images nearly equal others: of each image of the data, in the order of the shards' hashes."""

    distance: npt.NDArray[np.int64]
    """`[N]` bits; -1 where none is near."""
    names: Mapping[int, str]
    """Key of the nearest, by place of the image."""


@dataclass(frozen=True, kw_only=True)
class Whole:
    """What must be known of all shards before one is measured."""

    text_hashes: npt.NDArray[np.uint64]
    """Sorted; of the captions, with `copies` of each."""
    copies: npt.NDArray[np.int64]
    duplicate: Near | None
    against: Near | None
    keys: Sequence[str]
    """Of all images, in the order of `Near.distance`; nothing where images were not looked at."""
    first_image: Mapping[ShardName, int]
    """Place of the shard's first image among them."""


def survey(dataset: Dataset, out: Path, *, against: str | None, images: bool, watch: Watch) -> Whole:
    """Look at all captions and, with `images`, at all images once; hashes that are in `out` are taken from there.

    Raises DatasetError where the data cannot be read, SourceError for an INPUT `against` that is none.
    """
    text_hashes, copies = count_texts(dataset)
    duplicate = other = None
    first: dict[ShardName, int] = {}
    keys: list[str] = []
    if images:
        keys, hashes, known = _hash_images(dataset, out, first, watch)
        duplicate = _near(near.nearest_earlier(hashes, known), keys)
        if against is not None:
            other_keys, others = _hash_input(against, watch)
            other = _near(near.nearest_other(hashes, known, others), other_keys)
    return Whole(
        text_hashes=text_hashes, copies=copies, duplicate=duplicate, against=other, keys=keys, first_image=first
    )


def _near(found: near.Found, keys: Sequence[str]) -> Near:
    distance, place = found
    return Near(distance=distance, names={at: keys[place[at]] for at in np.flatnonzero(place >= 0).tolist()})


def _hash_images(
    dataset: Dataset, out: Path, first: dict[ShardName, int], watch: Watch
) -> tuple[list[str], Hashes, npt.NDArray[np.bool_]]:
    keys: list[str] = []
    hashes: list[int | None] = []
    for number, shard in enumerate(dataset.shards):
        watch("hashing images", number, len(dataset.shards))
        path = out / HASHES / f"{shard}.parquet"
        if not path.exists():
            found = list(shard_hashes(dataset, shard))
            columns = {"key": [key for key, _ in found], "hash": [value for _, value in found]}
            write_table(path, pa.table(columns, schema=_HASH_SCHEMA))
        table = pq.read_table(path, partitioning=None)  # a path with "key=1" in it adds no column
        first[shard] = len(keys)
        keys += table["key"].to_pylist()
        hashes += table["hash"].to_pylist()
    return keys, *as_array(hashes)


def _hash_input(spec: str, watch: Watch) -> tuple[list[str], Hashes]:
    watch(f"hashing {spec}", 0, 1)
    found = [(key, value) for key, value in input_hashes(spec) if value is not None]
    if not found:
        raise DatasetError(f"--against {spec}: has no picture that can be compared")
    return [key for key, _ in found], np.array([value for _, value in found], dtype=np.uint64)


def measure_shard(dataset: Dataset, shard: ShardName, whole: Whole) -> pa.Table:
    """Return the measures of a shard's ok images and regions, as the data set's overlays and filters show them."""
    scores = [name for name in (*SCORES, "proposal_score") if name in dataset.columns]
    columns = ["key", "region_id", "status", "width", "height", "text_hash", *_BOX, *_SHOWN, *scores]
    rows = dataset.regions(columns, [shard])
    rows = rows.filter(pc.equal(rows["status"], Status.OK.value))
    is_region = pc.is_valid(rows["region_id"]).to_numpy()
    found = {name: np.full(len(rows), np.nan, dtype=np.float32) for name in COLUMNS}
    regions = rows.filter(pa.array(is_region))
    keys = regions["key"].to_pylist()
    boxes = as_boxes(np.stack([_floats(regions, name) for name in _BOX], axis=1))
    parts = {
        **caption_columns(regions["caption"].to_pylist()),
        **box_columns(boxes, _floats(regions, "width"), _floats(regions, "height"), keys),
        "copies": _copies(regions, whole),
        **{name: _floats(regions, name) for name in scores},
    }
    for name, values in parts.items():
        found[name][is_region] = values
    names = {}
    for name, images in (("duplicate", whole.duplicate), ("against", whole.against)):
        if images is not None:
            found[name], names[name] = _near_columns(rows, images, whole, shard)
    table = rows.select(["key", "region_id", *_BOX, *_SHOWN]).append_column(
        "shard", pa.array([str(shard)] * len(rows), pa.string())
    )
    for name in COLUMNS:
        table = table.append_column(name, pa.array(found[name], pa.float32(), from_pandas=True))
    for name in ("duplicate", "against"):
        table = table.append_column(f"{name}_of", pa.array(names.get(name, [None] * len(rows)), pa.string()))
    return table


def _floats(rows: pa.Table, name: str) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = rows[name].cast(pa.float32()).to_numpy().astype(np.float32)
    return values


def _copies(regions: pa.Table, whole: Whole) -> npt.NDArray[np.float32]:
    there = pc.is_valid(regions["text_hash"]).to_numpy()
    copies = np.full(len(regions), np.nan, dtype=np.float32)
    hashes = hash_numbers(regions["text_hash"].drop_null())
    copies[there] = whole.copies[np.searchsorted(whole.text_hashes, hashes)] if len(hashes) else []
    return copies


def _near_columns(
    rows: pa.Table, images: Near, whole: Whole, shard: ShardName
) -> tuple[npt.NDArray[np.float32], list[str | None]]:
    """Return distance and key of the nearest image for each row; hashes are in the order of the shard's samples."""
    values = np.full(len(rows), np.nan, dtype=np.float32)
    names: list[str | None] = [None] * len(rows)
    place, before = whole.first_image[shard] - 1, None
    stored = pc.is_valid(rows["tar_offset"]).to_numpy()
    for number, (key, region_id) in enumerate(zip(rows["key"].to_pylist(), rows["region_id"].to_pylist(), strict=True)):
        if not stored[number]:
            continue
        if region_id is None:
            place, before = place + 1, key
        if key != before or key != whole.keys[place]:
            raise DatasetError(f"{shard}: {key} is not where the tar has it; write the shard again")
        if images.distance[place] >= 0:
            values[number] = images.distance[place]
            names[number] = images.names[place]
    return values, names


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file that is there whole or not at all. Raises OSError."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_whole(path, [buffer.getvalue()])
