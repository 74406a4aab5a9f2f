"""What there is to train on, as arrays: one row an image, its regions in a range of another table.

Built from the shards' Parquet tables alone; a few dozen bytes a region, shared with worker processes, not copied.
Texts stay in Arrow's memory, never as Python strings. Images not ok, or dropped by a filter list, are left out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.boxes import Boxes, is_valid
from schemas.dataset import Dataset, DatasetError
from schemas.hashes import text_hash
from schemas.names import ShardName
from schemas.overlays import HARD_NEGATIVES
from schemas.reasons import Status
from trainer.errors import TrainingError

_IMAGE_COLUMNS = ("image_caption", "image_captions", "image_text_hash", "tar_offset", "tar_size", "width", "height")
_REGION_COLUMNS = ("region_id", "x0", "y0", "x1", "y1", "label", "caption", "text_hash")
_KEPT_OF_IMAGES = ["key", "tar_offset", "tar_size", "width", "height"]
_KEPT_OF_REGIONS = ["caption", "label"]
_COLUMNS = ("key", "status", *_IMAGE_COLUMNS, *_REGION_COLUMNS)
_ROUNDING = 1e-3
"""Pixels that float32 may put a box outside its image by."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SampleIndex:
    """I images, their C captions and R regions. Images stand in the order of shards and tars, the others in theirs."""

    shards: tuple[ShardName, ...]
    shard: npt.NDArray[np.int32]
    """`[I]`: which of `shards` each image is in."""
    tar_offset: Ints
    """`[I]`: where the image's bytes begin in its tar."""
    tar_size: Ints
    """`[I]`: how many there are."""
    sizes: npt.NDArray[np.int32]
    """`[I, 2]`: (width, height) of the stored image."""
    keys: pa.ChunkedArray
    """`[I]`."""
    caption_start: Ints
    """`[I + 1]`: image i's captions are rows `caption_start[i]` up to `caption_start[i + 1]`; it may have none."""
    image_captions: pa.ChunkedArray
    """`[C]`: all that the source gives an image, the one that `image_caption` names first."""
    image_text_ids: Ints
    """`[C]`: equal for captions equal after normalisation."""
    region_start: Ints
    """`[I + 1]`: image i's regions are rows `region_start[i]` up to `region_start[i + 1]`."""
    boxes: Boxes
    """`[R, 4]` float32 xyxy, pixels of the stored image."""
    region_captions: pa.ChunkedArray
    """`[R]`."""
    region_text_ids: Ints
    """`[R]`."""
    labels: pa.ChunkedArray
    """`[R]`: the proposer's class names, null where it has none."""
    negative_start: Ints | None = None
    """`[R + 1]`: region r's hard negatives are rows `negative_start[r]` up to `negative_start[r + 1]`; None where no
    overlay gives any."""
    negatives: pa.ChunkedArray | None = None
    """`[H]`: wrong captions of regions."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.shard)

    @property
    def has_caption(self) -> npt.NDArray[np.bool_]:
        """`[I]`: which images have a caption."""
        return np.diff(self.caption_start) > 0

    @property
    def num_regions(self) -> int:
        """The number of regions of all images."""
        return len(self.boxes)

    def rows_of(self, shard: int) -> range:
        """Return the rows of the images of `shards[shard]`."""
        first, stop = np.searchsorted(self.shard, [shard, shard + 1]).tolist()
        return range(first, stop)

    def key(self, image: int) -> str:
        """Return an image's key."""
        return str(self.keys[image].as_py())


def build_index(dataset: Dataset, split: str) -> SampleIndex:
    """Read the index of the data set's `split` (`train` or `val`).

    Raises TrainingError when nothing in it can be used, saying why the first row is not; DatasetError for rows that
    break the schema (boxes that are not finite or outside their image, a missing place in the tar or caption).
    """
    shards = tuple(shard for shard in dataset.shards if shard.split == split)
    tables = [_ShardRows.read(dataset, shard) for shard in shards]
    if not any(len(rows.images) for rows in tables):
        raise TrainingError(f"no usable image in the {split} shards of this data set: {_why_none(dataset, shards)}")
    images, regions = (pa.concat_tables(part) for part in zip(*((t.images, t.regions) for t in tables), strict=True))
    counts, boxes, region_text_ids, caption_counts, image_text_ids = (
        np.concatenate(part)
        for part in zip(
            *((t.counts, t.boxes, t.region_text_ids, t.caption_counts, t.image_text_ids) for t in tables), strict=True
        )
    )
    return SampleIndex(
        shards=shards,
        shard=np.repeat(np.arange(len(shards), dtype=np.int32), [len(rows.images) for rows in tables]),
        tar_offset=images["tar_offset"].to_numpy().astype(np.int64),
        tar_size=images["tar_size"].to_numpy().astype(np.int64),
        sizes=np.stack([images[name].to_numpy() for name in ("width", "height")], axis=1),
        keys=images["key"],
        caption_start=_starts(caption_counts),
        image_captions=pa.chunked_array([chunk for t in tables for chunk in t.captions.chunks], type=pa.string()),
        image_text_ids=image_text_ids,
        region_start=_starts(counts),
        boxes=boxes,
        region_captions=regions["caption"],
        region_text_ids=region_text_ids,
        labels=regions["label"],
        **_negatives(regions),
    )


