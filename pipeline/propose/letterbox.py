"""Fitting an image into a model's square input, and boxes and masks back: exact, and the same among any batch mates."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sample import Pixels
from schemas.boxes import Boxes

_GRAY = (114, 114, 114)
"""The padding YOLO models are trained with."""
_STRIDE = 32
"""Pixels of a square per cell of the models' coarsest features."""


@dataclass(frozen=True, kw_only=True)
class Letterboxed:
    """A square input and how it was made."""

    pixels: Pixels
    """`[S, S, 3]` uint8 RGB: the image, resized with its aspect kept, on a plain colour."""
    width: int
    """Of the image, in its own pixels."""
    height: int
    inner_width: int
    """Of the image within the square, in input pixels."""
    inner_height: int
    left: int
    """Input pixels of padding."""
    top: int

    @property
    def scale_x(self) -> float:
        """Input pixels per image pixel."""
        return self.inner_width / self.width

    @property
    def scale_y(self) -> float:
        """Input pixels per image pixel."""
        return self.inner_height / self.height

    def to_image(self, boxes_input: Boxes) -> Boxes:
        """Return `[R, 4]` xyxy boxes of the input's pixels in the image's pixels (not clipped)."""
        offset = np.array([self.left, self.top, self.left, self.top])
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])
        return np.asarray((boxes_input - offset) / scale, dtype=np.float32)

    def mask_to_image(self, mask_inner: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return a mask, `[inner_height, inner_width]` of 0 and 1, in the image's pixels: `[height, width]`.

        An image pixel is in the mask if its centre is, or, where the input is the finer of the two, if half of it is.
        """
        size = (self.width, self.height)
        if self.inner_width > self.width or self.inner_height > self.height:
            covered = cv2.resize(mask_inner * np.uint8(255), size, interpolation=cv2.INTER_AREA)
            return np.asarray(covered > 127, dtype=np.uint8)
        return np.asarray(cv2.resize(mask_inner, size, interpolation=cv2.INTER_NEAREST_EXACT))


def check_side(image_side: int) -> None:
    """Raise ValueError for a square that the models could only take padded further, in a way of their own."""
    if image_side < _STRIDE or image_side % _STRIDE:
        raise ValueError(f"--propose.image-side is {image_side}, but must be a multiple of {_STRIDE}")


def letterbox(pixels: Pixels, side: int, *, centred: bool = True, fill: tuple[int, int, int] = _GRAY) -> Letterboxed:
    """Fit `[H, W, 3]` uint8 pixels into `side` x `side`. The two scales differ a little: sizes are whole pixels.

    The image lies in the middle of the square, or, unless `centred`, in its top left corner.
    """
    height, width = pixels.shape[:2]
    scale = side / max(width, height)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = ((side - inner_width) // 2, (side - inner_height) // 2) if centred else (0, 0)
    square = np.full((side, side, 3), fill, dtype=np.uint8)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(pixels, (inner_width, inner_height), interpolation=interpolation)
    square[top : top + inner_height, left : left + inner_width] = resized
    return Letterboxed(
        pixels=square,
        width=width,
        height=height,
        inner_width=inner_width,
        inner_height=inner_height,
        left=left,
        top=top,
    )
