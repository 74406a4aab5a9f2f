import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.propose.letterbox import letterbox
from schemas.boxes import as_boxes

_SIZES = st.tuples(st.integers(1, 900), st.integers(1, 900))


@given(_SIZES, st.sampled_from([64, 256, 640]))
def test_the_whole_image_maps_to_the_whole_image(size: tuple[int, int], side: int) -> None:
    width, height = size
    fitted = letterbox(np.zeros((height, width, 3), np.uint8), side)
    assert fitted.pixels.shape == (side, side, 3)
    inner_width, inner_height = fitted.scale_x * width, fitted.scale_y * height
    box_input = as_boxes([fitted.left, fitted.top, fitted.left + inner_width, fitted.top + inner_height])
    np.testing.assert_allclose(fitted.to_image(box_input), [[0, 0, width, height]], atol=1e-2)


@pytest.mark.parametrize("size", [(33, 33), (3000, 400), (300, 2000), (641, 479), (640, 640)])
def test_a_painted_box_comes_back_to_a_pixel(size: tuple[int, int]) -> None:
    width, height = size
    x0, y0, x1, y1 = width // 4, height // 4, width // 4 + width // 2, height // 4 + height // 2
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    fitted = letterbox(pixels, 640)
    ys, xs = np.nonzero(fitted.pixels[..., 0] > 180)
    found = fitted.to_image(as_boxes([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]))
    tolerance = max(1.0, 1 / fitted.scale_x)  # a pixel of the image, or of the input where that is coarser
    np.testing.assert_allclose(found, [[x0, y0, x1, y1]], atol=tolerance)


def test_padding_is_gray_and_the_image_is_centred() -> None:
    fitted = letterbox(np.full((100, 50, 3), 200, np.uint8), 64)
    assert (fitted.left, fitted.top) == (16, 0)
    assert (fitted.pixels[:, :16] == 114).all()
    assert (fitted.pixels[:, 16:48] == 200).all()


def test_the_corner_is_another_place_for_it() -> None:
    fitted = letterbox(np.full((100, 50, 3), 200, np.uint8), 64, centred=False, fill=(1, 2, 3))
    assert (fitted.left, fitted.top) == (0, 0)
    assert (fitted.pixels[:, :32] == 200).all()
    assert (fitted.pixels[:, 32:] == (1, 2, 3)).all()
