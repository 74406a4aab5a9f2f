"""Masks of regions: run lengths, polygons, or the segments of a panoptic PNG; and what share of each patch they cover.

A mask is `[height, width]` bool in the frame of the boxes beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from schemas.coco import Rle, decompress_runs

Mask = npt.NDArray[np.bool_]

_FARTHEST_PX = 1e6
"""Of a polygon's corners from the image's: what is farther is no outline, and Pillow draws anything of it."""


class Masks(Protocol):
    """The masks of R regions."""

    def of(self, region: int, size: tuple[int, int]) -> Mask | None:
        """Return a region's mask for an image of (width, height), or None. Raises ValueError, OSError."""


@dataclass(frozen=True, kw_only=True)
class Outlines:
    """Masks as COCO's JSON gives them."""

    shapes: Sequence[Rle | tuple[tuple[float, ...], ...] | None]
    """Run lengths, or polygons x, y, x, y, ..."""

    def of(self, region: int, size: tuple[int, int]) -> Mask | None:
        """See `Masks`."""
        shape = self.shapes[region]
        if shape is None:
            return None
        if not isinstance(shape, Rle):
            return draw_polygons(shape, size)
        if (shape.width, shape.height) != size:
            raise ValueError(f"it is of {shape.width} x {shape.height} pixels, the image of {size[0]} x {size[1]}")
        return decode_rle(shape)


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Masks as COCO panoptic gives them: pixels of a PNG with a segment's colour."""

    segments: Sequence[tuple[Path, int] | None]
    """`[R]`: the file, and red + 256 green + 65,536 blue."""

    def of(self, region: int, size: tuple[int, int]) -> Mask | None:
        """See `Masks`."""
        segment = self.segments[region]
        if segment is None:
            return None
        file, number = segment
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB")).astype(np.int64)
        return np.asarray(pixels @ np.array([1, 1 << 8, 1 << 16]) == number)


def decode_rle(rle: Rle) -> Mask:
    """Return the mask of COCO's run lengths, which go down the columns. Raises ValueError where they do not fill it."""
    runs = decompress_runs(rle.counts)
    if sum(runs) != rle.height * rle.width:
        raise ValueError(f"a mask's run lengths do not fill {rle.width} x {rle.height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.asarray(np.repeat(values, runs).reshape(rle.width, rle.height).T)


def draw_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> Mask:
    """Return the union of polygons, a pixel being inside where most of its area is (drawn at twice the size).

    Raises ValueError for corners that no picture reaches.
    """
    fine = 2
    if not all(abs(value) <= _FARTHEST_PX for polygon in polygons for value in polygon):
        raise ValueError("a corner of a polygon is no number of pixels")
    image = Image.new("1", (size[0] * fine, size[1] * fine))
    for polygon in polygons:
        ImageDraw.Draw(image).polygon([fine * value - 0.5 for value in polygon], fill=1)
    shares = np.asarray(image).reshape(size[1], fine, size[0], fine).mean(axis=(1, 3))
    return np.asarray(shares > 0.5)


def patch_shares(mask: Mask, grid: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return `grid` (rows, columns) float32: the share of each patch that the mask covers, the image being squashed."""
    whole = Image.fromarray(mask.astype(np.float32))
    return np.asarray(whole.resize(grid[::-1], Image.Resampling.BOX), dtype=np.float32).clip(0, 1)
