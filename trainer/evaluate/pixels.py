"""An image file as it is displayed: decoded, upright by its EXIF orientation, its boxes and masks turned with it."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from schemas.boxes import Boxes
from trainer.data.decode import Pixels, UnusableSampleError
from trainer.errors import TrainingError
from trainer.evaluate.masks import Mask

_ORIENTATION = 0x0112
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def image_files(folder: str, out: str | None = None) -> dict[str, Path]:
    """Return the images of a folder and of those in it, by their path in it, in its order; hidden ones are passed over.

    What lies in the folder `out` is not looked at: pictures that an earlier run wrote. Raises TrainingError where there
    is no image, or `out` is the folder itself.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "a file: name the folder that it is in" if root.exists() else "there is no such folder"
        raise TrainingError(f"--images {folder}: {what}")
    written = None if out is None else Path(out).resolve()
    if written == root.resolve():
        raise TrainingError(f"--out {out}: the images are there: name another folder, such as {out}-found")
    found = {
        file.relative_to(root).as_posix(): file
        for file in root.rglob("*")
        if file.suffix.lower() in _SUFFIXES and not file.is_dir() and (written is None or not _is_in(file, written))
    }
    files = {name: found[name] for name in sorted(found) if not any(part[0] == "." for part in name.split("/"))}
    if not files:
        raise TrainingError(f"--images {folder}: no image is in it ({', '.join(sorted(_SUFFIXES))})")
    return files


def _is_in(file: Path, folder: Path) -> bool:
    return (file.parent.resolve() / file.name).is_relative_to(folder)


def decode_upright(content: bytes) -> tuple[Pixels, int]:
    """Return the pixels as displayed and the file's EXIF orientation, 1 to 8. Raises UnusableSampleError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(content)) as image:
                orientation = image.getexif().get(_ORIENTATION, 1)
                upright = _rgb(ImageOps.exif_transpose(image))
                return np.asarray(upright), orientation if orientation in range(1, 9) else 1
    except UnidentifiedImageError as error:
        raise UnusableSampleError("cannot be decoded: it is no image that Pillow knows") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableSampleError(f"cannot be decoded: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image in 8 bits a channel, on white where it is transparent, as `fineclip annotate` stores it."""
    if image.mode.startswith("I;16"):  # `convert` would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} (32 bits a channel) have no fixed range to bring to 8 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


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
