"""A segmenter's masks of a data set, and how well they lie on the truth."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from trainer.data.batches import load_in_order
from trainer.data.decode import Pixels
from trainer.errors import TrainingError
from trainer.evaluate.class_figures import Figures, Watch, check_read
from trainer.evaluate.metrics import Ints
from trainer.segmentation.batches import MeasuredImages
from trainer.segmentation.data import SegmentData
from trainer.segmentation.miou import confusion, ious, summarise
from trainer.segmentation.segmenter import Segmenter
from trainer.segmentation.settings import ViewSettings
from trainer.segmentation.views import corners

_TEXTS = 256
"""Names embedded at a time."""


def evaluate_segmenter(
    segmenter: Segmenter,
    data: SegmentData,
    views: ViewSettings,
    *,
    workers: int,
    watch: Watch = lambda done, total: None,
) -> Figures:
    """Return the mean IoU of the groups of classes. Raises TrainingError where nothing can be measured."""
    corners(views, segmenter.inputs.crop_px)
    texts = embed_names(segmenter, data.classes)

    def label(pixels: Pixels) -> Ints:
        return segmenter.probabilities(pixels, texts, views).argmax(dim=0).cpu().numpy()

    return measured(data, label, workers=workers, watch=watch)


@torch.no_grad()
def embed_names(segmenter: Segmenter, names: Sequence[str]) -> Tensor:
    """Return features `[T, D]` of class names, on the segmenter's device."""
    return torch.cat([segmenter.texts(some) for some in segmenter.sentences(names).split(_TEXTS)])


def measured(
    data: SegmentData, label: Callable[[Pixels], Ints], *, workers: int, watch: Watch = lambda done, total: None
) -> Figures:
    """Return the figures of what `label` says of each image's pixels. Raises TrainingError if there is nothing."""
    num_classes = len(data.classes)
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    skipped: list[tuple[str, str]] = []
    num_images = 0
    images = MeasuredImages(data)
    for image in load_in_order(images, range(len(images)), workers):
        if image.pixels is None or image.labels is None:
            skipped.append((image.key, image.why))
        else:
            counts += confusion(image.labels, label(image.pixels), num_classes)
            num_images += 1
        watch(num_images + len(skipped), len(data))
    check_read(num_images, skipped)
    if not counts.sum():
        raise TrainingError(f"{data.where}: no pixel of {num_images} images has a class: nothing is left to measure")
    by_class = ious(counts)
    by_class[counts.sum(axis=1) == 0] = np.nan
    return Figures(
        metrics={
            **summarise(counts, data.groups),
            "num_images": float(num_images),
            "num_classes_in_truth": float((counts.sum(axis=1) > 0).sum()),
        },
        by_class=dict(zip(data.classes, by_class.tolist(), strict=True)),
        skipped=tuple(skipped),
    )
