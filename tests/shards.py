"""Builds tiny data sets in the shards' format, from what `schemas` says of it alone; for tests of readers."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import fsspec
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from schemas.boxes import as_boxes
from schemas.hashes import region_id, sha256, text_hash, text_sha256
from schemas.names import DATASET_JSON, ShardName
from schemas.reasons import Reason, Stage, Status
from schemas.records import (
    Counts,
    FileDigest,
    ImageRecord,
    ImageSource,
    OverlayMarker,
    Region,
    ShardMarker,
    encode,
)
from schemas.tables import REGION_SCHEMA, RegionRow, row_ids
from schemas.tar import BLOCK, END, padding, tar_member_header

WIDTH, HEIGHT = 48, 32
_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


@dataclass(frozen=True, kw_only=True)
class TinySample:
    """An image with its record, and with boxes that were filtered, which only the table knows."""

    record: ImageRecord
    image: bytes
    suffix: str
    filtered: tuple[tuple[float, float, float, float], ...] = ()


def tiny_sample(
    key: str,
    *,
    num_regions: int = 2,
    num_filtered: int = 1,
    image_caption: str | None = "two shapes",
    suffix: str = "png",
) -> TinySample:
    """Return a sample whose pixels depend on `key`; region i is captioned `KEY shape i`."""
    seed = int(sha256(key.encode())[:8], 16)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, _FORMATS[suffix])
    record = ImageRecord(
        schema_version="1",
        key=key,
        width=WIDTH,
        height=HEIGHT,
        image_sha256=sha256(file.getvalue()),
        reencoded=False,
        image_caption=image_caption,
        source=ImageSource(uri=f"images/{key}.{suffix}", index=0, url=None, license="CC0-1.0"),
        num_regions=num_regions,
        image_captions=[] if image_caption is None else [image_caption],
        regions=[_region(key, i) for i in range(num_regions)],
    )
    filtered = tuple((float(i), 0.0, i + 1.0, 1.0) for i in range(num_filtered))
    return TinySample(record=record, image=file.getvalue(), suffix=suffix, filtered=filtered)


def _region(key: str, position: int) -> Region:
    box = (float(position), 2.0, position + 10.5, 20.0625)
    caption = f"{key} shape {position}"
    return Region(
        id=region_id(key, as_boxes(box)[0], "manual", 0),
        box=box,
        label="shape",
        proposer="manual",
        proposal_score=0.875,
        caption=caption,
        captioner="rule",
        caption_score=0.1234,
        text_hash=text_hash(caption),
    )


def write_shard(
    url: str, samples: Sequence[TinySample], *, split: str = "train", index: int = 0, dead: Sequence[str] = ()
) -> ShardMarker:
    """Write a shard of `samples`, with a row for each key in `dead` that could not be decoded."""
    shard = ShardName(split, index)
    tar, rows = bytearray(), []
    for sample in samples:
        rows += _rows(sample, shard, tar_offset=len(tar) + BLOCK)
        tar += tar_members(sample)
    failed = {"status": Status.DEAD, "reason": Reason.DECODE, "stage": Stage.DECODE, "message": "not an image"}
    rows += [RegionRow(key=key, shard=str(shard), **failed) for key in dead]
    contents = {shard.tar: bytes(tar) + END, shard.parquet: to_parquet(to_table(rows))}
    marker = ShardMarker(
        schema_version="1",
        shard=str(shard),
        fingerprint="f" * 64,
        images=_count([row for row in rows if row.region_id is None]),
        regions=_count([row for row in rows if row.region_id is not None]),
        tar=_digest(contents[shard.tar]),
        parquet=_digest(contents[shard.parquet]),
        sources=[],
        provenance={"captioner": {"name": "rule"}},
    )
    for name, content in {**contents, shard.marker: encode(marker)}.items():
        write_file(url, name, content)
    return marker


def tar_members(sample: TinySample) -> bytes:
    """Return the sample's members as they stand in a tar."""
    members = {sample.suffix: sample.image}
    if sample.record.image_caption is not None:
        members["txt"] = sample.record.image_caption.encode()
    members["json"] = encode(sample.record)
    return b"".join(tar_member(f"{sample.record.key}.{suffix}", data) for suffix, data in members.items())


def tar_member(name: str, data: bytes) -> bytes:
    """Return a member as it stands in a tar."""
    return tar_member_header(name, len(data)) + data + bytes(padding(len(data)))


