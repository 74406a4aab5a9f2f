from collections.abc import Callable

import numpy as np
import pytest

from pipeline.images import DecodedImage, Pixels
from tests.builders import decoded_image

MakeImage = Callable[..., DecodedImage]


@pytest.fixture(scope="session")
def make_image() -> MakeImage:
    """Returns a function that wraps pixels as a decoded image; what proposers do not read is empty."""

    return decoded_image


@pytest.fixture(scope="session")
def rectangle() -> Callable[..., Pixels]:
    """Returns a function that paints a bright rectangle (xyxy) on a plain dark image."""

    def paint(width: int, height: int, box: tuple[int, int, int, int]) -> Pixels:
        pixels = np.full((height, width, 3), (30, 40, 60), dtype=np.uint8)
        x0, y0, x1, y1 = box
        pixels[y0:y1, x0:x1] = (240, 200, 40)
        return pixels

    return paint
