"""Boxes of named things in a folder of images: a PNG of each image, and COCO's JSON of all.

`fineclip annotate 'coco:OUT/detections.json?images=DIR' DATA --proposer manual` makes regions of them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schemas.boxes import Boxes, as_boxes, clip, is_valid, xyxy_to_xywh
from trainer.data.decode import UnusableSampleError
from trainer.detection.canvas import fit
from trainer.detection.detector import Detector
from trainer.detection.settings import ScoreSettings
from trainer.errors import TrainingError
from trainer.evaluate.annotated import draw_boxes
from trainer.evaluate.metrics import Ints
from trainer.evaluate.pixels import decode_upright

DETECTIONS = "detections.json"
_NO_LABELS: Ints = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """How a prediction ended."""

    num_images: int
    num_boxes: int
    skipped: tuple[tuple[str, str], ...]
    """(file, why)."""


def predict(
    detector: Detector,
    files: Mapping[str, Path],
    names: Sequence[str],
    scores: ScoreSettings,
    out: Path,
    *,
    device: torch.device,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Predicted:
    """Write `NAME.png` for each image of `files`, with what was found, and `detections.json`, into `out`.

    Raises TrainingError where no image can be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    skipped: list[tuple[str, str]] = []
    for done, (name, file) in enumerate(files.items()):
        watch(done, len(files))
        try:
            pixels, _ = decode_upright(file.read_bytes())
        except (OSError, UnusableSampleError) as error:
            skipped.append((name, str(error)))
            continue
        canvas = fit(pixels, as_boxes([]), _NO_LABELS, detector.image_size)
        canvases = torch.from_numpy(canvas.pixels).permute(2, 0, 1)[None].to(device)
        (found,) = detector.detect(canvases, torch.tensor([canvas.size], device=device), scores)
        height, width = pixels.shape[:2]
        ratios = np.array(canvas.scale * 2, dtype=np.float32)
        boxes = clip((found.boxes.cpu().numpy() / ratios).astype(np.float32), width, height)
        seen = is_valid(boxes)
        boxes, labels, values = boxes[seen], found.labels.cpu().numpy()[seen], found.scores.cpu().numpy()[seen]
        said = [f"{names[label]} {score:.2f}" for label, score in zip(labels, values, strict=True)]
        picture = out / f"{name}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        draw_boxes(pixels, boxes, labels.tolist(), said).save(picture, "PNG")
        images.append({"id": len(images) + 1, "file_name": name, "width": width, "height": height})
        for box, label, score in zip(boxes, labels.tolist(), values.tolist(), strict=True):
            annotations.append(_annotation(len(annotations) + 1, len(images), box, label, score))
    watch(len(files), len(files))
    if not images:
        raise TrainingError(f"none of {len(files)} images can be used; the first, {skipped[0][0]}: {skipped[0][1]}")
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    written = {"images": images, "annotations": annotations, "categories": categories}
    (out / DETECTIONS).write_text(json.dumps(written) + "\n", encoding="utf-8")
    return Predicted(num_images=len(images), num_boxes=len(annotations), skipped=tuple(skipped))


def _annotation(number: int, image: int, box: Boxes, label: int, score: float) -> dict[str, Any]:
    x, y, width, height = xyxy_to_xywh([box])[0].tolist()
    return {
        "id": number,
        "image_id": image,
        "category_id": label + 1,
        "bbox": [x, y, width, height],
        "area": width * height,
        "iscrowd": 0,
        "score": score,
    }
