"""`official`: the JSON files and images that FineCLIP's own training code reads, a folder for each split.

    train/images/KEY.jpg
    train/coco_proposals.json     images and boxes, as COCO says them
    train/coco_captions.json      {"KEY.jpg_X_Y_W_H.jpg": caption}, X, Y, W, H cut to whole pixels
    train/captions.json           captions of images, as COCO says them
    category_embeddings.npy       with `--embeddings`: a row a category, for the RegionCLIP baseline

That code fails, or learns from an empty text, on what it does not find. So these are left out, and counted: images
without a caption; boxes that, cut to whole pixels, are another box with another caption; and images none of whose boxes
it would draw.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from pipeline.export.class_embeddings import embed_classes
from pipeline.export.coco import annotation_of, captions_of
from pipeline.export.join import Join, with_commas, write_line
from pipeline.export.nouns import noun_of
from pipeline.export.part import Part
from pipeline.export.survey import UNLABELLED, Survey
from schemas.dataset import Sample
from schemas.records import ImageRecord, Region

_IMAGES, _BOXES, _TEXTS, _CAPTIONS = "images.jsonl", "boxes.jsonl", "texts.jsonl", "captions.jsonl"
_SMALLEST_SIDE, _LARGEST_SIDE = 8, 1024
"""Boxes whose area is not between the squares of these are passed over by the official code."""

EMBEDDINGS = "category_embeddings.npy"
NO_CAPTION = "images without a caption"
NO_BOX = f"images without a box of {_SMALLEST_SIDE}^2 to {_LARGEST_SIDE}^2 pixels"
OF_LEFT_OUT = "regions of images that are left out"
COLLIDING = "regions that are another one with another caption when cut to whole pixels"


@dataclass(frozen=True)
class Official:
    """Ids are counted from 1; a label is a category, which the RegionCLIP baseline reads."""

    embeddings: str | None = None
    """The CLIP whose text tower the categories are embedded by: a hub id, a folder in open_clip's layout, or `mini`."""
    nouns: tuple[str, ...] = ()
    """Categories of regions without a label, found in their captions."""

    def write(self, part: Part, samples: Iterator[Sample]) -> None:
        """Write a shard's images, and lines of the three files."""
        images, boxes, texts, captions = map(part.open_lines, (_IMAGES, _BOXES, _TEXTS, _CAPTIONS))
        places = {name: number for number, name in enumerate(self._categories(part.survey), 1)}
        image_id, box_id = part.survey.first_image[part.shard], part.survey.first_region[part.shard]
        for sample in samples:
            image_id += 1
            record, why_not = sample.record, _why_not(sample.record)
            if why_not is not None:
                part.counts.leave_out(why_not)
                part.counts.leave_out(OF_LEFT_OUT, record.num_regions)
                continue
            name = part.add_image(sample, f"{part.shard.split}/images")
            write_line(images, {"id": image_id, "file_name": name, "width": record.width, "height": record.height})
            chosen: dict[str, str] = {}
            for region in record.regions:
                key = caption_key(name, region)
                if chosen.get(key, region.caption) != region.caption:
                    part.counts.leave_out(COLLIDING)
                    continue
                if key not in chosen:
                    texts.write(msgspec.json.encode(key) + b":" + msgspec.json.encode(region.caption) + b"\n")
                chosen[key] = region.caption
                box_id += 1
                number = places[self._category(region)]
                box = annotation_of(region.box, record, category_id=number, mask_rle=None)
                write_line(boxes, {"id": box_id, "image_id": image_id, **box, "iscrowd": 0})
                part.counts.regions += 1
            for caption in captions_of(record):
                write_line(captions, {"image_id": image_id, "caption": caption})
            part.counts.images += 1

    def join(self, join: Join) -> None:
        """Write the three files of each split, and the embeddings of the categories."""
        names = self._categories(join.survey)
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        head = b'{"categories":' + msgspec.json.encode(categories) + b","
        for split in join.splits:
            join.write(f"{split}/coco_proposals.json", _file(head, join, split, _BOXES))
            join.write(f"{split}/captions.json", _file(b"{", join, split, _CAPTIONS))
            join.write(f"{split}/coco_captions.json", _object(join.lines(split, _TEXTS)))
        if self.embeddings is not None:
            join.write(EMBEDDINGS, iter([embed_classes(self.embeddings, names)]))

    def _categories(self, survey: Survey) -> list[str]:
        """Return all categories in the order of their ids: each label and each noun, whether a region has it or not."""
        return sorted({*survey.labels, *self.nouns})

    def _category(self, region: Region) -> str:
        return region.label or noun_of(region.caption, self.nouns) or UNLABELLED


def caption_key(file_name: str, region: Region) -> str:
    """Return the key of a region's caption."""
    x0, y0, x1, y1 = region.box
    return f"{file_name}_{int(x0)}_{int(y0)}_{int(x1 - x0)}_{int(y1 - y0)}.jpg"


def _why_not(record: ImageRecord) -> str | None:
    """Return why the official code could not learn from an image, or None."""
    if record.image_caption is None:
        return NO_CAPTION
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (region.box for region in record.regions)]
    drawn = any(_SMALLEST_SIDE**2 <= area <= _LARGEST_SIDE**2 for area in areas)
    return None if drawn else NO_BOX


def _file(head: bytes, join: Join, split: str, annotations: str) -> Iterator[bytes]:
    yield head + b'"images":['
    yield from with_commas(join.lines(split, _IMAGES))
    yield b'],\n"annotations":['
    if annotations == _CAPTIONS:
        lines = (b'{"id":%d,' % number + line[1:] for number, line in enumerate(join.lines(split, annotations), 1))
    else:
        lines = (line for line in join.lines(split, annotations))
    yield from with_commas(lines)
    yield b"]}\n"


def _object(members: Iterator[bytes]) -> Iterator[bytes]:
    yield b"{"
    yield from with_commas(members)
    yield b"}\n"
