"""What must be known of all shards before the first part is written: labels, and where each shard's ids begin.

One pass over the tables. In memory: 16 bytes per image and 8 per region.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.names import ShardName
from schemas.reasons import Reason, Status

UNLABELLED = "region"
"""The category of regions without a label, in formats that must have one."""
_MOST_DIGITS = 15
"""Of an id that is kept as a number: JSON readers that know floats alone hold it exactly."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A data set as a whole."""

    labels: tuple[str, ...]
    """Sorted; `UNLABELLED` among them where a region has no label. A label's number is its place here."""
    first_image: Mapping[ShardName, int]
    """The number of images in the shards before, by shard."""
    first_region: Mapping[ShardName, int]
    """The number of regions and crowds in the shards before, by shard."""
    keeps_image_ids: bool
    """Whether all keys are whole numbers that differ, as COCO's file names are: they are the ids then."""
    keeps_region_ids: bool
    """Whether the source gave all regions ids that are whole numbers and differ: they are the ids then."""

    def label_number(self, label: str | None) -> int:
        """Return the place of a label in `labels`."""
        return self._places[label or UNLABELLED]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}


def survey(dataset: Dataset) -> Survey:
    """Return the survey of a data set. Raises DatasetError where two images have one key."""
    labels: set[str] = set()
    image_counts, region_counts = [], []
    keys, image_ids, region_ids = [], [], []
    columns = ["key", "region_id", "status", "reason", "label", "source_id"]
    for shard in dataset.shards:
        rows = dataset.regions(columns, [shard])
        rows = rows.filter(pc.or_kleene(pc.equal(rows["status"], Status.OK.value), _is_crowd(rows)))
        is_image = pc.is_null(rows["region_id"])
        images, regions = rows.filter(is_image)["key"], rows.filter(pc.invert(is_image))
        labels.update(label or UNLABELLED for label in regions["label"].unique().to_pylist())
        image_counts.append(len(images))
        region_counts.append(len(regions))
        keys.append(np.fromiter(map(hash, images.to_pylist()), np.int64, len(images)))
        image_ids.append(_numbers(images))
        region_ids.append(_numbers(regions["source_id"]))
    _check_keys(dataset, np.concatenate(keys))
    return Survey(
        labels=tuple(sorted(labels)),
        first_image=_firsts(dataset, image_counts),
        first_region=_firsts(dataset, region_counts),
        keeps_image_ids=_are_ids(image_ids),
        keeps_region_ids=_are_ids(region_ids),
    )


def _is_crowd(rows: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(rows["reason"], Reason.CROWD.value), False)


def _numbers(texts: pa.ChunkedArray) -> npt.NDArray[np.int64] | None:
    """Return the texts as whole numbers, or None where one is none, or is too long."""
    matches = pc.match_substring_regex(texts, rf"^[0-9]{{1,{_MOST_DIGITS}}}$")
    if not pc.all(pc.fill_null(matches, False), min_count=0).as_py():
        return None
    numbers: npt.NDArray[np.int64] = pc.cast(texts, pa.int64()).to_numpy()
    return numbers


def _are_ids(parts: list[npt.NDArray[np.int64] | None]) -> bool:
    known = [part for part in parts if part is not None]
    return len(known) == len(parts) and not _has_equal(np.concatenate(known))


def _has_equal(numbers: npt.NDArray[np.int64]) -> bool:
    ordered = np.sort(numbers)
    return bool((ordered[1:] == ordered[:-1]).any())


def _firsts(dataset: Dataset, counts: Iterable[int]) -> dict[ShardName, int]:
    starts = np.cumsum([0, *counts])[:-1].tolist()
    return dict(zip(dataset.shards, starts, strict=True))


def _check_keys(dataset: Dataset, hashes: npt.NDArray[np.int64]) -> None:
    """Raise DatasetError where an image would be written over another of its key."""
    if not _has_equal(hashes):
        return
    numbers, counts = np.unique(hashes, return_counts=True)
    suspects = set(numbers[counts > 1].tolist())
    seen: set[str] = set()
    for rows in dataset.region_batches(["key", "region_id", "status"]):
        images = rows.filter(pc.and_(pc.is_null(rows["region_id"]), pc.equal(rows["status"], Status.OK.value)))
        for key in images["key"].to_pylist():
            if hash(key) in suspects and key in seen:
                raise DatasetError(f"two images have the key {key!r}, and one file; give the inputs different prefixes")
            if hash(key) in suspects:
                seen.add(key)
