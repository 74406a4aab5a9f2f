"""A picture of a data set for its card: a few images with numbered boxes, and their captions beside it as text."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageDraw

from schemas.dataset import Dataset, Sample
from schemas.hashes import key_fraction

_COLUMNS, _NUM_IMAGES, _CELL = 3, 6, 320
_MOST_BOXES = 5
_COLOURS = ("#d1353a", "#3e63dd", "#1c7c4e", "#c04d05", "#8e4ec6")
_QUALITY = 85


@dataclass(frozen=True, kw_only=True)
class Example:
    """The picture, a JPEG, and for each of its images, row by row, key and captions in the order of the numbers."""

    picture: bytes
    captions: list[tuple[str, list[str]]]


def make_example(dataset: Dataset) -> Example | None:
    """Return the picture of the images with the smallest hash among those with regions in the first shard that has any.

    None where no image has a region. Raises DatasetError.
    """
    for shard in dataset.shards:
        chosen = sorted(_with_captions(dataset.samples(shard)), key=lambda sample: key_fraction(sample.key, "card"))
        if chosen:
            return _draw(chosen[:_NUM_IMAGES])
    return None


def _with_captions(samples: Iterator[Sample]) -> Iterator[Sample]:
    return (sample for sample in samples if any(region.caption for region in sample.record.regions))


def _draw(samples: list[Sample]) -> Example:
    rows = -(-len(samples) // _COLUMNS)
    sheet = Image.new("RGB", (min(len(samples), _COLUMNS) * _CELL, rows * _CELL), "white")
    captions = []
    for number, sample in enumerate(samples):
        regions = [region for region in sample.record.regions if region.caption][:_MOST_BOXES]
        with Image.open(io.BytesIO(sample.image)) as opened:
            image = opened.convert("RGB")
        scale = (_CELL - 8) / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        pen = ImageDraw.Draw(image)
        for place, region in enumerate(regions):
            box = [edge * scale for edge in region.box]
            pen.rectangle(box, outline=_COLOURS[place], width=3)
            pen.rectangle((box[0], box[1], box[0] + 15, box[1] + 15), fill=_COLOURS[place])
            pen.text((box[0] + 5, box[1] + 2), str(place + 1), fill="white")
        row, column = divmod(number, _COLUMNS)
        sheet.paste(image, (column * _CELL + 4, row * _CELL + 4))
        captions.append((sample.key, [str(region.caption) for region in regions]))
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=_QUALITY)
    return Example(picture=file.getvalue(), captions=captions)
