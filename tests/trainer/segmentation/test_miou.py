"""The mean intersection over union by both formulas, by hand."""

import numpy as np
import pytest

from trainer.segmentation.miou import confusion, ious, summarise

TRUTH = np.array([[0, 0, 0, 1], [1, 1, -1, -1]])
FOUND = np.array([[0, 0, 1, 1], [1, 2, 2, 0]])


def test_a_confusion_matrix_drops_pixels_without_a_class():
    assert confusion(TRUTH, FOUND, 4).tolist() == [[2, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_class_that_was_only_predicted_counts_in_one_formula():
    counts = confusion(TRUTH, FOUND, 4)
    np.testing.assert_allclose(ious(counts), [2 / 3, 2 / 4, 0, np.nan])
    found = summarise(counts, {"all": range(4), "base": [0], "novel": [1, 2], "absent": [3]})
    assert found["all_mIoU"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["all_mIoU_predicted"] == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert found["base_mIoU"] == found["base_mIoU_predicted"] == pytest.approx(2 / 3)
    assert (found["novel_mIoU"], found["novel_mIoU_predicted"]) == pytest.approx((1 / 2, 1 / 4))
    assert np.isnan(found["absent_mIoU"]) and np.isnan(found["absent_mIoU_predicted"])
    assert found["pixel_accuracy"] == pytest.approx(4 / 6)
    assert found["mean_class_accuracy"] == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_images_are_summed_before_the_mean():
    first, second = confusion(TRUTH, FOUND, 3), confusion(np.array([1]), np.array([1]), 3)
    assert ious(first + second)[1] == pytest.approx(3 / 5), "not the mean of 1/2 and 1"


def test_nothing_measured_is_no_number():
    assert np.isnan(summarise(np.zeros((2, 2), dtype=np.int64), {"all": [0, 1]})["pixel_accuracy"])
