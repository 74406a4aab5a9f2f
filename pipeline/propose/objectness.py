"""How much a box looks like an object: a score from pixels and geometry, for proposers that give none.

    contrast   the colours inside differ from those of a ring around the box
    foreground the colours inside differ from those along the image's frame
    closure    few image segments cross the box's edge
    shape      of a usual size and aspect, and not cut by the image's edge

Counts are integers from summed-area tables, compared exactly; what follows is elementwise float64 arithmetic. So the
scores depend neither on threads nor on the order of the boxes.
"""

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sample import Pixels

IntBoxes = npt.NDArray[np.int64]
"""`[R, 4]` int64 xyxy pixels, right and bottom exclusive."""
_Counts = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Labels = npt.NDArray[np.intp]

# Piecewise linear, chosen by looking at the bundled photographs: which shares of the image's area, which ratios of the
# longer to the shorter side, and how many edges shared with the image people accept as one object.
_AREA_SHARE, _AREA_SCORE = (0.0, 0.003, 0.02, 0.07, 0.5, 0.8, 1.0), (0.0, 0.15, 0.65, 1.0, 1.0, 0.4, 0.0)
_ASPECT, _ASPECT_SCORE = (1.0, 4.0, 10.0, 20.0), (1.0, 0.9, 0.7, 0.1)
_EDGES_SCORE = np.array([1.0, 0.8, 0.5, 0.25, 0.0])
_LEAST_FOREGROUND = 0.4
"""What is left of the score of a box that has the colours of the image's frame: an object may fill the image."""

_CHROMA_EDGES = np.array([104, 118, 126, 131, 139, 153], dtype=np.uint8)
"""Borders between the classes of Lab's a and b, each 128 at grey: finer near grey, where most pixels lie."""
_LIGHTNESS_STEP = 43


def objectness(pixels: Pixels, boxes: IntBoxes) -> _Floats:
    """Return `[R]` scores in [0, 1] of boxes in the frame of `pixels` `[h, w, 3]` RGB, h and w at least 3.

    Boxes have positive sides and lie inside the image. A box's score does not depend on the other boxes.
    """
    height, width = pixels.shape[:2]
    contrast, foreground = _colour_differences(pixels, boxes)
    closure = _closure(pixels, boxes)
    score = contrast * closure * _shape(boxes, width, height)
    return np.sqrt(score * (_LEAST_FOREGROUND + (1 - _LEAST_FOREGROUND) * foreground))


def area(boxes: IntBoxes) -> _Counts:
    """Return `[R]` areas in square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _count_inside(mask: npt.NDArray[np.bool_], boxes: IntBoxes) -> _Counts:
    """Return `[R]`: how many pixels of `mask` `[h, w]` each box holds."""
    table = cv2.integral(mask.astype(np.uint8))
    x0, y0, x1, y1 = boxes.T
    return np.asarray(table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0], dtype=np.int64)


def _colour_classes(pixels: Pixels) -> tuple[_Labels, int]:
    """Return `[h, w]` colour class of each pixel, numbered from 0 without gaps, and how many there are."""
    lab = cv2.cvtColor(cv2.GaussianBlur(pixels, (3, 3), 0), cv2.COLOR_RGB2LAB)
    num_chroma = len(_CHROMA_EDGES) + 1
    chroma_a, chroma_b = (np.searchsorted(_CHROMA_EDGES, lab[..., channel]) for channel in (1, 2))
    classes = (lab[..., 0].astype(np.intp) // _LIGHTNESS_STEP * num_chroma + chroma_a) * num_chroma + chroma_b
    present, numbered = np.unique(classes, return_inverse=True)
    return numbered.reshape(classes.shape), len(present)


def _colour_differences(pixels: Pixels, boxes: IntBoxes) -> tuple[_Floats, _Floats]:
    """Return two `[R]` differences in [0, 1] of colour histograms: inside to ring, and inside to the image's frame.

    A difference is half the L1 distance of the two histograms, each divided by its number of pixels.
    """
    height, width = pixels.shape[:2]
    # The ring: the box grown on each side by a tenth of its half circumference, clipped to the image.
    margin = (boxes[:, 2:] - boxes[:, :2]).sum(axis=1, keepdims=True) // 10 + 1
    ring: IntBoxes = np.hstack([boxes[:, :2] - margin, boxes[:, 2:] + margin]).clip(0, np.array([width, height] * 2))
    inside_area, ring_area = area(boxes), area(ring) - area(boxes)
    thickness = max(1, min(height, width) // 20)
    frame = np.ones((height, width), dtype=np.bool_)
    frame[thickness:-thickness, thickness:-thickness] = False
    frame_area = int(frame.sum())
    to_ring, to_frame = np.zeros_like(inside_area), np.zeros_like(inside_area)
    classes, num_classes = _colour_classes(pixels)
    for colour in range(num_classes):
        mask = classes == colour
        inside = _count_inside(mask, boxes)
        around = _count_inside(mask, ring) - inside
        to_ring += np.abs(inside * ring_area - around * inside_area)
        to_frame += np.abs(inside * frame_area - int((mask & frame).sum()) * inside_area)
    # A box that fills the image has no ring: both counts are 0 and so is its contrast.
    return to_ring / np.maximum(2 * inside_area * ring_area, 1), to_frame / (2 * inside_area * frame_area)


def _closure(pixels: Pixels, boxes: IntBoxes) -> _Floats:
    """Return `[R]` in [0, 1]: 1 where no segment of the image lies partly in the box and partly outside."""
    min_size = max(1, pixels.shape[0] * pixels.shape[1] // 400)
    segmentation = cv2.ximgproc.segmentation.createGraphSegmentation(sigma=0.8, k=150, min_size=min_size)
    segments = segmentation.processImage(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB))
    straddling = np.zeros(len(boxes), dtype=np.int64)
    for segment in range(int(segments.max()) + 1):
        mask = segments == segment
        inside = _count_inside(mask, boxes)
        straddling += np.minimum(inside, int(mask.sum()) - inside)
    closure: _Floats = np.maximum(area(boxes) - straddling, 0) / area(boxes)
    return closure


def _shape(boxes: IntBoxes, width: int, height: int) -> _Floats:
    """Return `[R]` in [0, 1]: how usual size and aspect are for an object, less what the image's edge may have cut."""
    sides = boxes[:, 2:] - boxes[:, :2]
    size = np.interp(area(boxes) / (width * height), _AREA_SHARE, _AREA_SCORE)
    aspect = np.interp(sides.max(axis=1) / sides.min(axis=1), _ASPECT, _ASPECT_SCORE)
    # Within a pixel of the edge counts as on it: the smoothing before the search moves boxes by about as much.
    edges = (boxes[:, :2] <= 1).sum(axis=1) + (boxes[:, 2:] >= np.array([width, height]) - 1).sum(axis=1)
    return np.asarray(size * aspect * _EDGES_SCORE[edges], dtype=np.float64)
