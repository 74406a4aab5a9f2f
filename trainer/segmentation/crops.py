"""An image and its labels as a training step has them: a square crop at the shorter side's size."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.data.decode import Pixels
from trainer.evaluate.metrics import Ints
from trainer.segmentation.settings import SegmentOptimSettings

_BRIGHTNESS, _LEAST, _MOST, _HUE = 32.0, 0.5, 1.5, 18 / 180
"""SSD's: levels of 255, times the contrast and saturation, a part of the circle of hues."""


def crop(
    pixels: Pixels, labels: Ints, *, side: int, settings: SegmentOptimSettings, generator: np.random.Generator
) -> tuple[Pixels, Ints]:
    """Return `[side, side, 3]` and `[side, side]`: a random square of an image whose shorter side was made `side`.

    Colours are changed and the square is mirrored at random, as the settings say; labels are those of nearest pixels.
    """
    height, width = (max(round(length * side / min(labels.shape)), side) for length in labels.shape)
    y, x = (int(generator.integers(0, length - side + 1)) for length in (height, width))
    window = (x, y, x + side, y + side)
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR).crop(window)
    nearest = Image.fromarray(labels.astype(np.int32)).resize((width, height), Image.Resampling.NEAREST).crop(window)
    if settings.colour_jitter:
        small = Image.fromarray(jitter(np.asarray(small), generator))
    cut, known = np.asarray(small), np.asarray(nearest).astype(np.int64)
    if generator.random() < settings.flip:
        return np.ascontiguousarray(cut[:, ::-1]), np.ascontiguousarray(known[:, ::-1])
    return cut, known


def jitter(pixels: Pixels, generator: np.random.Generator) -> Pixels:
    """Return an image of other brightness, contrast, saturation and hue, each with a chance of one half."""
    values = pixels.astype(np.float32)
    if generator.random() < 0.5:
        values = values + generator.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    early = generator.random() < 0.5
    if early:
        values = _contrast(values, generator)
    values = _hue_and_saturation(_whole(values), generator).astype(np.float32)
    return _whole(values if early else _contrast(values, generator))


def _contrast(values: npt.NDArray[np.float32], generator: np.random.Generator) -> npt.NDArray[np.float32]:
    return values * np.float32(generator.uniform(_LEAST, _MOST)) if generator.random() < 0.5 else values


def _hue_and_saturation(pixels: Pixels, generator: np.random.Generator) -> Pixels:
    change, turn = generator.random(2) < 0.5
    hsv = np.array(Image.fromarray(pixels).convert("HSV"))
    if change:
        hsv[..., 1] = _whole(hsv[..., 1] * np.float32(generator.uniform(_LEAST, _MOST)))
    if turn:
        hsv[..., 0] = (hsv[..., 0].astype(np.int64) + round(generator.uniform(-_HUE, _HUE) * 256)) % 256
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB")) if change or turn else pixels


def _whole(values: npt.NDArray[np.floating]) -> Pixels:
    return values.round().clip(0, 255).astype(np.uint8)
