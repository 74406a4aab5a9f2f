"""Classifying features by the names of classes, which are the distinct names that the data has."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from trainer.errors import TrainingError
from trainer.evaluate.metrics import classification
from trainer.evaluate.texts import TextEncoder

What = Literal["region", "image"]
_NAMED = {
    "region": ("label", "annotate with a proposer that names classes, or take --task region-retrieval"),
    "image": ("caption", "take images whose captions are their class names, or --task retrieval"),
}


def distinct_names(names: pa.ChunkedArray, what: What) -> list[str]:
    """Return the distinct names, sorted. Raises TrainingError where there are not two: any model would be right."""
    classes = sorted(pc.unique(names).drop_null().to_pylist())
    if not classes:
        raise TrainingError(f"no {what} of the data has a class name: there is nothing to classify")
    if len(classes) == 1:
        named, remedy = _NAMED[what]
        raise TrainingError(
            f"every {what} of the data has the same {named}, {classes[0]!r}, so any model would classify all of them "
            f"right: {remedy}"
        )
    return classes


def classify(features: Tensor, names: pa.ChunkedArray, encoder: TextEncoder, what: What) -> Iterator[tuple[str, float]]:
    """Yield accuracies, and what guessing would reach, of rows `[N, D]` by name; rows without a name are left out."""
    classes = distinct_names(names, what)
    named = pc.is_valid(names).to_numpy()
    at = pc.index_in(names.drop_null(), value_set=pa.array(classes)).to_numpy()
    labels = torch.from_numpy(at.astype(np.int64))
    similarities = features[torch.from_numpy(named)] @ encoder.class_names(classes).T
    yield from classification(similarities, labels, what).items()
    yield f"num_{what}s", float(len(labels))
    yield "num_classes", float(len(classes))
