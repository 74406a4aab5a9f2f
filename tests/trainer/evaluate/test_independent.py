"""The metrics against others' implementations, on features drawn at random: torchmetrics, and a table made by hand."""

import itertools

import numpy as np
import pytest
import torch

from trainer.evaluate import rank, regions
from trainer.evaluate.metrics import Scores

NUM_ROWS, NUM_CLASSES, WIDTH = 300, 12, 6


def drawn(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, WIDTH, generator=generator))


def values(metrics) -> dict[str, float]:
    return {name: value.value if isinstance(value, Scores) else value for name, value in metrics}


@pytest.fixture(scope="module")
def classified() -> tuple[dict[str, float], torch.Tensor, np.ndarray]:
    features, classes = drawn(NUM_ROWS, 1), drawn(NUM_CLASSES, 2)
    # The last class has no row: it counts as an answer, not in the mean over classes.
    labels = np.random.default_rng(3).integers(0, NUM_CLASSES - 1, NUM_ROWS)
    found = values(regions.measure(features, classes, labels, np.arange(NUM_ROWS) // 3, None))
    return found, features @ classes.T, labels


def test_classification_by_a_confusion_table(classified):
    found, similarities, labels = classified
    table = np.zeros((NUM_CLASSES, NUM_CLASSES))
    for right, answer in zip(labels, similarities.argmax(dim=1).tolist(), strict=True):
        table[right, answer] += 1
    assert found["region_accuracy@1"] == pytest.approx(np.trace(table) / table.sum())
    present = table.sum(axis=1) > 0
    by_class = np.diag(table)[present] / table.sum(axis=1)[present]
    assert found["region_mean_class_accuracy@1"] == pytest.approx(by_class.mean())


@pytest.mark.parametrize("k", [1, 5])
def test_classification_by_torchmetrics(classified, k):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    found, similarities, labels = classified
    for name, average in (("region_accuracy", "micro"), ("region_mean_class_accuracy", None)):
        target = torch.from_numpy(labels)
        theirs = functional.multiclass_accuracy(similarities, target, NUM_CLASSES, average=average, top_k=k)
        mean = theirs if average else theirs[target.unique()].mean()
        assert found[f"{name}@{k}"] == pytest.approx(float(mean))


def test_retrieval_by_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.retrieval")
    images, texts = drawn(60, 4), drawn(200, 5)
    owner = np.sort(np.random.default_rng(6).integers(0, 60, 200))
    owner[:60] = np.arange(60)  # each image has a caption
    pairs = rank.Pairs(owner, np.arange(200))
    found = values(rank.measure(images, texts, pairs, np.arange(60), "image"))
    matches = torch.from_numpy(owner[None] == np.arange(60)[:, None])
    similarities = images @ texts.T
    for (name, s, m), k in itertools.product(
        (("image_to_text", similarities, matches), ("text_to_image", similarities.T, matches.T)), (1, 5, 10)
    ):
        theirs = [float(functional.retrieval_hit_rate(row, target, top_k=k)) for row, target in zip(s, m, strict=True)]
        assert found[f"{name}_recall@{k}"] == pytest.approx(np.mean(theirs))
