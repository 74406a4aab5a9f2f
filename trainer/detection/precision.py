"""AP50 as COCO has it, by pycocotools: of each class, and its means over base, novel and all classes.

All classes compete together; up to 1,000 detections of an image count; boxes of crowds are neither hits nor misses.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from schemas.boxes import Boxes, area, xyxy_to_xywh
from trainer.detection.annotations import Bools
from trainer.evaluate.metrics import Ints

Floats = npt.NDArray[np.float64]
_MAX_DETECTIONS = [100, 300, 1000]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An image's true boxes and what was found in it, in one frame."""

    truth: Boxes
    """`[G, 4]` xyxy."""
    labels: Ints
    """`[G]`."""
    is_crowd: Bools
    """`[G]`."""
    found: Boxes
    """`[n, 4]` xyxy."""
    found_labels: Ints
    """`[n]`."""
    scores: npt.NDArray[np.float32]
    """`[n]`."""


def average_precision_50(images: Sequence[Judged], num_classes: int) -> Floats:
    """Return `[K]`: the average precision of each class at IoU 0.5; NaN for classes without a true box."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        truth += [
            _annotation(number, box, label) | {"iscrowd": int(crowd), "area": px, "ignore": 0}
            for box, label, crowd, px in zip(
                image.truth, image.labels, image.is_crowd, area(image.truth).tolist(), strict=True
            )
        ]
        found += [
            _annotation(number, box, label) | {"score": float(score), "area": px, "iscrowd": 0}
            for box, label, score, px in zip(
                image.found, image.found_labels, image.scores, area(image.found).tolist(), strict=True
            )
        ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells of its progress there
        evaluation = COCOeval(_coco(truth, len(images), num_classes), _coco(found, len(images), num_classes), "bbox")
        evaluation.params.maxDets = _MAX_DETECTIONS
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    by_class = evaluation.eval["precision"][0, :, :, 0, -1]  # [recalls, K]; -1 where there is no true box
    return np.array([column.mean() if (column > -1).all() else np.nan for column in by_class.T], dtype=np.float64)


def grouped(precisions: Floats, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the mean AP50 of each group of classes, and of `all`; NaN where no class of a group has a true box."""
    every = sorted({label for labels in groups.values() for label in labels})
    means = {}
    for name, labels in (*groups.items(), ("all", every)):
        values = precisions[list(labels)]
        values = values[~np.isnan(values)]
        means[f"{name}_AP50"] = float(values.mean()) if len(values) else float("nan")
    return means


def _annotation(image: int, box: npt.NDArray[np.float32], label: int) -> dict[str, Any]:
    return {"image_id": image, "category_id": int(label) + 1, "bbox": xyxy_to_xywh([box])[0].tolist()}


def _coco(annotations: list[dict[str, Any]], num_images: int, num_classes: int) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in range(1, num_images + 1)],
        "categories": [{"id": number} for number in range(1, num_classes + 1)],
        "annotations": [{"id": number, **one} for number, one in enumerate(annotations, 1)],
    }
    coco.createIndex()
    return coco
