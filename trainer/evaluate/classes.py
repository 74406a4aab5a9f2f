"""The classes of a truth, and which of them its rows are."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from trainer.errors import TrainingError
from trainer.evaluate.metrics import Ints
from trainer.evaluate.truth import Truth

What = Literal["region", "image"]
_NAMED = {
    "region": ("label", "annotate with a proposer that names classes, or take --task region-retrieval"),
    "image": ("caption", "take images whose captions are their class names, or --task retrieval"),
}


def class_names(names: Sequence[str | None], classes: Sequence[str] | None, what: What) -> list[str]:
    """Return the classes: those given, or the distinct names, sorted.

    Raises TrainingError where there are not two: any model would be right.
    """
    distinct = {name for name in names if name is not None}
    found = sorted(distinct) if classes is None else list(classes)
    if not distinct & set(found):
        raise TrainingError(f"no {what} of the data has a class name: there is nothing to classify")
    if len(found) == 1:
        named, remedy = _NAMED[what]
        raise TrainingError(
            f"every {what} of the data has the same {named}, {found[0]!r}, so any model would classify all of them "
            f"right: {remedy}" + ("; or give --classes FILE" if what == "region" else "")
        )
    return found


def class_labels(names: Sequence[str | None], classes: Sequence[str]) -> Ints:
    """Return `[N]`: which of the classes each name is; -1 for none."""
    place = {name: at for at, name in enumerate(classes)}
    return np.array([-1 if name is None else place.get(name, -1) for name in names], dtype=np.int64)


class ClassList(NamedTuple):
    """Classes as a file gives them."""

    names: list[str]
    spoken: dict[str, str]
    """What sentences say for a name, where it is not the name."""


def read_classes(path: str) -> ClassList:
    """Return the classes of a file, one a line: the name, and after a tab what sentences say. Raises TrainingError."""
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"--classes {path}: {error}") from error
    split = [tuple(part.strip() for part in line.split("\t", 1)) for line in lines]
    names = [parts[0] for parts in split]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or len(names) < 2:
        wrong = f"{twice[0]!r} is there twice" if twice else "it names fewer than two classes"
        raise TrainingError(f"--classes {path}: {wrong}")
    return ClassList(names, {parts[0]: parts[1] for parts in split if len(parts) == 2})


def read_class_features(path: str, classes: Sequence[str]) -> dict[str, Tensor]:
    """Return the features `[D]` of each class from a .npy file `[C, D]`, normalised. Raises TrainingError."""
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise TrainingError(f"--class-features {path}: {error}") from error
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
        raise TrainingError(f"--class-features {path}: it is no array of finite numbers, C x D, in a .npy file")
    if rows.ndim != 2 or len(rows) != len(classes):
        shape = " x ".join(map(str, rows.shape))
        raise TrainingError(
            f"--class-features {path}: {shape} numbers, where there are {len(classes)} classes: give C x D"
        )
    features = normalize(torch.from_numpy(rows.astype(np.float32)))
    return dict(zip(classes, features, strict=True))


def with_classes(truth: Truth, classes: ClassList) -> Truth:
    """Return a truth whose classes are those of a file; regions of other labels are counted and not measured."""
    known = set(classes.names)
    others = sum(label is not None and label not in known for label in truth.labels)
    left_out = truth.left_out | ({"label that is none of --classes": others} if others else {})
    return dataclasses.replace(truth, classes=classes.names, left_out=left_out)
