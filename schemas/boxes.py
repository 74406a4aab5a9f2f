"""Box arithmetic in numpy. Boxes are `[R, 4]` xyxy, right and bottom exclusive, in pixels unless a name says other.

A *frame* is whose pixels the numbers count: the source image, the stored image or a model's input. Functions here
never change the frame; `scale` does, and says so.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]
"""`[R, 4]` float32 xyxy pixels, right and bottom exclusive."""

QUANTUM = 1 / 16
"""Boxes are rounded to this many pixels before they are stored or hashed (float32 holds such values exactly)."""

_MIN_JUDGED, _NEAR, _MANY, _NEARLY_ALL = 10, 0.1, 0.25, 0.98


def as_boxes(values: Any) -> Boxes:
    """Return `values` (any nested sequence of four numbers a box, possibly empty) as `[R, 4]` float32."""
    return np.asarray(values, dtype=np.float32).reshape(-1, 4)


def xywh_to_xyxy(boxes_xywh: Any) -> Boxes:
    """Convert COCO's `[R, 4]` x, y, width, height to xyxy in the same frame."""
    boxes = as_boxes(boxes_xywh).copy()
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def xyxy_to_xywh(boxes: Any) -> Boxes:
    """Convert `[R, 4]` xyxy to COCO's x, y, width, height in the same frame."""
    boxes_xywh = as_boxes(boxes).copy()
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    return boxes_xywh


def around_turned(box: tuple[float, float, float, float], degrees: float) -> tuple[float, float, float, float]:
    """Return the upright xyxy box around `box` turned by `degrees` about its middle, either way; the frame stays."""
    if degrees % 180 == 0:
        return box
    x0, y0, x1, y1 = box
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    half_width = ((x1 - x0) * cosine + (y1 - y0) * sine) / 2
    half_height = ((x1 - x0) * sine + (y1 - y0) * cosine) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def quantise(boxes: Boxes) -> Boxes:
    """Round `[R, 4]` boxes to multiples of `QUANTUM` (half to even); the frame is unchanged and no zero negative."""
    return (np.round(boxes / QUANTUM) * QUANTUM + 0.0).astype(np.float32)


def clip(boxes: Boxes, width: int, height: int) -> Boxes:
    """Clip `[R, 4]` boxes to an image of `width` x `height` pixels of the same frame."""
    limits = np.array([width, height, width, height], dtype=np.float32)
    return np.asarray(np.clip(boxes, 0, limits), dtype=np.float32)


def scale(boxes: Boxes, factor_x: float, factor_y: float) -> Boxes:
    """Move `[R, 4]` boxes to a frame whose pixels are `factor_x`, `factor_y` times as many along each axis."""
    return np.asarray(boxes * np.array([factor_x, factor_y, factor_x, factor_y]), dtype=np.float32)


def area(boxes: Boxes) -> npt.NDArray[np.float32]:
    """Return `[R]` areas in square pixels; degenerate boxes have area 0."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1], dtype=np.float32)


def is_valid(boxes: Boxes) -> npt.NDArray[np.bool_]:
    """Return `[R]` bool: all four numbers finite, right beyond left and bottom beyond top."""
    finite = np.isfinite(boxes).all(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(finite & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))


def iou(boxes_a: Boxes, boxes_b: Boxes) -> npt.NDArray[np.float32]:
    """Return `[A, B]` intersection over union; a pair of empty boxes has IoU 0."""
    top_left = np.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    bottom_right = np.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])
    sides = np.maximum(bottom_right - top_left, 0)
    intersection = sides[..., 0] * sides[..., 1]
    union = area(boxes_a)[:, None] + area(boxes_b)[None, :] - intersection
    ratio: npt.NDArray[np.float32] = np.zeros_like(intersection)
    np.divide(intersection, union, out=ratio, where=union > 0)
    return ratio


def misread(boxes: Boxes, width: Any, height: Any) -> str | None:
    """Return what was probably misread where `[R, 4]` boxes that a source gives are no sensible boxes, or None.

    `width` and `height` are `[R]`, of each box's image; `boxes` may be clipped to it. Ten finite boxes are judged, or
    more. Corners that are taken for x, y, width, height put most boxes beyond their images. Clipped, they end at the
    right or the lower edge, and elsewhere no box is narrower than its distance from the left.
    """
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(width) & np.isfinite(height)
    boxes, sizes = boxes[finite], np.stack([width, height], axis=1)[finite]
    if len(boxes) < _MIN_JUDGED:
        return None
    within = int(((boxes >= 0) & (boxes <= 1)).all(axis=1).sum())
    if within > len(boxes) / 2:
        return f"{within:,} of {len(boxes):,} given boxes lie within 0..1: shares of the image, where pixels are due?"
    start, end = boxes[:, :2], boxes[:, 2:]
    beyond = int((end > sizes + 1).any(axis=1).sum())
    corners = "corners x0, y0, x1, y1, where x, y, width, height are due?"
    if beyond > len(boxes) / 2:
        return f"{beyond:,} of {len(boxes):,} given boxes reach beyond their images: {corners}"
    tells = (start > sizes * _NEAR).any(axis=1)  # from near the top left corner, either form gives the same box
    start, end, sizes = start[tells], end[tells], sizes[tells]
    if len(start) < _MIN_JUDGED:
        return None
    at_edge = end >= sizes
    doubled = (end + 2 * QUANTUM >= np.minimum(2 * start, sizes)).all(axis=1)
    if doubled.mean() > _NEARLY_ALL and (at_edge.mean(axis=0) > _MANY).all():
        told = f"{int(at_edge.any(axis=1).sum()):,} of {len(boxes):,} given boxes end at the right or lower edge"
        return f"{told} of their images: {corners}"
    return None
