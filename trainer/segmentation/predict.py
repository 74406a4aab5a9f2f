"""Masks of named things in a folder of images: a PNG of each image, and COCO's JSON of all.

`fineclip annotate 'coco:OUT/masks.json?images=DIR' DATA --proposer manual` makes regions of them, with their masks.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.coco import compress_runs
from trainer.evaluate.annotated import draw_masks
from trainer.evaluate.masks import Mask
from trainer.evaluate.metrics import Ints
from trainer.evaluate.predictions import Predicted, Predictions
from trainer.segmentation.evaluate import embed_names
from trainer.segmentation.mask_loss import NO_CLASS
from trainer.segmentation.segmenter import Segmenter
from trainer.segmentation.settings import MaskSettings, ViewSettings
from trainer.segmentation.views import corners

MASKS = "masks.json"


def predict(
    segmenter: Segmenter,
    files: Mapping[str, Path],
    names: Sequence[str],
    settings: MaskSettings,
    views: ViewSettings,
    out: Path,
    *,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Predicted:
    """Write `FILE.png` for each image of `files`, by their names, with what was found, and `masks.json`, into `out`.

    The background that the segmenter was trained with competes, and is not drawn. Raises TrainingError where no image
    can be read.
    """
    corners(views, segmenter.inputs.crop_px)
    predictions = Predictions(out, names)
    background = segmenter.inputs.background
    hidden = [background] if background is not None and background not in names else []
    texts = embed_names(segmenter, [*names, *hidden])
    for name, pixels in predictions.read(files, watch):
        likeliest, labels = segmenter.probabilities(pixels, texts, views).max(dim=0)
        scores = likeliest.cpu().numpy()
        found = labels.cpu().numpy()
        found[(scores < settings.threshold) | (found >= len(names))] = NO_CLASS
        height, width = found.shape
        predictions.add_image(name, draw_masks(pixels, found, names), width=width, height=height)
        for label in np.unique(found[found >= 0]).tolist():
            for mask in pieces(found == label, settings.min_area_px):
                predictions.add(label, float(scores[mask].mean()), **_shape(mask))
    return predictions.write(MASKS)


def pieces(mask: Mask, min_area_px: int) -> list[Mask]:
    """Return the connected parts of a mask, by sides and corners, of so many pixels; the upper left one first."""
    numbers = _components(mask)
    counts = np.bincount(numbers[mask], minlength=1)
    return [numbers == number for number in np.flatnonzero(counts >= min_area_px).tolist()]


def _components(mask: Mask) -> Ints:
    """Return the number of each pixel's part, from 0 in the order of their first pixels; -1 outside."""
    runs = [np.flatnonzero(np.diff(np.pad(row, 1).astype(np.int8))).reshape(-1, 2).tolist() for row in mask]
    parent: list[int] = []

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    before: list[tuple[int, int, int]] = []
    numbered: list[list[tuple[int, int, int]]] = []
    for row in runs:
        now = []
        for start, stop in row:
            number = len(parent)
            parent.append(number)
            for other_start, other_stop, other in before:
                if other_start <= stop and start <= other_stop:  # corners touch too
                    first, second = sorted((root(number), root(other)))
                    parent[second] = first
            now.append((start, stop, number))
        numbered.append(now)
        before = now
    order = {one: place for place, one in enumerate(sorted({root(number) for number in range(len(parent))}))}
    numbers = np.full(mask.shape, -1, dtype=np.int64)
    for y, row_runs in enumerate(numbered):
        for start, stop, number in row_runs:
            numbers[y, start:stop] = order[root(number)]
    return numbers


def run_lengths(mask: Mask) -> str:
    """Return a mask as the `counts` of COCO's compressed run lengths, which go down the columns."""
    changes = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False))
    ends: npt.NDArray[np.int64] = np.concatenate([[0], changes, [mask.size]])
    return compress_runs(np.diff(ends).tolist())


def _shape(mask: Mask) -> dict[str, Any]:
    """Return COCO's fields of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(mask.sum()),
        "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
    }
