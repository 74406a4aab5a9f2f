"""`hf`: Parquet files that `datasets.load_dataset("OUT")` reads, with images that decode and a column `objects`.

    data/train-00000-of-00003.parquet     of the split `val`: data/validation-...

Columns: image, image_id (the key), width, height, caption, captions, and objects: a struct of lists, as the hub's
detection data sets have it. Boxes are COCO's x, y, width, height in pixels of the image.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export.coco import captions_of
from pipeline.export.join import Join
from pipeline.export.part import Part
from schemas.dataset import Sample
from schemas.names import VAL

_ROW_GROUP = 100
"""Images in memory, and in a row group: what the hub's viewer reads at a time."""

_OBJECTS: dict[str, tuple[pa.DataType, str]] = {
    "id": (pa.string(), "string"),
    "bbox": (pa.list_(pa.float32(), 4), "float32"),
    "label": (pa.string(), "string"),
    "caption": (pa.string(), "string"),
    "score": (pa.float32(), "float32"),
    "is_crowd": (pa.bool_(), "bool"),
    "source_id": (pa.string(), "string"),
}
_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def _schema() -> pa.Schema:
    """Return the Arrow schema, with the features that `datasets` looks for in its metadata."""
    objects = pa.struct({name: pa.list_(kind) for name, (kind, _) in _OBJECTS.items()})
    fields = {"image": _IMAGE, "image_id": pa.string(), "width": pa.int32(), "height": pa.int32()}
    fields |= {"caption": pa.string(), "captions": pa.list_(pa.string()), "objects": objects}
    features: dict[str, Any] = {
        name: {"dtype": str(kind), "_type": "Value"} for name, kind in fields.items() if not pa.types.is_nested(kind)
    }
    features["captions"] = _list({"dtype": "string", "_type": "Value"})
    features["objects"] = {
        name: _list(_list(_value(dtype), 4) if name == "bbox" else _value(dtype))
        for name, (_, dtype) in _OBJECTS.items()
    }
    features = {"image": {"_type": "Image"}} | features
    ordered = {name: features[name] for name in fields}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": ordered}})})


def _value(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "_type": "Value"}


def _list(of: dict[str, Any], length: int = -1) -> dict[str, Any]:
    return {"feature": of, "length": length, "_type": "List"}


@dataclass(frozen=True)
class Hf:
    """A shard becomes a file."""

    def write(self, part: Part, samples: Iterator[Sample]) -> None:
        """Write a shard's file, a row group at a time."""
        shards = [shard for shard in part.dataset.shards if shard.split == part.shard.split]
        place = shards.index(part.shard)
        schema, split = _schema(), "validation" if part.shard.split == VAL else part.shard.split
        with (
            part.open(f"data/{split}-{place:05d}-of-{len(shards):05d}.parquet") as file,
            pq.ParquetWriter(file, schema) as writer,
        ):
            while rows := [_row(sample) for sample in islice(samples, _ROW_GROUP)]:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                part.counts.images += len(rows)
                part.counts.regions += sum(len(row["objects"]["id"]) for row in rows)

    def join(self, join: Join) -> None:
        """Do nothing: files are whole as they are."""


def _row(sample: Sample) -> dict[str, Any]:
    record = sample.record
    objects: dict[str, list[Any]] = {name: [] for name in _OBJECTS}
    for region in record.regions:
        x0, y0, x1, y1 = region.box
        box = [x0, y0, x1 - x0, y1 - y0]
        values = (
            region.id,
            box,
            region.label,
            region.caption,
            region.proposal_score,
            region.is_crowd,
            region.source_id,
        )
        for column, value in zip(objects.values(), values, strict=True):
            column.append(value)
    return {
        "image": {"bytes": sample.image, "path": f"{sample.key}.{sample.suffix}"},
        "image_id": sample.key,
        "width": record.width,
        "height": record.height,
        "caption": record.image_caption,
        "captions": captions_of(record),
        "objects": objects,
    }
