"""One image of a batch: decoded once, its regions chosen, flipped or trimmed with it, and their crops' places.

Everything random comes from (key, epoch, seed), so it is the same in any worker, process or resumed run.
"""

import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from schemas.boxes import Boxes, area
from schemas.hashes import sha256
from trainer.hyperparameters import SampleSettings

Pixels = npt.NDArray[np.uint8]
"""`[height, width, 3]` RGB."""

_MIN_LEFT = 0.5
"""Share of a region's area that must be left after trimming: what is less is no longer what its caption says."""


class UnusableSampleError(ValueError):
    """An image cannot be trained on; the message says why. It is skipped and counted."""


@dataclass(frozen=True, kw_only=True)
class DecodedSample:
    """An image with the regions that an epoch uses."""

    pixels: Pixels
    boxes: Boxes
    """`[n, 4]` float32 xyxy, pixels of `pixels`."""
    crop_boxes: npt.NDArray[np.int64]
    """`[n, 4]` xyxy, whole pixels of `pixels`: what the teacher sees."""
    regions: npt.NDArray[np.int64]
    """`[n]`: which of the image's regions they are, ascending."""


def decode_sample(
    content: bytes,
    boxes: Boxes,
    *,
    size: tuple[int, int],
    key: str,
    epoch: int,
    seed: int,
    settings: SampleSettings,
) -> DecodedSample:
    """Decode an image and choose from its regions' `boxes` `[R, 4]` (xyxy, pixels of the stored image).

    `size` is the (width, height) that the table says. Raises UnusableSampleError for bytes that are no such image.
    """
    generator = sample_generator(key, epoch=epoch, seed=seed)
    eligible = np.flatnonzero(settings.within_limits(area(boxes)))
    regions = eligible[choose_regions(len(eligible), settings.max_regions, generator)]
    pixels, boxes = _decode(content, size), boxes[regions]
    if settings.trim:
        window = _trim_window(size, settings.trim, generator)
        pixels, boxes, kept = trim(pixels, boxes, window)
        regions = regions[kept]
    if settings.flip and generator.random() < 0.5:
        pixels, boxes = flip(pixels, boxes)
    height, width = pixels.shape[:2]
    crop_boxes = enlarge(boxes, settings.crop_scale, width=width, height=height)
    return DecodedSample(pixels=pixels, boxes=boxes, crop_boxes=crop_boxes, regions=regions)


def sample_generator(key: str, *, epoch: int, seed: int) -> np.random.Generator:
    """Return the random numbers of an image in an epoch."""
    return np.random.default_rng(int(sha256(f"{seed}\n{epoch}\n{key}".encode())[:32], 16))


def choose_regions(num_regions: int, max_regions: int | None, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return, ascending, `max_regions` of an image's regions, or all if there are no more."""
    if max_regions is None or num_regions <= max_regions:
        return np.arange(num_regions, dtype=np.int64)
    return np.sort(generator.permutation(num_regions)[:max_regions]).astype(np.int64)


def _decode(content: bytes, size: tuple[int, int]) -> Pixels:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(content)) as image:
                pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableSampleError(f"cannot be decoded: {error}") from error
    if pixels.shape[1::-1] != size:
        raise UnusableSampleError(
            f"is {pixels.shape[1]} x {pixels.shape[0]} where the table says {size[0]} x {size[1]}"
        )
    return pixels


def _trim_window(size: tuple[int, int], share: float, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Return the xyxy window that is left of an image of (width, height)."""
    left, top, right, bottom = generator.random(4) * share
    width, height = size
    return int(left * width), int(top * height), int(np.ceil((1 - right) * width)), int(np.ceil((1 - bottom) * height))


def trim(
    pixels: Pixels, boxes: Boxes, window: tuple[int, int, int, int]
) -> tuple[Pixels, Boxes, npt.NDArray[np.bool_]]:
    """Return the window (xyxy) of an image, the boxes left in its frame, and `[R]` which they are of those given."""
    x0, y0, x1, y1 = window
    limits = np.array([x1 - x0, y1 - y0] * 2, dtype=np.float32)
    moved = np.clip(boxes - np.array([x0, y0, x0, y0], dtype=np.float32), 0, limits)
    kept = area(moved) > _MIN_LEFT * area(boxes)
    return pixels[y0:y1, x0:x1], moved[kept].astype(np.float32), kept


def flip(pixels: Pixels, boxes: Boxes) -> tuple[Pixels, Boxes]:
    """Return image and boxes mirrored left to right."""
    width = pixels.shape[1]
    mirrored = boxes.copy()
    mirrored[:, 0], mirrored[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
    return pixels[:, ::-1], mirrored


def enlarge(boxes: Boxes, scale: float, *, width: int, height: int) -> npt.NDArray[np.int64]:
    """Return `[n, 4]` xyxy in whole pixels: boxes `scale` times as wide and high about their centres, clipped.

    Edges round to the nearest pixel, halves to even, as Pillow cuts what the official code gives it; a crop holds a
    pixel at least.
    """
    margins = (boxes[:, 2:] - boxes[:, :2]) * ((scale - 1) / 2)
    limits = np.array([width, height])
    low = np.clip(np.rint(boxes[:, :2] - margins), 0, limits - 1)
    high = np.clip(np.rint(boxes[:, 2:] + margins), low + 1, limits)
    return np.concatenate([low, high], axis=1).astype(np.int64)
