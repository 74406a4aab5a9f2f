"""Masks: their tight boxes, and COCO's compressed run lengths (which need pycocotools)."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def mask_boxes(masks: Tensor) -> Tensor:
    """Return the tight boxes of `[N, H, W]` masks (bool, or 0 and 1): `[N, 4]` float32 xyxy in their frame.

    Right and bottom are exclusive. The box of an empty mask is no box: its right is not beyond its left.
    """
    spans = []
    for across in (1, 2):  # over the rows: which columns are in the mask; over the columns: which rows
        inside = masks.any(dim=across).bool()
        length = inside.shape[1]
        positions = torch.arange(length, device=masks.device).expand_as(inside)
        first = torch.where(inside, positions, length).amin(dim=1)
        last = torch.where(inside, positions, -1).amax(dim=1)
        spans.append((first, last + 1))
    (left, right), (top, bottom) = spans
    return torch.stack([left, top, right, bottom], dim=1).float()


def as_rle(mask: npt.NDArray[np.uint8]) -> str:
    """Return a mask, `[H, W]` uint8 of 0 and 1, as the `counts` of COCO's compressed run lengths; `size` is H, W."""
    from pycocotools import mask as coco

    counts: bytes = coco.encode(np.asfortranarray(mask))["counts"]
    return counts.decode("ascii")
