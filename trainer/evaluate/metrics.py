"""Metrics of classification and retrieval, as pure functions of similarities; a metric keeps what each row scored."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.errors import TrainingError

Ints = npt.NDArray[np.int64]

_QUERIES = 1024
"""Rows of similarities in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A metric before its mean."""

    hits: npt.NDArray[np.float64]
    """`[N]`: what each row scored, 0 or 1."""
    images: Ints
    """`[N]`: the image that each row is of: rows of one image are not independent."""
    classes: Ints | None = None
    """`[N]`: of each row, where the metric is the mean over classes; None for the mean over rows."""

    @property
    def value(self) -> float:
        """The metric, in 0..1; NaN without rows."""
        if not len(self.hits):
            return float("nan")
        if self.classes is None:
            return float(self.hits.mean())
        _, at, counts = np.unique(self.classes, return_inverse=True, return_counts=True)
        return float((np.bincount(at, weights=self.hits) / counts).mean())


Metric = tuple[str, Scores | float]
"""Name, and what came out: scores of rows, or a number such as a count."""


def finite(features: Tensor, what: str) -> Tensor:
    """Return features `[N, D]`. Raises TrainingError where some are no numbers: such a model cannot be measured."""
    wrong = int((~features.isfinite().all(dim=1)).sum())
    if wrong:
        raise TrainingError(
            f"the features of {wrong} of {len(features)} {what} are no finite numbers: the model's weights are "
            "not, or are so large that its activations overflow; take an earlier checkpoint"
        )
    return features


def accuracy_at(similarities: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return `[N]` bool: whether the right class is among each row's k most similar.

    `similarities` `[N, C]`, `labels` `[N]` int64. A class as similar as the right one counts as more similar, and so
    does what is no number.
    """
    right = similarities.gather(1, labels[:, None])
    others = (~(similarities < right)).sum(dim=1) - 1
    return others < k


def recall_at(similarities: Tensor, matches: Tensor, k: int) -> Tensor:
    """Return `[N]` bool: whether any match is among each row's k most similar columns.

    `similarities` `[N, M]`, `matches` `[N, M]` bool. A column that does not match, and is as similar as the best match
    or is no number, counts as more similar. A row without a match is never a hit.
    """
    best = similarities.masked_fill(~matches, -torch.inf).max(dim=1, keepdim=True).values
    worse_than = (~(similarities < best) & ~matches).sum(dim=1)
    return (worse_than < k) & matches.any(dim=1)


def recalls(
    queries: Tensor, keys: Tensor, matches_of: Callable[[slice], Tensor], ks: Sequence[int] = (1, 5, 10)
) -> dict[int, npt.NDArray[np.float64]]:
    """Return by k, for each of the queries `[N, D]`, 1 where a match is among its k most similar keys `[M, D]`, else 0.

    `matches_of` a slice of queries are `[n, M]` bool.
    """
    hits: dict[int, list[Tensor]] = {k: [] for k in ks}
    for first in range(0, len(queries), _QUERIES):
        rows = slice(first, min(first + _QUERIES, len(queries)))
        similarities, matches = queries[rows] @ keys.T, matches_of(rows)
        for k in ks:
            hits[k].append(recall_at(similarities, matches, k))
    return {k: torch.cat(parts).double().numpy() for k, parts in hits.items()}


def classification(
    features: Tensor, class_features: Tensor, labels: Tensor, images: Ints, prefix: str, ks: Sequence[int] = (1, 5)
) -> Iterator[Metric]:
    """Yield `PREFIX_accuracy@k` over rows and `PREFIX_mean_class_accuracy@k` over the classes that rows have.

    `features` `[N, D]`, `class_features` `[C, D]`, `labels` `[N]` int64, `images` `[N]`. `PREFIX_chance@k` is what both
    come to, on average, for a guess of k of the C classes.
    """
    portions = range(0, len(features), _QUERIES)
    for k in ks:
        parts = [
            accuracy_at(features[first : first + _QUERIES] @ class_features.T, labels[first : first + _QUERIES], k)
            for first in portions
        ]
        hits = torch.cat(parts).double().numpy() if parts else np.zeros(0)
        yield f"{prefix}_accuracy@{k}", Scores(hits=hits, images=images)
        yield f"{prefix}_mean_class_accuracy@{k}", Scores(hits=hits, images=images, classes=labels.numpy())
        yield f"{prefix}_chance@{k}", min(k / len(class_features), 1.0)