def _rows(sample: TinySample, shard: ShardName, *, tar_offset: int) -> list[RegionRow]:
    record = sample.record
    common: dict[str, Any] = {
        "key": record.key,
        "width": record.width,
        "height": record.height,
        "image_caption": record.image_caption,
        "image_text_hash": None if record.image_caption is None else text_hash(record.image_caption),
        "tar_offset": tar_offset,
        "tar_size": len(sample.image),
        "shard": str(shard),
    }
    rows = [RegionRow(status=Status.OK, image_captions=record.image_captions or None, **common)]
    for region in record.regions:
        fields = msgspec.structs.asdict(region)
        rows.append(
            RegionRow(
                status=Status.OK,
                region_id=fields.pop("id"),
                text_sha256=text_sha256(region.caption),
                **_corners(fields.pop("box")),
                **fields,
                **common,
            )
        )
    small = {"status": Status.FILTERED, "reason": Reason.SMALL, "stage": Stage.SELECT, "proposer": "manual"}
    for box in sample.filtered:
        name = region_id(record.key, as_boxes(box)[0], "manual", 0)
        rows.append(RegionRow(region_id=name, **_corners(box), **small, **common))
    return rows


def _corners(box: tuple[float, float, float, float]) -> dict[str, float]:
    return dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))


def _count(rows: Sequence[RegionRow]) -> Counts:
    counts = Counts(inputs=len(rows))
    for row in rows:
        if row.reason is None:
            counts.ok += 1
        else:
            counts.drop(Reason(row.reason))
    return counts


def write_overlay(
    url: str,
    shard: ShardMarker,
    name: str,
    table: pa.Table,
    *,
    partial: bool = False,
    base_sha256: str | None = None,
) -> OverlayMarker:
    """Write an overlay of `shard`: `table` holds key, region_id and the columns."""
    content = to_parquet(table)
    marker = OverlayMarker(
        schema_version="1",
        shard=shard.shard,
        overlay=name,
        fingerprint="e" * 64,
        base_sha256=base_sha256 or shard.parquet.sha256,
        columns=[column for column in table.column_names if column not in ("key", "region_id")],
        partial=partial,
        num_rows=len(table),
        parquet=_digest(content),
        provenance={},
    )
    write_file(url, f"{shard.shard}.{name}.parquet", content)
    write_file(url, f"{shard.shard}.{name}.json", encode(marker))
    return marker


def caption_overlay(samples: Sequence[TinySample], prefix: str) -> pa.Table:
    """Return an overlay's table that puts `prefix` before the caption of every ok region, in reverse order."""
    regions = [(sample.record.key, region) for sample in samples for region in sample.record.regions][::-1]
    captions = [f"{prefix} {region.caption}" for _, region in regions]
    columns: dict[str, list[Any]] = {
        "key": [key for key, _ in regions],
        "region_id": [region.id for _, region in regions],
        "captioner": [prefix] * len(regions),
        "caption": captions,
        "caption_score": [0.4321] * len(regions),
        "text_hash": [text_hash(caption) for caption in captions],
        "text_sha256": [text_sha256(caption) for caption in captions],
    }
    return pa.table({name: pa.array(values, REGION_SCHEMA.field(name).type) for name, values in columns.items()})


def write_index(url: str, shards: Sequence[str]) -> None:
    """Write `dataset.json`, as readers need it."""
    write_file(url, DATASET_JSON, msgspec.json.encode({"schema_version": "1", "shards": list(shards), "title": "tiny"}))


def to_table(rows: Sequence[RegionRow]) -> pa.Table:
    """Return the rows as a table of `REGION_SCHEMA`."""
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in REGION_SCHEMA]
    return pa.Table.from_arrays(columns, schema=REGION_SCHEMA)


def to_parquet(table: pa.Table) -> bytes:
    """Return the bytes of the Parquet file that holds `table`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, store_schema=False)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def write_file(url: str, name: str, content: bytes) -> None:
    """Write a file into the folder at `url`, any fsspec one."""
    with fsspec.open(f"{url}/{name}", "wb", auto_mkdir=True) as file:
        file.write(content)


def ids_of(table: pa.Table) -> list[str | None]:
    """Return KEY/REGION_ID of each row, None for images."""
    return [row_id and row_id.replace("\n", "/") for row_id in row_ids(table).to_pylist()]


def _digest(content: bytes) -> FileDigest:
    return FileDigest(sha256=sha256(content), size=len(content))
