"""`--task regions`: boxes and masks against class names."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.evaluate.classes import class_labels, class_names
from trainer.evaluate.embed import Embedded
from trainer.evaluate.metrics import Ints, Metric, classification
from trainer.evaluate.texts import TextEncoder
from trainer.evaluate.truth import Truth

USES_REGIONS = True


def check(truth: Truth) -> None:
    """Raise TrainingError where the data has nothing to classify."""
    class_names(truth.labels, truth.classes, "region")


def measure(
    features: Tensor,
    class_features: Tensor,
    labels: Ints,
    images: Ints,
    is_thing: npt.NDArray[np.bool_] | None,
) -> Iterator[Metric]:
    """Yield `region_accuracy@k` over boxes and over classes, and the level of chance.

    `features` `[N, D]`, `class_features` `[C, D]`, `labels` and `images` `[N]`. Where `is_thing` `[N]` tells things
    from stuff, also `thing_...` and `stuff_...` of the one and of the other, each against all classes.
    """
    yield from classification(features, class_features, torch.from_numpy(labels), images, "region")
    yield "num_regions", float(len(labels))
    yield "num_classes", float(len(class_features))
    if is_thing is None or is_thing.all() or not is_thing.any():
        return
    for prefix, mine in (("thing", is_thing), ("stuff", ~is_thing)):
        own = torch.from_numpy(np.flatnonzero(mine))
        split = classification(features[own], class_features, torch.from_numpy(labels[mine]), images[mine], prefix)
        yield from ((name, value) for name, value in split if "chance" not in name)
        yield f"num_{prefix}s", float(mine.sum())


def run(embedded: Embedded, encoder: TextEncoder) -> Iterator[Metric]:
    """Yield what `measure` finds for the regions with a class."""
    truth, rows = embedded.truth, embedded.region
    classes = class_names(truth.labels, truth.classes, "region")
    labels = class_labels(truth.labels, classes)[rows.at]
    known = rows.having(np.flatnonzero(labels >= 0))
    is_thing = None if truth.is_thing is None else truth.is_thing[known.at]
    features = encoder.class_names(classes)
    yield from measure(known.features, features, labels[labels >= 0], truth.region_image[known.at], is_thing)
