"""Image bytes on their way to the page: what they are, smaller ones where the stored file is large, and crops."""

import io
from dataclasses import dataclass
from math import ceil, floor

from PIL import Image

from schemas.folder import DatasetError

_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
_MAX_PIXELS = 200_000_000
_JPEG_QUALITY = 82

Box = tuple[float, float, float, float]
"""xyxy, in pixels of the stored image."""


def media_type(data: bytes, where: str) -> str:
    """Return the media type of an image's bytes. Raises DatasetError, naming `where`, for what no shard can hold."""
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise DatasetError(f"{where}: these bytes are no image; the tar is damaged: fetch it, or write the shard again")


def smaller(data: bytes, where: str, *, max_side: int) -> bytes:
    """Return the image as a JPEG whose longer side is at most `max_side` pixels; transparency becomes white.

    Raises DatasetError, naming `where`, for bytes that cannot be decoded.
    """
    return _jpeg(decode(data, where, max_side=max_side).image, max_side)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An image's pixels, perhaps fewer than are stored."""

    image: Image.Image
    """RGB."""
    width: int
    """Of the stored image, as `height`."""
    height: int


def decode(data: bytes, where: str, *, shrink: int = 1, max_side: int | None = None) -> Decoded:
    """Return the image's pixels; transparency becomes white.

    A JPEG is decoded at 1 / `shrink` (1, 2, 4 or 8) of its size, or with `max_side` at the smallest of these sizes that
    is no smaller: that is quicker. Raises DatasetError, naming `where`, for bytes that cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            width, height = image.size
            if width * height > _MAX_PIXELS:
                raise DatasetError(f"{where}: {width} x {height} pixels are too many to show")
            scale = 1 / shrink if max_side is None else max_side / max(width, height)
            image.draft("RGB", (ceil(width * scale), ceil(height * scale)))
            pixels = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{where}: cannot be decoded ({error}); fetch the tar, or write the shard again") from error
    if pixels.mode == "RGBA":
        flat = Image.new("RGB", pixels.size, "white")
        flat.paste(pixels, mask=pixels.getchannel("A"))
        pixels = flat
    return Decoded(image=pixels, width=width, height=height)


def shrink_for(box: Box, max_side: int) -> int:
    """Return the `shrink` at which the crop of `box` still has `max_side` pixels or all that are stored."""
    side = max(box[2] - box[0], box[3] - box[1])
    return max((shrink for shrink in (1, 2, 4, 8) if side >= shrink * max_side), default=1)


def crop(decoded: Decoded, box: Box, where: str, *, max_side: int) -> bytes:
    """Return what is in `box`, rounded outwards, as a JPEG whose longer side is at most `max_side` pixels.

    Raises DatasetError, naming `where`, for a box outside the image.
    """
    width, height = decoded.width, decoded.height
    x0, y0, x1, y1 = max(0, floor(box[0])), max(0, floor(box[1])), min(width, ceil(box[2])), min(height, ceil(box[3]))
    if x0 >= x1 or y0 >= y1:
        raise DatasetError(f"{where}: the box {box} is outside the image of {width} x {height} pixels")
    across, down = decoded.image.width / width, decoded.image.height / height
    part = decoded.image.crop((int(x0 * across), int(y0 * down), ceil(x1 * across), ceil(y1 * down)))
    return _jpeg(part, max_side)


def _jpeg(image: Image.Image, max_side: int) -> bytes:
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return file.getvalue()
