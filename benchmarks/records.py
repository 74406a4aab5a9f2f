"""Records and tables: what strict records cost, and what a table beside the tar saves.

    python -m benchmarks.records [--regions 200000] [--runs 5] [--folder .]

Codec: an `ImageRecord` of 4 regions, encoded and decoded with its checks, against the json module with dataclasses and
the same checks by hand. Reading: boxes and captions of all regions through `Dataset.regions`, against reading all
columns, and against decoding every record of the tars. Images are 1 KB, so that the tars are much shorter than real
ones, and the files are read again and again, from memory where the machine keeps them: both favour the tars.
"""

import argparse
import dataclasses
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.report import Row, measure, report
from pipeline.write.shard_writer import ShardWriter
from schemas.boxes import as_boxes
from schemas.dataset import Dataset
from schemas.hashes import region_id, sha256, text_hash, text_sha256
from schemas.names import KEY_PATTERN, ShardName
from schemas.reasons import Status
from schemas.records import ImageRecord, ImageSource, Region, ShardMarker, decode_image_record, encode
from schemas.tables import RegionRow

_NUM_REGIONS = 4
_IMAGES_PER_SHARD = 10_000
_IMAGE_BYTES = 1000
_FULL_SIZE = 10_000_000
"""Regions of the paper's data set, which the times are extrapolated to."""
_COLUMNS = ["key", "region_id", "x0", "y0", "x1", "y1", "caption"]
_WORDS = ("a", "red", "car", "beside", "the", "old", "tree", "person", "holding", "an", "umbrella", "in", "rain")


@dataclasses.dataclass(frozen=True)
class _PlainSource:
    uri: str
    index: int
    url: str | None
    license: str | None


@dataclasses.dataclass(frozen=True)
class _PlainRegion:
    id: str
    box: tuple[float, ...]
    label: str | None
    proposer: str
    proposal_score: float
    caption: str
    captioner: str
    caption_score: float | None
    text_hash: str


@dataclasses.dataclass(frozen=True)
class _PlainRecord:
    """`ImageRecord` as one would write it without a library."""

    schema_version: str
    key: str
    width: int
    height: int
    image_sha256: str
    reencoded: bool
    image_caption: str | None
    source: _PlainSource
    num_regions: int
    regions: list[_PlainRegion]


_OPTIONAL_STR = (str, type(None))
_SOURCE_TYPES = {"uri": str, "index": int, "url": _OPTIONAL_STR, "license": _OPTIONAL_STR}
_REGION_TYPES = {
    "id": str,
    "box": list,
    "label": _OPTIONAL_STR,
    "proposer": str,
    "proposal_score": (int, float),
    "caption": str,
    "captioner": str,
    "caption_score": (int, float, type(None)),
    "text_hash": str,
}
_RECORD_TYPES = {
    "schema_version": str,
    "key": str,
    "width": int,
    "height": int,
    "image_sha256": str,
    "reencoded": bool,
    "image_caption": _OPTIONAL_STR,
    "source": dict,
    "num_regions": int,
    "regions": list,
}


def _checked(fields: Any, types: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(fields, dict) or fields.keys() != types.keys():
        raise ValueError("fields are missing or unknown")
    for name, kind in types.items():
        if not isinstance(fields[name], kind):
            raise TypeError(f"{name}: {fields[name]!r}")
    return fields


def _plain_region(fields: Any, width: int, height: int) -> _PlainRegion:
    region = _PlainRegion(**_checked(fields, _REGION_TYPES))
    x0, y0, x1, y1 = region.box
    if not all(map(math.isfinite, region.box)) or not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"box: {region.box}")
    return region


