"""AP50 by pycocotools against values worked out by hand."""

import math

import numpy as np
import pytest

from schemas.boxes import as_boxes
from trainer.detection.precision import Judged, average_precision_50, grouped
from trainer.detection.probe import accuracies

HERE, THERE, FAR = [0, 0, 10, 10], [20, 20, 40, 40], [60, 60, 70, 70]


def judged(truth=(), found=(), crowds=()) -> Judged:
    """Return an image of (box, label) and (box, label, score)."""
    return Judged(
        truth=as_boxes([box for box, _ in (*truth, *crowds)]),
        labels=np.array([label for _, label in (*truth, *crowds)], dtype=np.int64),
        is_crowd=np.array([False] * len(truth) + [True] * len(crowds)),
        found=as_boxes([box for box, _, _ in found]),
        found_labels=np.array([label for _, label, _ in found], dtype=np.int64),
        scores=np.array([score for _, _, score in found], dtype=np.float32),
    )


def test_a_miss_between_two_hits():
    images = [judged([(HERE, 0)], [(HERE, 0, 0.9), (FAR, 0, 0.8)]), judged([(THERE, 0)], [(THERE, 0, 0.7)])]
    # precision 1 up to a recall of .5 (51 of 101 points), then 2 of 3
    assert average_precision_50(images, 1) == pytest.approx([(51 + 50 * 2 / 3) / 101])


def test_an_overlap_of_half_counts_and_less_does_not():
    half, less = [0, 0, 10, 5], [0, 0, 10, 4.9]
    assert average_precision_50([judged([(HERE, 0)], [(half, 0, 0.9)])], 1) == pytest.approx([1])
    assert average_precision_50([judged([(HERE, 0)], [(less, 0, 0.9)])], 1) == pytest.approx([0])


def test_of_equal_scores_the_earlier_image_comes_first():
    hit, miss = judged([(HERE, 0)], [(HERE, 0, 0.5)]), judged([], [(FAR, 0, 0.5)])
    assert average_precision_50([hit, miss], 1) == pytest.approx([1])
    assert average_precision_50([miss, hit], 1) == pytest.approx([0.5])


def test_a_second_box_on_one_object_is_a_miss_and_one_on_a_crowd_is_neither():
    twice = judged([(HERE, 0), (THERE, 0)], [(HERE, 0, 0.9), (HERE, 0, 0.8), (THERE, 0, 0.7)])
    assert average_precision_50([twice], 1) == pytest.approx([(51 + 50 * 2 / 3) / 101])
    crowded = judged([(THERE, 0)], [(HERE, 0, 0.9), (THERE, 0, 0.7)], crowds=[(HERE, 0)])
    assert average_precision_50([crowded], 1) == pytest.approx([1])


def test_base_and_novel_are_means_of_their_classes_and_a_class_without_a_box_is_in_none():
    images = [
        judged([(HERE, 0), (THERE, 1), (FAR, 3)], [(HERE, 0, 0.9), (THERE, 2, 0.9), (FAR, 3, 0.5), (HERE, 3, 0.6)])
    ]
    found = average_precision_50(images, 5)
    assert found[[0, 1, 3]] == pytest.approx([1, 0, 0.5])
    assert np.isnan(found[[2, 4]]).all(), "class 2 was found, and is nowhere; class 4 is neither"
    means = grouped(found, {"base": [0, 1, 2], "novel": [3, 4]})
    assert means == {
        "base_AP50": pytest.approx(0.5), "novel_AP50": pytest.approx(0.5), "all_AP50": pytest.approx(0.5)
    }  # fmt: skip
    assert math.isnan(grouped(found, {"base": [0], "novel": [4]})["novel_AP50"])


def test_nothing_found_is_zero():
    assert average_precision_50([judged([(HERE, 0)])], 1) == pytest.approx([0])


def test_accuracy_of_true_boxes_by_group():
    right = np.array([True, False, True, True])
    labels = np.array([0, 0, 0, 2])
    found = accuracies(right, labels, {"base": [0, 1], "novel": [2], "held_out": [3]})
    assert (found["base_accuracy@1"], found["novel_accuracy@1"], found["all_accuracy@1"]) == (2 / 3, 1, 0.75)
    assert found["all_mean_class_accuracy@1"] == pytest.approx((2 / 3 + 1) / 2)
    assert math.isnan(found["held_out_accuracy@1"])
