"""The mean intersection over union, from one confusion matrix of all pixels.

A class that was predicted and is nowhere in the truth counts 0 in the mean over classes of truth or prediction, the
older of detectron2's two formulas, and nothing in the mean over classes of the truth, today's.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from trainer.evaluate.metrics import Ints

Floats = npt.NDArray[np.float64]


def confusion(truth: Ints, predicted: Ints, num_classes: int) -> Ints:
    """Return `[T, T]`: pixels of each true class (row) by what was predicted; pixels below 0 in `truth` are dropped."""
    known = truth >= 0
    pairs = truth[known] * num_classes + predicted[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def ious(counts: Ints) -> Floats:
    """Return `[T]`: intersection by union of each class; NaN where neither truth nor prediction has it."""
    union = counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal()
    found: Floats = np.full(len(counts), np.nan)
    np.divide(counts.diagonal(), union, out=found, where=union > 0)
    return found


def summarise(counts: Ints, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the metrics of a confusion matrix: of each group of classes, and of all.

    `GROUP_mIoU` is the mean over its classes that the truth has, `GROUP_mIoU_predicted` over those that truth or
    prediction have; `pixel_accuracy` and `mean_class_accuracy` are of all classes.
    """
    by_class, true = ious(counts), counts.sum(axis=1)
    found = {}
    for name, places in groups.items():
        mine = np.asarray(places, dtype=np.int64)
        found[f"{name}_mIoU"] = _mean(by_class[mine][true[mine] > 0])
        found[f"{name}_mIoU_predicted"] = _mean(by_class[mine][~np.isnan(by_class[mine])])
    found["pixel_accuracy"] = float(counts.diagonal().sum() / counts.sum()) if counts.sum() else np.nan
    recalls = counts.diagonal()[true > 0] / true[true > 0]
    return {**found, "mean_class_accuracy": _mean(recalls)}


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
