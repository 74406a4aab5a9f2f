"""Connected parts and run lengths, against other libraries and by hand."""

import numpy as np
from pycocotools import mask as coco_masks
from scipy import ndimage

from trainer.segmentation.predict import pieces, run_lengths


def test_parts_are_those_of_scipy():
    for seed, share in enumerate((0.1, 0.3, 0.45, 0.6, 1.0)):
        mask = np.random.default_rng(seed).random((23, 31)) < share
        expected, count = ndimage.label(mask, structure=np.ones((3, 3)))
        found = pieces(mask, 1)
        assert len(found) == count
        assert all(np.array_equal(one, expected == number) for number, one in enumerate(found, 1))


def test_small_parts_are_left_out():
    mask = np.zeros((5, 5), dtype=bool)
    mask[0, 0] = mask[3:, 3:] = True
    assert [one.sum() for one in pieces(mask, 2)] == [4]
    assert pieces(np.zeros((3, 3), dtype=bool), 1) == []


def test_run_lengths_are_cocos():
    mask = np.random.default_rng(0).random((9, 7)) < 0.5
    for one in (mask, ~mask, np.ones_like(mask)):
        counts = coco_masks.encode(np.asfortranarray(one.astype(np.uint8)))["counts"].decode()
        assert run_lengths(one) == counts
