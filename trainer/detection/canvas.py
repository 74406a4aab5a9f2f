"""An image in the square that the detector sees, at its upper left, the rest empty."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from schemas.boxes import Boxes, clip, is_valid
from trainer.data.decode import Pixels, flip
from trainer.detection.settings import DetectOptimSettings
from trainer.evaluate.metrics import Ints


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A square of the input with an image in it."""

    pixels: Pixels
    """`[S, S, 3]`; 0 where the image is not."""
    size: tuple[int, int]
    """(height, width) of the image within it."""
    boxes: Boxes
    """`[n, 4]` float32 xyxy, pixels of the canvas."""
    labels: Ints
    """`[n]`."""
    scale: tuple[float, float]
    """(x, y): pixels of the canvas for one of the image; the two differ by rounding alone."""


def fit(pixels: Pixels, boxes: Boxes, labels: Ints, side: int) -> Canvas:
    """Return an image whose longer side is as long as the canvas, its aspect ratio kept, with all its boxes."""
    return _placed(pixels, boxes, labels, side=side, target=side)


def jitter(
    pixels: Pixels,
    boxes: Boxes,
    labels: Ints,
    *,
    side: int,
    settings: DetectOptimSettings,
    generator: np.random.Generator,
) -> Canvas:
    """Return an image at a random size, cropped at random where it is larger than the canvas, perhaps mirrored.

    Boxes are clipped to the crop; those of which nothing is left are gone.
    """
    target = side * generator.uniform(settings.min_scale, settings.max_scale)
    canvas = _placed(pixels, boxes, labels, side=side, target=target, generator=generator)
    if generator.random() >= settings.flip:
        return canvas
    height, width = canvas.size
    mirrored, flipped = flip(canvas.pixels[:height, :width], canvas.boxes)
    whole = np.zeros_like(canvas.pixels)
    whole[:height, :width] = mirrored
    return Canvas(pixels=whole, size=canvas.size, boxes=flipped, labels=canvas.labels, scale=canvas.scale)


def _placed(
    pixels: Pixels,
    boxes: Boxes,
    labels: Ints,
    *,
    side: int,
    target: float,
    generator: np.random.Generator | None = None,
) -> Canvas:
    """Return an image whose longer side is `target` pixels, and a window of it, drawn at random, where it is larger."""
    scale = target / max(pixels.shape[:2])
    height, width = (max(round(length * scale), 1) for length in pixels.shape[:2])
    rows, columns = min(height, side), min(width, side)
    y, x = 0, 0
    if generator is not None:
        y, x = (int(generator.integers(0, whole - part + 1)) for whole, part in ((height, rows), (width, columns)))
    window = (x / width, y / height, (x + columns) / width, (y + rows) / height)
    full_height, full_width = pixels.shape[:2]
    source = tuple(part * whole for part, whole in zip(window, (full_width, full_height) * 2, strict=True))
    resized = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR, box=source)
    canvas = np.zeros((side, side, 3), dtype=np.uint8)
    canvas[:rows, :columns] = np.asarray(resized)
    ratios = np.array([width / full_width, height / full_height] * 2, dtype=np.float32)
    moved = clip(boxes * ratios - np.array([x, y, x, y], dtype=np.float32), columns, rows)
    seen = is_valid(moved) if generator is not None else np.ones(len(moved), dtype=bool)
    return Canvas(
        pixels=canvas,
        size=(rows, columns),
        boxes=moved[seen],
        labels=labels[seen],
        scale=(width / full_width, height / full_height),
    )


def normalised(canvases: Tensor, sizes: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return `[B, 3, S, S]` float32: canvases (uint8) less `mean`, by `std` (`[3, 1, 1]`, in 0..255), 0 without image.

    `sizes` `[B, 2]` are (height, width) of the images in them.
    """
    rows, columns = (torch.arange(side, device=canvases.device) for side in canvases.shape[2:])
    sizes = sizes.to(canvases.device)
    inside = (rows < sizes[:, :1])[:, None, :, None] & (columns < sizes[:, 1:])[:, None, None, :]
    return (canvases.float() - mean) / std * inside
