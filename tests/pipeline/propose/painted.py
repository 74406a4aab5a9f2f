"""A rectangle painted on an image, and where it is found in whatever a proposer makes of that image for its model."""

import numpy as np

from pipeline.sample import Pixels

SIZES = [
    (33, 33),
    (41, 33),
    (301, 997),  # portrait
    (1601, 211),  # panorama
    (3000, 2000),
    (1999, 3000),
    (3000, 401),
]
_PAINT, _GROUND = (255, 0, 0), (0, 0, 0)


def painted(size: tuple[int, int], inner: tuple[int, int]) -> tuple[Pixels, list[int]]:
    """Return an image of `size` (width, height) and the rectangle on it, xyxy.

    Its edges lie where pixels of the model's input meet, in which the image has the size `inner`: a mask cannot be
    finer than the input, so an edge elsewhere would test the resolution, not the mapping.
    """
    edges = []
    for length, inner_length, (begin, end) in zip(size, inner, ((0.23, 0.71), (0.31, 0.77)), strict=True):
        edges.append([round(round(inner_length * part) * length / inner_length) for part in (begin, end)])
    (x0, x1), (y0, y1) = edges
    pixels = np.full((size[1], size[0], 3), _GROUND, dtype=np.uint8)
    pixels[y0:y1, x0:x1] = _PAINT
    return pixels, [x0, y0, x1, y1]


def coverage(pixels: np.ndarray) -> np.ndarray:
    """Return how much of each pixel of `[h, w, 3]` in 0..255 is painted: paddings are about as red as green."""
    return (pixels[..., 0].astype(np.float64) - pixels[..., 1]).clip(0, 255) / 255


def _edges(profile: np.ndarray) -> tuple[float, float]:
    """Return where the painted part of a row begins and ends, to a small part of a pixel, however it was resized."""
    inside = np.flatnonzero(profile > 0.5)
    first, end = max(0, inside[0] - 3), inside[-1] + 4
    window = profile[first:end]
    length = window.sum()
    centre = (window * (np.arange(len(window)) + first + 0.5)).sum() / length
    return centre - length / 2, centre + length / 2


def box_in(pixels: np.ndarray) -> list[float]:
    """Return the painted rectangle of `[h, w, 3]` in 0..255, xyxy in its pixels."""
    covered = coverage(pixels)
    row, column = (int(np.median(np.nonzero(covered > 0.5)[axis])) for axis in (0, 1))
    (x0, x1), (y0, y1) = _edges(covered[row]), _edges(covered[:, column])
    return [x0, y0, x1, y1]
