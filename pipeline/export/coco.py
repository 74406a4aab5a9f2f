"""`coco`: images, an instances and a captions file for each split, as pycocotools and its many readers want them.

    images/train/KEY.jpg
    annotations/instances_train.json     boxes, labels, masks, crowds; the caption of a region is its `caption`
    annotations/captions_train.json      captions of images

Crowds, which no region is made of, come back from the shards' tables. Ids are the source's where all of them are whole
numbers that differ; otherwise both images and annotations are counted from 1.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow.compute as pc

from pipeline.export.join import Join, with_commas, write_line
from pipeline.export.part import Part
from schemas.coco import decompress_runs
from schemas.dataset import Sample
from schemas.reasons import Reason
from schemas.records import ImageRecord

_IMAGES, _INSTANCES, _CAPTIONS = "images.jsonl", "instances.jsonl", "captions.jsonl"
NO_BOX = "crowds whose box cannot be used"
_CROWD_COLUMNS = ["key", "region_id", "reason", "x0", "y0", "x1", "y1", "label", "source_id", "mask_rle"]


@dataclass(frozen=True)
class Coco:
    """Boxes stay as they are: multiples of 1/16 pixel, x, y, width, height of the stored image."""

    def write(self, part: Part, samples: Iterator[Sample]) -> None:
        """Write a shard's images, and lines of the two files."""
        crowds = _crowds(part)
        images, instances, captions = map(part.open_lines, (_IMAGES, _INSTANCES, _CAPTIONS))
        next_image, next_region = part.survey.first_image[part.shard] + 1, part.survey.first_region[part.shard] + 1
        for sample in samples:
            record = sample.record
            image_id = int(sample.key) if part.survey.keeps_image_ids else next_image
            next_image += 1
            name = part.add_image(sample, f"images/{part.shard.split}")
            write_line(images, _image(image_id, name, record))
            for annotation in [*_regions(part, record), *crowds.pop(sample.key, [])]:
                source_id = annotation.pop("source_id")
                number = int(source_id) if part.survey.keeps_region_ids else next_region
                next_region += 1
                write_line(instances, {"id": number, "image_id": image_id, **annotation})
                part.counts.regions += 1
            for caption in captions_of(record):
                write_line(captions, {"image_id": image_id, "caption": caption})
            part.counts.images += 1

    def join(self, join: Join) -> None:
        """Write the two files of each split."""
        for split in join.splits:
            head = b'{"info":{"description":"exported by fineclip"},"licenses":[],'
            categories = [
                {"id": number, "name": label, "supercategory": ""} for number, label in enumerate(join.survey.labels, 1)
            ]
            join.write(
                f"annotations/instances_{split}.json",
                _file(
                    head + b'"categories":' + msgspec.json.encode(categories) + b",",
                    join.lines(split, _IMAGES),
                    join.lines(split, _INSTANCES),
                ),
            )
            # a caption's id is its place: `{"image_id": ...` becomes `{"id": N, "image_id": ...`
            captions = (b'{"id":%d,' % number + line[1:] for number, line in enumerate(join.lines(split, _CAPTIONS), 1))
            join.write(f"annotations/captions_{split}.json", _file(head, join.lines(split, _IMAGES), captions))


def _file(head: bytes, images: Iterator[bytes], annotations: Iterator[bytes]) -> Iterator[bytes]:
    yield head + b'"images":['
    yield from with_commas(images)
    yield b'],\n"annotations":['
    yield from with_commas(annotations)
    yield b"]}\n"


def _image(image_id: int, name: str, record: ImageRecord) -> dict[str, Any]:
    known = {"coco_url": record.source.url, "source_license": record.source.license, "source": record.source.uri}
    stated = {field: value for field, value in known.items() if value is not None}
    return {"id": image_id, "file_name": name, "width": record.width, "height": record.height, **stated}


def _regions(part: Part, record: ImageRecord) -> Iterator[dict[str, Any]]:
    for region in record.regions:
        annotation = annotation_of(
            region.box, record, category_id=part.survey.label_number(region.label) + 1, mask_rle=region.mask_rle
        )
        extra = {"caption": region.caption, "score": region.proposal_score, "region_id": region.id}
        yield annotation | {"iscrowd": int(bool(region.is_crowd))} | extra | {"source_id": region.source_id}


def captions_of(record: ImageRecord) -> list[str]:
    """Return all captions of an image, of data sets too that were written when records had one alone."""
    return record.image_captions or ([] if record.image_caption is None else [record.image_caption])


def annotation_of(
    box: tuple[float, float, float, float],
    frame: ImageRecord | dict[str, int],
    *,
    category_id: int,
    mask_rle: str | None,
) -> dict[str, Any]:
    """Return what COCO says of a box, which is xyxy: `bbox`, `area`, and the mask where there is one."""
    x0, y0, x1, y1 = box
    annotation = {"category_id": category_id, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
    if mask_rle is None:
        return annotation
    height, width = (frame["height"], frame["width"]) if isinstance(frame, dict) else (frame.height, frame.width)
    area = float(sum(decompress_runs(mask_rle)[1::2]))
    return annotation | {"area": area, "segmentation": {"size": [height, width], "counts": mask_rle}}


def _crowds(part: Part) -> dict[str, list[dict[str, Any]]]:
    """Return the shard's crowds by key of their image: in the table alone, since no region is made of them."""
    rows = part.dataset.regions([*_CROWD_COLUMNS, "width", "height"], [part.shard])
    rows = rows.filter(pc.equal(rows["reason"], Reason.CROWD.value))
    crowds = defaultdict(list)
    for row in rows.to_pylist():
        box = (row["x0"], row["y0"], row["x1"], row["y1"])
        if not all(corner is not None and math.isfinite(corner) for corner in box):
            part.counts.leave_out(NO_BOX)
            continue
        number = part.survey.label_number(row["label"]) + 1
        annotation = annotation_of(box, row, category_id=number, mask_rle=row["mask_rle"])
        crowds[row["key"]].append(
            annotation | {"iscrowd": 1, "region_id": row["region_id"], "source_id": row["source_id"]}
        )
    return dict(crowds)
