"""Boxes of named things in a folder of images: a PNG of each image, and COCO's JSON of all.

`fineclip annotate 'coco:OUT/detections.json?images=DIR' DATA --proposer manual` makes regions of them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from schemas.boxes import as_boxes, clip, is_valid, xyxy_to_xywh
from trainer.detection.canvas import fit
from trainer.detection.detector import Detector
from trainer.detection.settings import ScoreSettings
from trainer.evaluate.annotated import draw_boxes
from trainer.evaluate.metrics import Ints
from trainer.evaluate.predictions import Predicted, Predictions

DETECTIONS = "detections.json"
_NO_LABELS: Ints = np.zeros(0, dtype=np.int64)


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
    predictions = Predictions(out, names)
    for name, pixels in predictions.read(files, watch):
        canvas = fit(pixels, as_boxes([]), _NO_LABELS, detector.image_size)
        canvases = torch.from_numpy(canvas.pixels).permute(2, 0, 1)[None].to(device)
        (found,) = detector.detect(canvases, torch.tensor([canvas.size], device=device), scores)
        height, width = pixels.shape[:2]
        ratios = np.array(canvas.scale * 2, dtype=np.float32)
        boxes = clip((found.boxes.cpu().numpy() / ratios).astype(np.float32), width, height)
        seen = is_valid(boxes)
        boxes, labels, values = boxes[seen], found.labels.cpu().numpy()[seen], found.scores.cpu().numpy()[seen]
        said = [f"{names[label]} {score:.2f}" for label, score in zip(labels, values, strict=True)]
        predictions.add_image(name, draw_boxes(pixels, boxes, labels.tolist(), said), width=width, height=height)
        for box, label, score in zip(xyxy_to_xywh(boxes).tolist(), labels.tolist(), values.tolist(), strict=True):
            predictions.add(label, score, bbox=box, area=box[2] * box[3])
    return predictions.write(DETECTIONS)
