from collections.abc import Callable

import numpy as np
import pytest

from pipeline.images import DecodedImage, Pixels
from pipeline.sources.base import GivenRegion, SourceItem

MakeImage = Callable[..., DecodedImage]


@pytest.fixture(scope="session")
def make_image() -> MakeImage:
    """Returns a function that wraps pixels as a decoded image; what proposers do not read is empty."""

    def make(pixels: Pixels, given: tuple[GivenRegion, ...] = (), key: str = "k") -> DecodedImage:
        item = SourceItem(key=key, index=0, uri="k.png", data=b"")
        return DecodedImage(
            item=item,
            width=pixels.shape[1],
            height=pixels.shape[0],
            pixels=pixels,
            stored=b"",
            suffix="png",
            reencoded=False,
            sha256="",
            given=given,
        )

    return make


@pytest.fixture(scope="session")
def rectangle() -> Callable[..., Pixels]:
    """Returns a function that paints a bright rectangle (xyxy) on a plain dark image."""

    def paint(width: int, height: int, box: tuple[int, int, int, int]) -> Pixels:
        pixels = np.full((height, width, 3), (30, 40, 60), dtype=np.uint8)
        x0, y0, x1, y1 = box
        pixels[y0:y1, x0:x1] = (240, 200, 40)
        return pixels

    return paint
