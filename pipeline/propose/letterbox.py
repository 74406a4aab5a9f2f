"""Fitting an image into a detector's square input, and its boxes back: exact, and the same among any batch mates."""

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.images import Pixels
from schemas.boxes import Boxes

_GRAY = 114
"""The padding YOLO models are trained with."""


@dataclass(frozen=True, kw_only=True)
class Letterboxed:
    """A square input and how it was made."""

    pixels: Pixels
    """`[S, S, 3]` uint8 RGB: the image, resized with its aspect kept, centred on gray."""
    scale_x: float
    """Input pixels an image pixel."""
    scale_y: float
    left: int
    """Input pixels of padding."""
    top: int

    def to_image(self, boxes_input: Boxes) -> Boxes:
        """Return `[R, 4]` xyxy boxes of the input's pixels in the image's pixels (not clipped)."""
        offset = np.array([self.left, self.top, self.left, self.top])
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])
        return np.asarray((boxes_input - offset) / scale, dtype=np.float32)


def letterbox(pixels: Pixels, side: int) -> Letterboxed:
    """Fit `[H, W, 3]` uint8 pixels into `side` x `side`. The two scales differ a little: sizes are whole pixels."""
    height, width = pixels.shape[:2]
    scale = side / max(width, height)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (side - new_width) // 2, (side - new_height) // 2
    square = np.full((side, side, 3), _GRAY, dtype=np.uint8)
    shrinks = scale < 1
    resized = cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    square[top : top + new_height, left : left + new_width] = resized
    return Letterboxed(pixels=square, scale_x=new_width / width, scale_y=new_height / height, left=left, top=top)
