"""What overlays and filter lists make of the records in a shard's tar."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.folder import DatasetError
from schemas.reasons import Status
from schemas.records import ImageRecord, Region

RECORD_COLUMNS = ("label", "proposal_score", "captioner", "caption", "caption_score", "text_hash", "mask_rle")
"""The columns of a shard's table that a record's regions repeat, and that an overlay may replace."""

_NEVER_NULL = {"proposal_score", "captioner", "caption", "text_hash"}
_SCORES = {"proposal_score", "caption_score"}


@dataclass(frozen=True, kw_only=True)
class ShardView:
    """The images and regions of a shard that are kept, and what changes in them."""

    where: str
    """The shard's table, for messages."""
    images: Mapping[str, bool]
    """Whether an image is kept, by key."""
    regions: Mapping[tuple[str, str], dict[str, Any] | None]
    """What to replace in a region, by (key, region id), or None where it is taken away."""

    def apply(self, record: ImageRecord) -> ImageRecord | None:
        """Return the record with its regions as they are seen, or None where the image is taken away.

        Raises DatasetError when the table does not know the image or a region, or leaves a kept region without caption.
        """
        if record.key not in self.images:
            raise DatasetError(f"{self.where}: no ok row for image {record.key!r}, which is in the tar")
        if not self.images[record.key]:
            return None
        regions = [region for old in record.regions if (region := self._apply_to_region(record.key, old))]
        return msgspec.structs.replace(record, regions=regions, num_regions=len(regions))

    def _apply_to_region(self, key: str, region: Region) -> Region | None:
        if (key, region.id) not in self.regions:
            raise DatasetError(f"{self.where}: no row for region {key}/{region.id}, which is in the tar")
        changes = self.regions[key, region.id]
        if changes is None:
            return None
        empty = sorted(name for name in _NEVER_NULL & changes.keys() if changes[name] is None)
        if empty:
            raise DatasetError(
                f"{self.where}: an overlay makes {', '.join(empty)} of region {key}/{region.id} null; "
                "it must set the status of regions without a caption"
            )
        return msgspec.structs.replace(region, **changes)


def shard_view(rows: pa.Table, *, kept: npt.NDArray[np.bool_] | None, where: str) -> ShardView:
    """Return the view of a shard whose table, with overlays joined, is `rows`.

    `rows` holds key, region_id, status and those of `RECORD_COLUMNS` that overlays replace; `kept` `[rows]` is false
    where a filter list takes the row away.
    """
    ok = pc.equal(rows["status"], Status.OK.value).to_numpy(zero_copy_only=False)
    alive = ok if kept is None else ok & kept
    keys, ids = rows["key"].to_pylist(), rows["region_id"].to_pylist()
    is_image = np.array([region_id is None for region_id in ids], dtype=np.bool_)
    images = {keys[i]: bool(alive[i]) for i in np.flatnonzero(is_image & ok)}
    names = [name for name in rows.column_names if name in RECORD_COLUMNS]
    changes = _changes(rows.select(names))
    regions = {(keys[i], ids[i]): changes[i] if alive[i] else None for i in np.flatnonzero(~is_image)}
    return ShardView(where=where, images=images, regions=regions)


def _changes(rows: pa.Table) -> list[dict[str, Any]]:
    """Return each row as a dictionary, scores rounded as records have them (the table holds float32)."""
    if not rows.column_names:
        return [{} for _ in range(len(rows))]
    changes: list[dict[str, Any]] = rows.to_pylist()
    for name in _SCORES & set(rows.column_names):
        for change in changes:
            if change[name] is not None:
                change[name] = round(change[name], 4)
    return changes
