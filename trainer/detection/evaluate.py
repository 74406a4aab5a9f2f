"""A detector's boxes on a data set, and how precise they are."""

from collections.abc import Sequence

import numpy as np
import torch

from trainer.data.batches import load_in_order
from trainer.detection.annotations import DetectionData
from trainer.detection.batches import CanvasBatch, MeasuredCanvases
from trainer.detection.detector import Detections, Detector
from trainer.detection.precision import Judged, average_precision_50, grouped
from trainer.detection.settings import ScoreSettings
from trainer.evaluate.class_figures import Figures, Watch, check_read
from trainer.evaluate.class_split import ClassSplit


def evaluate_detector(
    detector: Detector,
    data: DetectionData,
    split: ClassSplit,
    scores: ScoreSettings,
    *,
    device: torch.device,
    batch_size: int,
    workers: int,
    watch: Watch = lambda done, total: None,
) -> Figures:
    """Return AP50 of the groups of classes. Raises TrainingError where no image can be read."""
    judged: list[Judged] = []
    skipped: list[tuple[str, str]] = []
    batches = MeasuredCanvases(data, side=detector.image_size, batch_size=batch_size)
    for batch in load_in_order(batches, range(len(batches)), workers):
        skipped += batch.skipped
        if batch.keys:
            found = detector.detect(batch.canvases.to(device), batch.sizes.to(device), scores)
            judged += judge(batch, found)
        watch(len(judged) + len(skipped), len(data))
    check_read(len(judged), skipped)
    precisions = average_precision_50(judged, len(data.classes))
    return Figures(
        metrics={**grouped(precisions, groups_of(data.classes, split)), **counts(data, split, len(judged))},
        by_class=dict(zip(data.classes, precisions.tolist(), strict=True)),
        skipped=tuple(skipped),
    )


def judge(batch: CanvasBatch, found: Sequence[Detections]) -> list[Judged]:
    """Return each image of a batch with what was found in it, in pixels of the image."""
    judged = []
    for image, scale, mine in zip(batch.images, batch.scales, found, strict=True):
        ratios = np.array(scale * 2, dtype=np.float32)
        judged.append(
            Judged(
                truth=image.boxes,
                labels=image.labels,
                is_crowd=image.is_crowd,
                found=(mine.boxes.cpu().numpy() / ratios).astype(np.float32),
                found_labels=mine.labels.cpu().numpy(),
                scores=mine.scores.cpu().numpy(),
            )
        )
    return judged


def groups_of(classes: Sequence[str], split: ClassSplit) -> dict[str, list[int]]:
    """Return the places of each group's classes."""
    return {group: [classes.index(name) for name in names] for group, names in split.groups.items()}


def counts(data: DetectionData, split: ClassSplit, num_images: int) -> dict[str, float]:
    """Return how many images and boxes were measured, crowds not counted."""
    labels = data.labels[~data.is_crowd]
    boxes = {
        f"num_{name}_boxes": float(np.isin(labels, places).sum())
        for name, places in groups_of(data.classes, split).items()
    }
    return {"num_images": float(num_images), **boxes}
