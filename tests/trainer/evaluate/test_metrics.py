"""Metrics on matrices small enough to check by hand."""

import pytest
import torch

from trainer.evaluate.metrics import accuracy_at, classification, mean_class_accuracy, recall_at

SIMILARITIES = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.8], [0.4, 0.4, 0.1]])


def test_accuracy():
    labels = torch.tensor([0, 1, 0])
    # The third row's right class ties with another: not found first.
    assert accuracy_at(SIMILARITIES, labels, 1).tolist() == [True, False, False]
    assert accuracy_at(SIMILARITIES, labels, 2).tolist() == [True, True, True]


def test_mean_over_classes():
    hits, labels = torch.tensor([True, True, False, True]), torch.tensor([0, 0, 0, 5])
    assert mean_class_accuracy(hits, labels) == pytest.approx((2 / 3 + 1) / 2)


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
    found = classification(SIMILARITIES, torch.tensor([0, 1, 0]), "region", ks=(1, 2))
    assert found == {
        "region_accuracy@1": pytest.approx(1 / 3),
        "region_mean_class_accuracy@1": pytest.approx((1 / 2 + 0) / 2),
        "region_accuracy@2": 1.0,
        "region_mean_class_accuracy@2": 1.0,
        "region_chance@1": pytest.approx(1 / 3),
        "region_chance@2": pytest.approx(2 / 3),
    }
