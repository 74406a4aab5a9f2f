import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.caption.crop import cut
from pipeline.sample import Pixels

WIDTH, HEIGHT = 30, 20


@pytest.fixture(scope="module")
def image() -> Pixels:
    """Each pixel holds its own (x, y, 0)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)


def extent(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """xyxy of the crop in its image, read from its corner pixels."""
    (x0, y0, _), (x1, y1, _) = pixels[0, 0].tolist(), pixels[-1, -1].tolist()
    assert pixels.shape == (y1 + 1 - y0, x1 + 1 - x0, 3)
    return x0, y0, x1 + 1, y1 + 1


@pytest.mark.parametrize(
    ("box", "scale", "expected"),
    [
        ((4, 5, 10, 9), 1.0, (4, 5, 10, 9)),
        ((4.5, 5.0625, 9.0625, 8.9375), 1.0, (4, 5, 10, 9)),
        ((10, 8, 14, 12), 1.5, (9, 7, 15, 13)),
        ((0, 0, 10, 10), 1.5, (0, 0, 13, 13)),
        ((20, 10, 30, 20), 2.0, (15, 5, 30, 20)),
        ((0, 0, 30, 20), 9.0, (0, 0, 30, 20)),
    ],
)
def test_windows(image, box, scale, expected):
    assert extent(cut(image, box, scale=scale)) == expected


def test_a_crop_is_a_contiguous_copy(image):
    pixels = cut(image, (4, 5, 10, 9))
    assert pixels.flags.c_contiguous and pixels.flags.owndata
    assert not np.shares_memory(pixels, image)


@given(
    corners=st.tuples(*[st.floats(-5, 35, width=32)] * 4),
    scale=st.floats(1, 10),
)
def test_every_crop_has_a_pixel(image, corners, scale):
    xs, ys = sorted(corners[::2]), sorted(corners[1::2])
    x0, y0, x1, y1 = extent(cut(image, (xs[0], ys[0], xs[1], ys[1]), scale=scale))
    assert 0 <= x0 < x1 <= WIDTH and 0 <= y0 < y1 <= HEIGHT


@given(
    x=st.tuples(st.integers(0, WIDTH * 16 - 1), st.integers(1, 99)),
    y=st.tuples(st.integers(0, HEIGHT * 16 - 1), st.integers(1, 99)),
)
def test_a_tight_crop_covers_the_box_and_less_than_a_pixel_more(image, x, y):
    box = (x[0] / 16, y[0] / 16, min(sum(x) / 16, WIDTH), min(sum(y) / 16, HEIGHT))
    window = extent(cut(image, box))
    beyond = np.subtract(box, window) * (1, 1, -1, -1)
    assert (beyond >= 0).all() and (beyond < 1).all()
