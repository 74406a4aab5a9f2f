"""The golden set: a few bundled pictures, and crops of them, about which models are asked before a run."""

import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pipeline.caption.crop import cut
from pipeline.read import open_source
from pipeline.read.decode import DecodeSettings, decode
from pipeline.sample import Crop, DecodedImage

_SCENES = "scenes:4?seed=7&split=train"
_PHOTOGRAPHS = f"folder:{Path(__file__).with_name('photographs')}"
_WINDOWS = ((0.0, 0.0, 0.6, 0.7), (0.25, 0.25, 0.9, 0.9))
"""The crops of a photograph, as shares of its sides."""


@cache
def golden_images() -> tuple[DecodedImage, ...]:
    """Return the pictures of the golden set: four synthetic scenes and the photographs that the package bundles."""
    images = []
    for spec in (_SCENES, _PHOTOGRAPHS):
        source = open_source(spec)
        parts = itertools.chain.from_iterable(source.parts(1000, False))
        for item in itertools.chain.from_iterable(map(source.read, parts)):
            image = decode(item, DecodeSettings())
            assert isinstance(image, DecodedImage), image
            images.append(image)
    return tuple(images)


def golden_crops() -> Iterator[Crop]:
    """Yield the crops of the golden set: the scenes' true boxes, and fixed windows of the photographs."""
    for image in golden_images():
        width, height = image.width, image.height
        windows = [(x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in _WINDOWS]
        for number, box in enumerate([region.box for region in image.given] or windows):
            yield Crop(
                region_id=f"{image.key}/{number}",
                pixels=cut(image.pixels, box),
                box=box,
                image_width=width,
                image_height=height,
                label=None,
            )
