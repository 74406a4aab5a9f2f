import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from pipeline.propose.letterbox import letterbox
from pipeline.propose.masks import as_rle, mask_boxes

MASKS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1))


@settings(max_examples=60)
@given(MASKS)
def test_a_box_is_tight_and_ends_where_the_mask_does(mask: np.ndarray) -> None:
    for kind in (torch.uint8, torch.bool):
        (x0, y0, x1, y1) = mask_boxes(torch.from_numpy(mask)[None].to(kind))[0].int().tolist()
        if not mask.any():
            assert x1 <= x0
            return
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        assert all(edge.any() for edge in (mask[y0], mask[y1 - 1], mask[:, x0], mask[:, x1 - 1]))


def test_no_masks_have_no_boxes() -> None:
    assert mask_boxes(torch.zeros(0, 5, 7)).shape == (0, 4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(max_examples=60)
@given(MASKS)
def test_run_lengths_are_those_of_coco(mask: np.ndarray) -> None:
    decoded = coco.decode({"size": list(mask.shape), "counts": as_rle(mask).encode()})
    np.testing.assert_array_equal(decoded, mask)


@given(st.tuples(st.integers(1, 200), st.integers(1, 200)), st.sampled_from([32, 64]))
@settings(max_examples=60)
def test_a_full_mask_stays_full_and_an_empty_one_empty(size: tuple[int, int], side: int) -> None:
    width, height = size
    fitted = letterbox(np.zeros((height, width, 3), np.uint8), side)
    inner = np.ones((fitted.inner_height, fitted.inner_width), np.uint8)
    assert fitted.mask_to_image(inner).shape == (height, width)
    assert fitted.mask_to_image(inner).all()
    assert not fitted.mask_to_image(0 * inner).any()
