"""What a box says of itself, and of the boxes before it in its image."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.boxes import Boxes, iou


def box_columns(
    boxes: Boxes, width: npt.NDArray[np.float32], height: npt.NDArray[np.float32], keys: Sequence[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the shorter side in pixels, the share of the image's area, and the overlap, `[R]` float32 each.

    `boxes` `[R, 4]` float32 are xyxy pixels of images of `width` and `height` (`[R]`), those of one image adjacent.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    return {
        "side": sides.min(axis=1, initial=np.inf).astype(np.float32),
        "area": (sides.prod(axis=1) / (width * height)).astype(np.float32),
        "overlap": overlaps(boxes, keys),
    }


def overlaps(boxes: Boxes, keys: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the largest IoU of each box with an earlier one of its image, `[R]` float32; NaN where there is none."""
    found = np.full(len(boxes), np.nan, dtype=np.float32)
    start = 0
    for end in range(1, len(keys) + 1):
        if end < len(keys) and keys[end] == keys[start]:
            continue
        if end - start > 1:
            between = np.tril(iou(boxes[start:end], boxes[start:end]), k=-1)
            found[start + 1 : end] = between.max(axis=1)[1:]
        start = end
    return found