def _plain_decode(data: bytes) -> _PlainRecord:
    fields = _checked(json.loads(data), _RECORD_TYPES)
    fields["source"] = _PlainSource(**_checked(fields["source"], _SOURCE_TYPES))
    regions = [_plain_region(region, fields["width"], fields["height"]) for region in fields["regions"]]
    record = _PlainRecord(**fields | {"regions": regions})
    if record.schema_version != "1" or not re.fullmatch(KEY_PATTERN, record.key) or record.width < 1:
        raise ValueError(record.key)
    if record.num_regions != len(regions) or len({region.id for region in regions}) != len(regions):
        raise ValueError("num_regions")
    return record


def _plain_encode(record: _PlainRecord) -> bytes:
    # vars, because dataclasses.asdict copies everything and takes several times as long
    return json.dumps(record, default=vars, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _record(index: int, image: bytes) -> ImageRecord:
    key = f"{index:08d}"
    rng = np.random.default_rng(index)
    regions = [_region(rng, key, ordinal) for ordinal in range(_NUM_REGIONS)]
    return ImageRecord(
        schema_version="1",
        key=key,
        width=640,
        height=480,
        image_sha256=sha256(image),
        reencoded=False,
        image_caption=_words(rng),
        source=ImageSource(uri=f"00000.tar/{key}.jpg", index=index, url=f"http://a.example/{key}.jpg", license=None),
        num_regions=len(regions),
        regions=regions,
    )


def _region(rng: np.random.Generator, key: str, ordinal: int) -> Region:
    x0, y0 = (rng.integers(0, 400 * 16, size=2) / 16).tolist()
    box = (x0, y0, x0 + 20.5, y0 + 40.25)
    caption = _words(rng)
    return Region(
        id=region_id(key, as_boxes(box)[0], "yolov9", ordinal),
        box=box,
        label="thing",
        proposer="yolov9",
        proposal_score=round(rng.random(), 4),
        caption=caption,
        captioner="blip2",
        caption_score=round(rng.random(), 4),
        text_hash=text_hash(caption),
    )


def _words(rng: np.random.Generator) -> str:
    return " ".join(_WORDS[word] for word in rng.integers(len(_WORDS), size=9))


def _write_shards(folder: Path, records: list[ImageRecord], image: bytes, num_shards: int) -> None:
    """Write `num_shards` shards that all hold the same samples: reading them costs what different ones would."""
    first = ShardName("train", 0)
    writer = ShardWriter(first, folder, "bench")
    for record in records:
        offset, size = writer.add_sample(record, image, "jpg")
        for row in _rows(record, tar_offset=offset, tar_size=size, shard=str(first)):
            writer.add_row(row)
    files = {name: file.path.rename(folder / name) for name, file in writer.finish().items()}
    marker = _marker(writer, files)
    for number in range(num_shards):
        shard = ShardName("train", number)
        for name, copy in ((first.tar, shard.tar), (first.parquet, shard.parquet)):
            if copy != name:
                shutil.copyfile(folder / name, folder / copy)
        (folder / shard.marker).write_bytes(encode(msgspec.structs.replace(marker, shard=str(shard))))


def _marker(writer: ShardWriter, files: dict[str, Path]) -> ShardMarker:
    digests = {}
    for path in files.values():
        content = path.read_bytes()
        digests[path.suffix] = {"sha256": sha256(content), "size": len(content)}
    fields = {
        "schema_version": "1",
        "shard": str(writer.shard),
        "fingerprint": "0" * 64,
        "images": msgspec.to_builtins(writer.images),
        "regions": msgspec.to_builtins(writer.regions),
        "tar": digests[".tar"],
        "parquet": digests[".parquet"],
        "sources": [],
        "provenance": {},
    }
    return msgspec.convert(fields, ShardMarker)


def _rows(record: ImageRecord, **image: Any) -> list[RegionRow]:
    image |= {"key": record.key, "width": record.width, "height": record.height, "status": Status.OK}
    rows = [RegionRow(**image, image_caption=record.image_caption)]
    for region in record.regions:
        fields = msgspec.structs.asdict(region)
        corners = dict(zip(("x0", "y0", "x1", "y1"), fields.pop("box"), strict=True))
        fields |= {"region_id": fields.pop("id"), "text_sha256": text_sha256(region.caption)}
        rows.append(RegionRow(**image, **corners, **fields))
    return rows


def _codec_ways(records: list[ImageRecord], repeats: int) -> dict[str, Callable[[], object]]:
    """Return the ways to encode or decode the records `repeats` times over, after checking that they agree."""
    encoded = [encode(record) for record in records]
    plain = [_plain_decode(data) for data in encoded]
    assert [_plain_encode(record) for record in plain] == encoded, "both ways must write the same bytes"

    def over(way: Callable[[Any], object], items: list[Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repeats):
                for item in items:
                    way(item)

        return run

    return {
        "encode ours": over(encode, records),
        "encode json": over(_plain_encode, plain),
        "decode ours": over(lambda data: decode_image_record(data, "bench"), encoded),
        "decode json": over(_plain_decode, encoded),
    }


def _scan_tars(dataset: Dataset) -> int:
    """Return the number of boxes and captions found by decoding the record of each sample."""
    found = 0
    for shard in dataset.shards:
        for sample in dataset.samples(shard):
            found += len([(region.box, region.caption) for region in sample.record.regions])
    return found


def _reading_ways(dataset: Dataset, num_regions: int) -> dict[str, Callable[[], object]]:
    def drain(columns: list[str] | None) -> int:
        return sum(batch.num_rows for batch in dataset.region_batches(columns))

    num_rows = num_regions + num_regions // _NUM_REGIONS
    assert (drain(_COLUMNS), drain(None), _scan_tars(dataset)) == (num_rows, num_rows, num_regions)
    return {
        "projected": lambda: drain(_COLUMNS),
        "all columns": lambda: drain(None),
        "tar scan": lambda: _scan_tars(dataset),
    }


def _report_rows(seconds: dict[str, list[float]]) -> list[Row]:
    return [
        Row(name="encode: json and dataclasses", seconds=seconds["encode json"]),
        Row(name="encode: schemas.records", seconds=seconds["encode ours"], against=seconds["encode json"]),
        Row(name="decode: json and dataclasses", seconds=seconds["decode json"]),
        Row(name="decode: schemas.records", seconds=seconds["decode ours"], against=seconds["decode json"]),
        Row(name="read: every record of the tars", seconds=seconds["tar scan"]),
        Row(name="read: all columns", seconds=seconds["all columns"], against=seconds["tar scan"]),
        Row(name="read: boxes and captions", seconds=seconds["projected"], against=seconds["tar scan"]),
    ]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=200_000, help="rounded up to whole shards of 40,000")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write the shards")
    arguments = parser.parse_args()
    num_shards = math.ceil(arguments.regions / (_IMAGES_PER_SHARD * _NUM_REGIONS))
    num_regions = num_shards * _IMAGES_PER_SHARD * _NUM_REGIONS
    image = np.random.default_rng(0).bytes(_IMAGE_BYTES)
    records = [_record(index, image) for index in range(_IMAGES_PER_SHARD)]
    with tempfile.TemporaryDirectory(prefix="fineclip-bench-", dir=arguments.folder) as folder:
        _write_shards(Path(folder), records, image, num_shards)
        reading = _reading_ways(Dataset.open(folder), num_regions)
        seconds = measure(reading | _codec_ways(records, num_shards), arguments.runs)
    rows = _report_rows(seconds)
    factor = _FULL_SIZE / num_regions
    extrapolated = {row.name: round(float(np.median(row.seconds)) * factor, 1) for row in rows}
    report(
        f"Records and tables of {num_regions:,} regions ({_NUM_REGIONS} an image)",
        rows,
        {
            "num_regions": num_regions,
            "runs": arguments.runs,
            f"seconds for {_FULL_SIZE:,} regions, extrapolated linearly and not measured": extrapolated,
        },
    )


if __name__ == "__main__":
    main()
