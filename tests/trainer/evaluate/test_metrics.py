"""Metrics on matrices small enough to check by hand."""

import numpy as np
import pytest
import torch

from trainer.errors import TrainingError
from trainer.evaluate.intervals import interval
from trainer.evaluate.metrics import Scores, accuracy_at, classification, finite, recall_at

SIMILARITIES = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.8], [0.4, 0.4, 0.1]])


def scores(hits: list[int], images: list[int], classes: list[int] | None = None) -> Scores:
    return Scores(
        hits=np.array(hits, dtype=np.float64),
        images=np.array(images),
        classes=None if classes is None else np.array(classes),
    )


def test_accuracy():
    labels = torch.tensor([0, 1, 0])
    # The third row's right class ties with another: not found first.
    assert accuracy_at(SIMILARITIES, labels, 1).tolist() == [True, False, False]
    assert accuracy_at(SIMILARITIES, labels, 2).tolist() == [True, True, True]


def test_mean_over_classes():
    assert scores([1, 1, 0, 1], [0, 1, 2, 3], [0, 0, 0, 5]).value == pytest.approx((2 / 3 + 1) / 2)
    assert scores([1, 1, 0, 1], [0, 1, 2, 3]).value == 3 / 4
    assert np.isnan(scores([], []).value)


def test_recall_counts_any_match():
    matches = torch.tensor([[False, True, True], [True, False, False], [False, False, False]])
    assert recall_at(SIMILARITIES, matches, 1).tolist() == [False, False, False]
    assert recall_at(SIMILARITIES, matches, 2).tolist() == [True, False, False]
    assert recall_at(SIMILARITIES, matches, 3).tolist() == [True, True, False]


def test_constant_similarities_find_nothing():
    constant = torch.zeros(4, 3)
    assert not accuracy_at(constant, torch.tensor([0, 1, 2, 0]), 2).any()
    assert not recall_at(constant, torch.eye(4, 3, dtype=torch.bool), 2).any()


def test_classification_names():
    class_features, labels = torch.eye(3), torch.tensor([0, 1, 0])
    found = dict(classification(SIMILARITIES, class_features, labels, np.arange(3), "region", ks=(1, 2)))
    values = {name: value.value if isinstance(value, Scores) else value for name, value in found.items()}
    assert values == {
        "region_accuracy@1": pytest.approx(1 / 3),
        "region_mean_class_accuracy@1": pytest.approx((1 / 2 + 0) / 2),
        "region_accuracy@2": 1.0,
        "region_mean_class_accuracy@2": 1.0,
        "region_chance@1": pytest.approx(1 / 3),
        "region_chance@2": pytest.approx(2 / 3),
    }


def test_an_interval_holds_what_the_mean_of_so_many_images_may_be():
    generator = np.random.default_rng(1)
    hits = generator.integers(0, 2, 400).tolist()
    low, high = interval(scores(hits, list(range(400))), resamples=2000, seed=0)
    half = 1.96 * np.sqrt(0.25 / 400)
    assert (low, high) == pytest.approx((np.mean(hits) - half, np.mean(hits) + half), abs=0.006)
    assert interval(scores(hits, list(range(400))), resamples=2000, seed=0) == (low, high)
    assert interval(scores(hits, list(range(400))), resamples=2000, seed=1) != (low, high)


def test_rows_of_one_image_are_drawn_together():
    hits = [1] * 10 + [0] * 10
    apart, together = (
        interval(scores(hits, images), resamples=500, seed=0) for images in (range(20), [0] * 10 + [1] * 10)
    )
    assert 0.2 < apart[0] < apart[1] < 0.8
    assert together == (0, 1)


def test_an_interval_over_classes_is_that_of_resampled_rows():
    found = scores([1, 0, 1, 1, 0, 0], [0, 0, 1, 2, 2, 3], [0, 1, 0, 1, 1, 0])
    low, high = interval(found, resamples=300, seed=3)
    generator, values = np.random.default_rng(3), []
    for _ in range(300):
        drawn = generator.integers(4, size=4)
        rows = np.concatenate([np.flatnonzero(found.images == image) for image in drawn])
        values.append(Scores(hits=found.hits[rows], images=found.images[rows], classes=found.classes[rows]).value)
    assert (low, high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


def test_there_is_no_interval_of_one_image_or_without_resamples():
    assert interval(scores([1, 0], [7, 7]), resamples=10, seed=0) is None
    assert interval(scores([1, 0], [7, 8]), resamples=0, seed=0) is None


def test_what_is_no_number_is_never_right():
    nothing = torch.full((3, 3), torch.nan)
    assert not accuracy_at(nothing, torch.tensor([0, 1, 2]), 1).any()
    assert not recall_at(nothing, torch.eye(3, dtype=torch.bool), 1).any()
    beside = torch.tensor([[0.9, torch.nan, 0.1]])
    assert accuracy_at(beside, torch.tensor([0]), 1).tolist() == [False]


def test_features_that_are_no_numbers_are_an_error():
    features = torch.ones(4, 2)
    assert finite(features, "images") is features
    features[1, 0], features[2, 1] = torch.nan, torch.inf
    with pytest.raises(TrainingError, match="the features of 2 of 4 images are no finite numbers"):
        finite(features, "images")
