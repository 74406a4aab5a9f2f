"""`--task zeroshot`: images against class names, which are their (first) captions."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from trainer.evaluate.classes import class_labels, class_names
from trainer.evaluate.embed import Embedded
from trainer.evaluate.metrics import Ints, Metric, classification
from trainer.evaluate.texts import TextEncoder
from trainer.evaluate.truth import Truth

USES_REGIONS = False


def check(truth: Truth) -> None:
    """Raise TrainingError where the data has nothing to classify."""
    class_names(_names(truth), None, "image")


def measure(features: Tensor, class_features: Tensor, labels: Ints, images: Ints) -> Iterator[Metric]:
    """Yield `image_accuracy@k` over images and over classes, and the level of chance."""
    yield from classification(features, class_features, torch.from_numpy(labels), images, "image")
    yield "num_images", float(len(labels))
    yield "num_classes", float(len(class_features))


def run(embedded: Embedded, encoder: TextEncoder) -> Iterator[Metric]:
    """Yield what `measure` finds for the images with a caption."""
    names = _names(embedded.truth)
    classes = class_names(names, None, "image")
    labels = class_labels(names, classes)[embedded.image.at]
    known = embedded.image.having(np.flatnonzero(labels >= 0))
    yield from measure(known.features, encoder.class_names(classes), labels[labels >= 0], known.at)


def _names(truth: Truth) -> list[str | None]:
    start = truth.caption_start
    return [truth.captions[start[i]] if start[i + 1] > start[i] else None for i in range(len(truth.images))]
