"""Crops on their way into a model or a request: sent to the device in one piece, scaled into a range of sizes."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from pipeline.sample import Pixels


def to_device(crops: Sequence[Pixels], device: str) -> list[Any]:
    """Return crops (`[h, w, 3]` uint8 RGB each) as `[3, h, w]` uint8 tensors on the device.

    For a GPU all lie in one pinned buffer that is copied without waiting for it.
    """
    import torch

    if not device.startswith("cuda"):
        return [torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1) for crop in crops]
    buffer = torch.empty(sum(crop.size for crop in crops), dtype=torch.uint8, pin_memory=True)
    filled = buffer.numpy()
    offset = 0
    for crop in crops:
        filled[offset : offset + crop.size] = crop.reshape(-1)
        offset += crop.size
    on_device: Any = buffer.to(device, non_blocking=True)
    parts = on_device.split([crop.size for crop in crops])
    return [part.view(crop.shape).permute(2, 0, 1) for part, crop in zip(parts, crops, strict=True)]


def scaled(pixels: Pixels, *, min_side: int, max_side: int) -> Pixels:
    """Return the crop with both sides between `min_side` and `max_side`, in pixels.

    Its proportions stay, unless one side is more than `max_side / min_side` times the other: such a sliver is widened.
    """
    height, width = pixels.shape[:2]
    scale = min(max(1.0, min_side / min(height, width)), max_side / max(height, width))
    size = (_clamped(width * scale, min_side, max_side), _clamped(height * scale, min_side, max_side))
    if size == (width, height):
        return pixels
    by = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=by), dtype=np.uint8)


def _clamped(side: float, least: int, most: int) -> int:
    return min(max(round(side), least), most)
