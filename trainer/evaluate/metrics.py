"""Metrics of classification and retrieval, as pure functions of similarities."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_QUERIES = 1024
"""Rows of similarities in memory at a time."""


def accuracy_at(similarities: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return `[N]` bool: whether the right class is among each row's k most similar.

    `similarities` `[N, C]`, `labels` `[N]` int64. A class as similar as the right one counts as more similar.
    """
    right = similarities.gather(1, labels[:, None])
    others = (similarities >= right).sum(dim=1) - 1
    return others < k


def mean_class_accuracy(hits: Tensor, labels: Tensor) -> float:
    """Return the mean over classes of the share of hits among the class's rows, classes without rows left out.

    `hits` `[N]` bool, `labels` `[N]` int64.
    """
    present, inverse, counts = labels.unique(return_inverse=True, return_counts=True)
    right = torch.zeros(len(present), dtype=torch.float64).index_add_(0, inverse, hits.double())
    return float((right / counts).mean())


def recall_at(similarities: Tensor, matches: Tensor, k: int) -> Tensor:
    """Return `[N]` bool: whether any match is among each row's k most similar columns.

    `similarities` `[N, M]`, `matches` `[N, M]` bool. A column that does not match, and is as similar as the best match,
    counts as more similar. A row without a match is never a hit.
    """
    best = similarities.masked_fill(~matches, -torch.inf).max(dim=1, keepdim=True).values
    worse_than = ((similarities >= best) & ~matches).sum(dim=1)
    return (worse_than < k) & matches.any(dim=1)


def recalls(
    queries: Tensor, keys: Tensor, matches_of: Callable[[slice], Tensor], ks: Sequence[int] = (1, 5, 10)
) -> dict[int, float]:
    """Return by k the share of queries `[N, D]` with a match among their k most similar keys `[M, D]`.

    `matches_of` a slice of queries are `[n, M]` bool.
    """
    hits = dict.fromkeys(ks, 0)
    for first in range(0, len(queries), _QUERIES):
        rows = slice(first, min(first + _QUERIES, len(queries)))
        similarities, matches = queries[rows] @ keys.T, matches_of(rows)
        for k in ks:
            hits[k] += int(recall_at(similarities, matches, k).sum())
    return {k: count / len(queries) for k, count in hits.items()}


def classification(similarities: Tensor, labels: Tensor, prefix: str, ks: Sequence[int] = (1, 5)) -> dict[str, float]:
    """Return `PREFIX_accuracy@k` over rows and `PREFIX_mean_class_accuracy@k`, of `[N, C]` and `[N]`.

    `PREFIX_chance@k` is what both come to, on average, for a guess of k of the C classes.
    """
    found = {}
    for k in ks:
        hits = accuracy_at(similarities, labels, k)
        found[f"{prefix}_accuracy@{k}"] = float(hits.double().mean())
        found[f"{prefix}_mean_class_accuracy@{k}"] = mean_class_accuracy(hits, labels)
        found[f"{prefix}_chance@{k}"] = min(k / similarities.shape[1], 1.0)
    return found
