"""A shard's table by itself: its schema, statuses, boxes and order, and its counts against the marker."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.doctor.findings import Findings
from schemas.boxes import QUANTUM, Boxes, is_valid, misread
from schemas.names import ShardName
from schemas.reasons import STATUS_OF, Reason, Status
from schemas.records import Counts, ShardMarker
from schemas.tables import REGION_SCHEMA, lacking_columns, schema_problem
from schemas.tar import BLOCK
from schemas.text import counted

_BATCH_ROWS = 16_384
_UNREAD = {"message", "traceback_hash", "stage", "mask_rle"}
"""Columns for people, or large: no check needs them."""
_COLUMNS = [name for name in REGION_SCHEMA.names if name not in _UNREAD]
_MISREAD = "annotate again from boxes in the form that the INPUT's format has (COCO: x, y, width, height in pixels)"
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
        begins = {row["key"]: row["tar_offset"] - BLOCK for row in self._image_rows()}
        keys = [key for key, begin in begins.items() if begin <= byte]
        return max(keys, key=begins.__getitem__, default=None)

    def num_beyond(self, byte: int) -> int:
        """Return how many images end beyond `byte` of the tar, as the table has it."""
        ends = (row["tar_offset"] + row["tar_size"] for row in self._image_rows())
        return sum(end > byte for end in ends)

    def _image_rows(self) -> list[dict[str, Any]]:
        starts = pa.array([start for start, _ in self.spans.values()], pa.int64())
        rows: list[dict[str, Any]] = self.table.select(["key", "tar_offset", "tar_size"]).take(starts).to_pylist()
        return rows


def examine_rows(content: bytes, shard: ShardName, marker: ShardMarker, findings: Findings) -> ShardRows | None:
    """Check the table whose file holds `content`; return its ok rows, or None where it cannot be read."""
    images, regions = Counts(), Counts()
    empty = pa.schema([REGION_SCHEMA.field(name) for name in _COLUMNS]).empty_table()
    kept, given = [empty], [empty]
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            problem = schema_problem(file.schema_arrow)
            if problem is not None:
                findings.error("table-schema", f"the table's columns are not those of schema version 1: {problem}")
                return None
            lacking = lacking_columns(file.schema_arrow)
            for batch in file.iter_batches(_BATCH_ROWS, columns=_COLUMNS):
                batch.validate(full=True)  # text that is not UTF-8 would be found by whoever reads it first
                rows = _with_nulls(pa.Table.from_batches([batch]), lacking)
                _count(rows, images, regions, findings)
                kept.append(_check_rows(rows, shard, findings))
                given.append(rows.filter(pc.fill_null(pc.equal(rows["proposer"], "manual"), False)))
    # Arrow raises OSError for damaged pages (the bytes are in memory, so it is not the store's), and UnicodeDecodeError
    # for damaged names of columns.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        findings.error("table", f"{shard.parquet} cannot be read: {str(error).splitlines()[0]}")
        return None
    _compare_counts({"images": (images, marker.images), "regions": (regions, marker.regions)}, findings)
    odd = misread(*_boxes(pa.concat_tables(given)))
    if odd is not None:
        findings.warning("given-boxes", odd, remedy=_MISREAD)
    return _spans(pa.concat_tables(kept).combine_chunks(), findings)


def _with_nulls(rows: pa.Table, lacking: list[str]) -> pa.Table:
    """Return the rows with a column of nulls for each that the release which wrote them did not know."""
    for name in lacking:
        if name in _COLUMNS:
            field = REGION_SCHEMA.field(name)
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows.select(_COLUMNS)


def _count(rows: pa.Table, images: Counts, regions: Counts, findings: Findings) -> None:
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
            findings.error("status", f"{what} status is {status!r} with reason {reason!r}", key=first)


def _compare_counts(pairs: Mapping[str, tuple[Counts, Counts]], findings: Findings) -> None:
    for name, (found, stated) in pairs.items():
        if not stated.balanced:
            total = f"{stated.ok} ok + {stated.num_filtered} filtered + {stated.num_dead} dead"
            message = f"the marker's {name} do not balance: {counted(stated.inputs, 'input')}, but {total}"
            findings.error("counts", message)
        elif found != stated:
            message = f"{name}: the table has {_told(found)}; the marker says {_told(stated)}"
            findings.error("counts", message)


def _told(counts: Counts) -> str:
    reasons = [f"{count:,} {reason}" for reason, count in sorted({**counts.filtered, **counts.dead}.items())]
    return ", ".join([counted(counts.inputs, "input"), f"{counts.ok:,} ok", *reasons])


def _check_rows(rows: pa.Table, shard: ShardName, findings: Findings) -> pa.Table:
    """Check a batch of rows; return those that are ok and whose image is in the tar."""
    ok = pc.equal(rows["status"], Status.OK.value)
    is_image = pc.is_null(rows["region_id"])
    foreign = rows.filter(pc.not_equal(rows["shard"], str(shard)))
    for row in foreign.select(["key", "shard"]).slice(0, 1).to_pylist():
        names = "row names" if len(foreign) == 1 else "rows name"
        message = f"{len(foreign):,} {names} {row['shard']} as the shard"
        findings.error("table", message, key=row["key"])
    unplaced = pc.and_(pc.and_(ok, is_image), pc.or_(pc.is_null(rows["tar_offset"]), pc.is_null(rows["tar_size"])))
    for key in rows.filter(unplaced)["key"].to_pylist():
        findings.error("tar-offset", "the image is ok, but its row has no place in the tar", key=key)
    _check_boxes(rows.filter(pc.and_(ok, pc.invert(is_image))), findings)
    return rows.filter(pc.and_(ok, pc.is_valid(rows["tar_offset"])))


def _check_boxes(regions: pa.Table, findings: Findings) -> None:
    """Check the boxes of ok regions: finite, not empty, inside their image, multiples of 1/16 pixel."""
    boxes, width, height = _boxes(regions)
    valid = is_valid(boxes)
    with np.errstate(invalid="ignore"):
        inside = (boxes[:, :2] >= 0).all(axis=1) & (boxes[:, 2] <= width) & (boxes[:, 3] <= height)
        on_grid = (np.mod(boxes, QUANTUM) == 0).all(axis=1)
    problems = {  # a box has one of them
        "is not a box (not finite, or empty)": ~valid,
        "is not inside its image": valid & ~inside,
        "is not in multiples of 1/16 pixel": valid & inside & ~on_grid,
    }
    for message, bad in problems.items():
        for position in np.flatnonzero(bad):
            key, region_id = regions["key"][position].as_py(), regions["region_id"][position].as_py()
            box = [float(corner) for corner in boxes[position]]
            findings.error("box", f"region {region_id}: {box} in the table {message}", key=key)


def _boxes(regions: pa.Table) -> tuple[Boxes, Boxes, Boxes]:
    """Return `[R, 4]` boxes with `[R]` width and `[R]` height of their stored images; nulls are NaN."""
    columns = [regions[name].to_numpy().astype(np.float32) for name in ("x0", "y0", "x1", "y1", "width", "height")]
    return np.stack(columns[:4], axis=1), columns[4], columns[5]


def _spans(table: pa.Table, findings: Findings) -> ShardRows:
    keys = table["key"].to_pylist()
    is_image = pc.is_null(table["region_id"]).to_pylist()
    starts = [row for row in range(len(keys)) if row == 0 or keys[row] != keys[row - 1]]
    spans: dict[str, tuple[int, int]] = {}
    for start, stop in pairwise([*starts, len(keys)]):
        key = keys[start]
        if key in spans:
            findings.error("table-order", "the image's rows are not adjacent", key=key)
        elif not is_image[start] or any(is_image[start + 1 : stop]):
            message = "the image's own row is not the first of its rows, and the only one"
            findings.error("table-order", message, key=key)
        spans.setdefault(key, (start, stop))
    return ShardRows(table=table, spans=spans)
