"""Scores boxes and captions against the truth of scenes. Needs no model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.scenes.words import Attributes, parse_region_caption
from schemas.boxes import Boxes, iou

_ASPECTS: dict[str, tuple[str, ...]] = {
    "size": ("size",),
    "colour": ("colour",),
    "texture": ("texture",),
    "shape": ("shape",),
    "shape_colour_size": ("shape", "colour", "size"),
    "all": ("size", "colour", "texture", "shape"),
}


@dataclass(frozen=True, kw_only=True)
class BoxFigures:
    """How well found boxes cover the objects of some scenes."""

    num_objects: int
    num_boxes: int
    """Found."""
    num_recalled: int
    """Objects that have a found box of their own at the IoU asked for."""

    @property
    def recall(self) -> float:
        """Share of the objects found; 1 where there are none."""
        return self.num_recalled / self.num_objects if self.num_objects else 1.0

    @property
    def boxes_per_object(self) -> float:
        """Found boxes per object; infinite for boxes without any object."""
        return self.num_boxes / self.num_objects if self.num_objects else float("inf")


def score_boxes(truth: Sequence[Boxes], found: Sequence[Boxes], *, min_iou: float = 0.5) -> BoxFigures:
    """Compare each image's found boxes with its true ones: `[R, 4]` xyxy in one frame."""
    return BoxFigures(
        num_objects=sum(map(len, truth)),
        num_boxes=sum(map(len, found)),
        num_recalled=sum(len(match(t, f, min_iou=min_iou)) for t, f in zip(truth, found, strict=True)),
    )


def match(truth: Boxes, found: Boxes, *, min_iou: float = 0.5) -> list[tuple[int, int]]:
    """Return pairs (true, found) of one image, highest IoU first; each box is in one pair at most."""
    overlaps = iou(truth, found)
    order = np.argsort(-overlaps, axis=None, kind="stable")
    pairs: list[tuple[int, int]] = []
    for i, j in zip(*np.unravel_index(order, overlaps.shape), strict=True):
        if overlaps[i, j] < min_iou:
            break
        if all(i != used_i and j != used_j for used_i, used_j in pairs):
            pairs.append((int(i), int(j)))
    return pairs


def score_captions(captions: Sequence[str], truth: Sequence[Attributes]) -> dict[str, float]:
    """Return the share of captions right in each aspect: each attribute, shape, colour and size together, and all.

    A caption that does not follow the grammar is wrong in every aspect. Raises ValueError where there are none.
    """
    if not captions:
        raise ValueError("no captions to score")
    parsed = [parse_region_caption(caption) for caption in captions]
    return {
        aspect: sum(
            said is not None and all(getattr(said, name) == getattr(true, name) for name in names)
            for said, true in zip(parsed, truth, strict=True)
        )
        / len(captions)
        for aspect, names in _ASPECTS.items()
    }