@dataclass(frozen=True)
class _ShardRows:
    """A shard's rows, cut to what the index keeps: the other columns of ten million regions are gigabytes."""

    images: pa.Table
    """`_KEPT_OF_IMAGES`."""
    regions: pa.Table
    """`_KEPT_OF_REGIONS`, and the hard negatives where an overlay gives them."""
    counts: Ints
    """Regions of each image."""
    boxes: Boxes
    region_text_ids: Ints
    caption_counts: Ints
    """Captions of each image."""
    captions: pa.ChunkedArray
    image_text_ids: Ints

    @classmethod
    def read(cls, dataset: Dataset, shard: ShardName) -> "_ShardRows":
        negatives = [HARD_NEGATIVES] if HARD_NEGATIVES in dataset.columns else []
        rows = dataset.regions([*_COLUMNS, *negatives], [shard])
        rows = rows.filter(pc.equal(rows["status"], Status.OK.value))
        is_image = pc.is_null(rows["region_id"]).to_numpy()
        images, regions = rows.filter(pa.array(is_image)), rows.filter(pa.array(~is_image))
        # Rows of one image are adjacent, its own first: count region rows up to the next image.
        owner = np.cumsum(is_image) - 1
        keys = images["key"].take(pa.array(owner[~is_image])) if len(regions) else regions["key"]
        if not pc.all(pc.equal(keys, regions["key"]), min_count=0).as_py():
            raise DatasetError(f"{shard}.parquet: a region's row does not follow its image's; write the shard again")
        _check(images, regions, shard)
        counts = np.bincount(owner[~is_image], minlength=len(images)).astype(np.int64)
        caption_counts, captions, image_text_ids = _captions(images)
        return cls(
            images=images.select(_KEPT_OF_IMAGES),
            regions=regions.select([*_KEPT_OF_REGIONS, *negatives]),
            counts=counts,
            boxes=_boxes(regions),
            region_text_ids=_hash_ids(regions["text_hash"]),
            caption_counts=caption_counts,
            captions=captions,
            image_text_ids=image_text_ids,
        )


def _check(images: pa.Table, regions: pa.Table, shard: ShardName) -> None:
    for table, names in ((images, ("tar_offset", "tar_size", "width", "height")), (regions, ("caption", "text_hash"))):
        for name in names:
            if table[name].null_count:
                row = pc.index(pc.is_null(table[name]), True).as_py()
                raise DatasetError(f"{shard}.parquet: key {table['key'][row]}: an ok row without {name}")
    boxes = _boxes(regions)
    limits = np.stack([regions[name].to_numpy() for name in ("width", "height")], axis=1)
    inside = (boxes[:, :2] >= -_ROUNDING).all(axis=1) & (boxes[:, 2:] <= limits + _ROUNDING).all(axis=1)
    for row in np.flatnonzero(~(is_valid(boxes) & inside))[:1]:
        width, height = limits[row]
        raise DatasetError(
            f"{shard}.parquet: key {regions['key'][row]}, region {regions['region_id'][row]}: {boxes[row].tolist()} is "
            f"not a box inside {width} x {height}; write the shard again, or drop the region by a filter list"
        )


def _boxes(regions: pa.Table) -> Boxes:
    return np.stack([regions[name].to_numpy().astype(np.float32) for name in ("x0", "y0", "x1", "y1")], axis=1)


def _negatives(regions: pa.Table) -> dict[str, Any]:
    """Return `negative_start` and `negatives`, where an overlay gives them."""
    if HARD_NEGATIVES not in regions.column_names:
        return {}
    counts = pc.fill_null(pc.list_value_length(regions[HARD_NEGATIVES]), 0).to_numpy()
    return {"negative_start": _starts(counts), "negatives": pc.list_flatten(regions[HARD_NEGATIVES])}


def _captions(images: pa.Table) -> tuple[Ints, pa.ChunkedArray, Ints]:
    """Return how many captions each image has, all of them, and their `image_text_ids`.

    An image whose list is null has its `image_caption` alone: an earlier release, or another tool, wrote the row.
    """
    first, lists = images["image_caption"], images["image_captions"]
    has_first = pc.is_valid(first).to_numpy()
    listed = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    alone = has_first & (listed == 0)
    start = _starts(listed + alone)
    captions = pc.list_flatten(lists)
    if alone.any():
        owner = np.repeat(np.arange(len(images)), np.diff(start))
        in_lists = np.cumsum(listed)[owner] - listed[owner] + np.arange(len(owner)) - start[owner]
        both = pa.chunked_array([*captions.chunks, *first.chunks], type=pa.string())
        captions = both.take(pa.array(np.where(alone[owner], len(captions) + owner, in_lists)))
    ids = np.zeros(start[-1], dtype=np.int64)
    has_any = np.diff(start) > 0
    ids[start[:-1][has_any]] = _hash_ids(images["image_text_hash"])[has_any]
    others = np.setdiff1d(np.arange(start[-1]), start[:-1][has_any])
    hashes = [text_hash(text) for text in captions.take(pa.array(others)).to_pylist()]
    ids[others] = _hash_ids(pa.chunked_array([hashes], type=pa.string()))
    return listed + alone, captions, ids


def _starts(counts: Ints) -> Ints:
    """Return where the range of each begins, and the last one's end."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _hash_ids(hashes: pa.ChunkedArray) -> Ints:
    """Return 16 hex digits each as int64, two's complement; 0 for null."""
    digits = "".join(h or "0" * 16 for chunk in hashes.chunks for h in chunk.to_pylist())
    return np.frombuffer(bytes.fromhex(digits), dtype=">i8").astype(np.int64)


def _why_none(dataset: Dataset, shards: tuple[ShardName, ...]) -> str:
    if not shards:
        others = ", ".join(sorted({shard.split for shard in dataset.shards}))
        return f"it has no such shard, only {others}"
    rows = dataset.regions(["key", "region_id", "status", "reason", "message"], shards)
    rows = rows.filter(pc.is_null(rows["region_id"]))
    if not len(rows):
        return "its tables have no image, or the filter lists drop all"
    first = rows.slice(0, 1).to_pylist()[0]
    return f"the first, {first['key']}, is {first['status']}: {first['reason']}: {first['message']}"
