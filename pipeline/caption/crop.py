"""Windows of an image: the pixels that a box touches."""

import math

from pipeline.sample import Pixels

Box = tuple[float, float, float, float]
Window = tuple[int, int, int, int]
"""Whole pixels xyxy, right and bottom exclusive, at least 1 x 1, within its image."""


def cut(pixels: Pixels, box: Box, *, scale: float = 1.0) -> Pixels:
    """Return `[h, w, 3]` uint8 RGB, at least 1 x 1: what `box` touches, enlarged `scale` times about its centre.

    `box` is finite xyxy in the frame of `pixels` (`[H, W, 3]`). It is a contiguous copy: crops wait for the crops of
    other images to fill a batch, and a view would keep each of those images in memory as a whole.
    """
    x0, y0, x1, y1 = window(box, width=pixels.shape[1], height=pixels.shape[0], scale=scale)
    return pixels[y0:y1, x0:x1].copy()


def window(box: Box, *, width: int, height: int, scale: float = 1.0) -> Window:
    """Return the pixels of a `width` x `height` image that `box` touches, enlarged `scale` times, clipped to it."""
    x0, x1 = _span(box[0], box[2], size=width, scale=scale)
    y0, y1 = _span(box[1], box[3], size=height, scale=scale)
    return x0, y0, x1, y1


def _span(start: float, stop: float, *, size: int, scale: float) -> tuple[int, int]:
    """Return the whole pixels `[first, end)` of an axis of `size` pixels that the scaled interval touches."""
    centre, half = (start + stop) / 2, (stop - start) / 2 * scale
    first = min(max(math.floor(centre - half), 0), size - 1)
    end = min(max(math.ceil(centre + half), first + 1), size)
    return first, end
