"""A shard's table by itself: its schema, statuses, boxes and order, and its counts against the marker."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.doctor.findings import Findings, write_again
from schemas.boxes import QUANTUM, Boxes, is_valid
from schemas.names import ShardName
from schemas.reasons import STATUS_OF, Reason, Status
from schemas.records import Counts, ShardMarker
from schemas.tables import REGION_SCHEMA
from schemas.tar import BLOCK

_BATCH_ROWS = 16_384
_UNREAD = {"message", "traceback_hash", "stage", "mask_rle"}
"""Columns for people, or large: no check needs them."""
_COLUMNS = [name for name in REGION_SCHEMA.names if name not in _UNREAD]
_REASONS = {reason.value: status.value for reason, status in STATUS_OF.items()}


@dataclass(frozen=True, kw_only=True)
class ShardRows:
    """The rows of the images that are in the tar, with those of their ok regions."""

    table: pa.Table
    """Rows of an image are adjacent, its own row first."""
    spans: Mapping[str, tuple[int, int]]
    """First row and one beyond the last, by key."""

    def of(self, key: str) -> list[dict[str, Any]] | None:
        """Return the rows of an image, its own first, or None where there are none."""
        if key not in self.spans:
            return None
        start, stop = self.spans[key]
        rows: list[dict[str, Any]] = self.table.slice(start, stop - start).to_pylist()
        return rows

    def key_at(self, byte: int) -> str | None:
        """Return the key of the sample whose members are at `byte` of the tar, as the table has it."""
        begins = self._begins()
        keys = [key for key, begin in begins.items() if begin <= byte]
        return max(keys, key=begins.__getitem__, default=None)

    def num_beyond(self, byte: int) -> int:
        """Return how many images end beyond `byte` of the tar, as the table has it."""
        ends = (row["tar_offset"] + row["tar_size"] for row in self._image_rows())
        return sum(end > byte for end in ends)

    def _begins(self) -> dict[str, int]:
        return {row["key"]: row["tar_offset"] - BLOCK for row in self._image_rows()}

    def _image_rows(self) -> list[dict[str, Any]]:
        starts = pa.array([start for start, _ in self.spans.values()], pa.int64())
        rows: list[dict[str, Any]] = self.table.select(["key", "tar_offset", "tar_size"]).take(starts).to_pylist()
        return rows


def examine_rows(content: bytes, shard: ShardName, marker: ShardMarker, findings: Findings) -> ShardRows | None:
    """Check the table whose file holds `content`; return its ok rows, or None where it cannot be read."""
    remedy = write_again(shard)
    images, regions = Counts(), Counts()
    kept = []
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            if not _check_schema(file.schema_arrow, findings, remedy):
                return None
            for batch in file.iter_batches(_BATCH_ROWS, columns=_COLUMNS):
                batch.validate(full=True)  # text that is not UTF-8 would be found by whoever reads it first
                rows = pa.Table.from_batches([batch])
                _count(rows, images, regions, findings, remedy)
                kept.append(_check_rows(rows, shard, findings, remedy))
    # Arrow raises OSError for damaged pages (the bytes are in memory, so it is not the store's), and UnicodeDecodeError
    # for damaged names of columns.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        findings.error("table", f"{shard.parquet} cannot be read: {str(error).splitlines()[0]}", remedy=remedy)
        return None
    _compare_counts({"images": (images, marker.images), "regions": (regions, marker.regions)}, findings, remedy)
    empty = pa.schema([REGION_SCHEMA.field(name) for name in _COLUMNS]).empty_table()
    return _spans(pa.concat_tables([empty, *kept]).combine_chunks(), findings, remedy)


def _check_schema(schema: pa.Schema, findings: Findings, remedy: str) -> bool:
    if schema.equals(REGION_SCHEMA):
        return True
    differing = [f"{field.name} ({field.type})" for field in schema if field not in list(REGION_SCHEMA)]
    lacking = [name for name in REGION_SCHEMA.names if name not in schema.names]
    message = (
        f"the table's columns are not those of schema version 1: unexpected: "
        f"{', '.join(differing) or 'only the order'}; lacking: {', '.join(lacking) or 'none'}"
    )
    findings.error("table-schema", message, remedy=remedy)
    return False


def _count(rows: pa.Table, images: Counts, regions: Counts, findings: Findings, remedy: str) -> None:
    """Add the batch to the counts, and report statuses that go with no reason, and the reverse."""
    table = rows.select(["status", "reason", "count"]).append_column("is_image", pc.is_null(rows["region_id"]))
    groups = table.group_by(["is_image", "status", "reason"]).aggregate([("count", "sum")])
    for group in groups.to_pylist():
        status, reason, count = group["status"], group["reason"], group["count_sum"]
        counts = images if group["is_image"] else regions
        counts.inputs += count
        if (status, reason) == (Status.OK, None):
            counts.ok += count
        elif reason in _REASONS and _REASONS[reason] == status:
            counts.drop(Reason(reason), count)
        else:
            same_reason = pc.is_null(rows["reason"]) if reason is None else pc.equal(rows["reason"], reason)
            first = rows.filter(pc.and_(pc.equal(rows["status"], status), same_reason))["key"][0].as_py()
            what = "a region's" if not group["is_image"] else "an image's"
            findings.error("status", f"{what} status is {status!r} with reason {reason!r}", remedy=remedy, key=first)


def _compare_counts(pairs: Mapping[str, tuple[Counts, Counts]], findings: Findings, remedy: str) -> None:
    for name, (counted, stated) in pairs.items():
        if not stated.balanced:
            total = f"{stated.ok} ok + {stated.num_filtered} filtered + {stated.num_dead} dead"
            message = f"the marker's {name} do not balance: {stated.inputs} inputs, but {total}"
            findings.error("counts", message, remedy=remedy)
        elif counted != stated:
            message = f"{name}: the table has {_told(counted)}; the marker says {_told(stated)}"
            findings.error("counts", message, remedy=remedy)


def _told(counts: Counts) -> str:
    reasons = [f"{count} {reason}" for reason, count in sorted({**counts.filtered, **counts.dead}.items())]
    return ", ".join([f"{counts.inputs} inputs", f"{counts.ok} ok", *reasons])


def _check_rows(rows: pa.Table, shard: ShardName, findings: Findings, remedy: str) -> pa.Table:
    """Check a batch of rows; return those that are ok and whose image is in the tar."""
    ok = pc.equal(rows["status"], Status.OK.value)
    is_image = pc.is_null(rows["region_id"])
    foreign = rows.filter(pc.not_equal(rows["shard"], str(shard)))
    for row in foreign.select(["key", "shard"]).slice(0, 1).to_pylist():
        message = f"{len(foreign)} rows name {row['shard']} as their shard"
        findings.error("table", message, remedy=remedy, key=row["key"])
    unplaced = pc.and_(pc.and_(ok, is_image), pc.or_(pc.is_null(rows["tar_offset"]), pc.is_null(rows["tar_size"])))
    for key in rows.filter(unplaced)["key"].to_pylist():
        findings.error("tar-offset", "the image is ok, but its row has no place in the tar", remedy=remedy, key=key)
    _check_boxes(rows.filter(pc.and_(ok, pc.invert(is_image))), findings, remedy)
    return rows.filter(pc.and_(ok, pc.is_valid(rows["tar_offset"])))


def _check_boxes(regions: pa.Table, findings: Findings, remedy: str) -> None:
    """Check the boxes of ok regions: finite, not empty, inside their image, multiples of 1/16 pixel."""
    columns = [regions[name].to_numpy() for name in ("x0", "y0", "x1", "y1", "width", "height")]
    boxes: Boxes = np.stack(columns[:4], axis=1).astype(np.float32)  # nulls become NaN
    for message, bad in _box_problems(boxes, *columns[4:]).items():
        for position in np.flatnonzero(bad):
            key, region_id = regions["key"][position].as_py(), regions["region_id"][position].as_py()
            box = [float(corner) for corner in boxes[position]]
            findings.error("box", f"region {region_id}: {box} in the table {message}", remedy=remedy, key=key)


def _box_problems(boxes: Boxes, width: Any, height: Any) -> dict[str, npt.NDArray[np.bool_]]:
    """Return `[R]` bool by message; a box has one problem. `width` and `height` are `[R]`, of the stored image."""
    valid = is_valid(boxes)
    right, bottom = width.astype(np.float32), height.astype(np.float32)
    with np.errstate(invalid="ignore"):
        inside = (boxes[:, 0] >= 0) & (boxes[:, 1] >= 0) & (boxes[:, 2] <= right) & (boxes[:, 3] <= bottom)
        on_grid = (np.mod(boxes, QUANTUM) == 0).all(axis=1)
    return {
        "is not a box (not finite, or empty)": ~valid,
        "is not inside its image": valid & ~inside,
        "is not in multiples of 1/16 pixel": valid & inside & ~on_grid,
    }


def _spans(table: pa.Table, findings: Findings, remedy: str) -> ShardRows:
    keys = table["key"].to_pylist()
    is_image = pc.is_null(table["region_id"]).to_pylist()
    starts = [row for row in range(len(keys)) if row == 0 or keys[row] != keys[row - 1]]
    spans: dict[str, tuple[int, int]] = {}
    for start, stop in pairwise([*starts, len(keys)]):
        key = keys[start]
        if key in spans:
            findings.error("table-order", "the image's rows are not adjacent", remedy=remedy, key=key)
        elif not is_image[start] or any(is_image[start + 1 : stop]):
            message = "the image's own row is not the first of its rows, and the only one"
            findings.error("table-order", message, remedy=remedy, key=key)
        spans.setdefault(key, (start, stop))
    return ShardRows(table=table, spans=spans)
