"""An image file as it is displayed: decoded, upright by its EXIF orientation, its boxes and masks turned with it."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from schemas.boxes import Boxes
from trainer.data.decode import Pixels, UnusableSampleError
from trainer.errors import TrainingError
from trainer.evaluate.masks import Mask

_ORIENTATION = 0x0112
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def image_files(folder: str) -> list[Path]:
    """Return the images of a folder by name. Raises TrainingError where there is none."""
    root = Path(folder)
    if not root.is_dir():
        raise TrainingError(f"--images {folder}: there is no such folder")
    files = sorted(file for file in root.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise TrainingError(f"--images {folder}: no image is in it ({', '.join(sorted(_SUFFIXES))})")
    return files


def decode_upright(content: bytes) -> tuple[Pixels, int]:
    """Return the pixels as displayed and the file's EXIF orientation, 1 to 8. Raises UnusableSampleError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(content)) as image:
                orientation = image.getexif().get(_ORIENTATION, 1)
                upright = ImageOps.exif_transpose(image).convert("RGB")
                return np.asarray(upright), orientation if orientation in range(1, 9) else 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableSampleError(f"cannot be decoded: {error}") from error


def is_raw_frame(stated: tuple[int, int] | None, shown: tuple[int, int], orientation: int) -> bool:
    """Say whether boxes of an image of a `stated` (width, height) were drawn before it was turned upright.

    Only a size with its sides swapped, as EXIF orientations 5 to 8 swap them, tells of that. `shown` is the (width,
    height) of the upright image. Raises UnusableSampleError where `stated` is neither.
    """
    if stated is None or stated == shown:
        return False
    if orientation >= 5 and stated == shown[::-1]:
        return True
    has = f"{shown[0]} x {shown[1]}"
    raise UnusableSampleError(f"the annotation states {stated[0]} x {stated[1]} pixels, the image has {has}")


def turn_boxes(boxes: Boxes, size: tuple[int, int], orientation: int) -> Boxes:
    """Return `[n, 4]` boxes of the raw frame (`size` = width, height) upright, for EXIF orientations 5 to 8."""
    x0, y0, x1, y1 = boxes.T
    width, height = size
    if orientation in (7, 8):
        x0, x1 = width - x1, width - x0
    if orientation in (6, 7):
        y0, y1 = height - y1, height - y0
    return np.stack([y0, x0, y1, x1], axis=1).astype(np.float32)


def turn_mask(mask: Mask, orientation: int) -> Mask:
    """Return a mask of the raw frame upright, for EXIF orientations 5 to 8."""
    if orientation in (7, 8):
        mask = mask[:, ::-1]
    if orientation in (6, 7):
        mask = mask[::-1]
    return mask.T
