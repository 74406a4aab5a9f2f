"""The pixels of one region, as a captioner sees them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.sample import Crop, DecodedImage, Pixels, Sample


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """How much of the surroundings goes with a region."""

    scale: float = 1.0
    """Sides of the crop as a multiple of the box's: 1 captions the tight box, 1.5 is what FineCLIP's teacher sees."""

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"--crop.scale must be a positive number, not {self.scale}")


def crops_of(sample: Sample, settings: CropSettings) -> Iterator[Crop]:
    """Yield the crop of each region of a sample, in the regions' order."""
    for region in sample.regions:
        assert sample.image is not None and region.box is not None
        yield Crop(
            region_id=region.region_id,
            pixels=cut(sample.image, region.box, settings=settings),
            box=region.box,
            image_width=sample.image.width,
            image_height=sample.image.height,
            label=region.label,
        )


def cut(image: DecodedImage, box: tuple[float, float, float, float], *, settings: CropSettings) -> Pixels:
    """Return `[h, w, 3]` uint8 RGB, at least 1 x 1: `box` enlarged about its centre and clipped to the image.

    `box` is finite xyxy in pixels of the stored image. The window covers every pixel that the enlarged box touches. It
    is a contiguous copy: crops wait for the crops of other images to fill a batch, and a view would keep each of those
    images in memory as a whole.
    """
    x0, x1 = _window(box[0], box[2], size=image.width, scale=settings.scale)
    y0, y1 = _window(box[1], box[3], size=image.height, scale=settings.scale)
    return image.pixels[y0:y1, x0:x1].copy()


def _window(start: float, stop: float, *, size: int, scale: float) -> tuple[int, int]:
    """Return the whole pixels `[first, end)` of an axis of `size` pixels that the scaled interval touches."""
    centre, half = (start + stop) / 2, (stop - start) / 2 * scale
    first = min(max(math.floor(centre - half), 0), size - 1)
    end = min(max(math.ceil(centre + half), first + 1), size)
    return first, end
