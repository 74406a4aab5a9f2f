"""Image bytes on their way to the page: what they are, smaller ones where the stored file is large, and crops."""

import io
from math import ceil

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


def smaller(data: bytes, where: str, *, max_side: int, box: Box | None = None) -> bytes:
    """Return the image, or its part in `box`, as a JPEG whose longer side is at most `max_side` pixels.

    `box` is xyxy in pixels of the image, rounded outwards. Transparency becomes white. Raises DatasetError, naming
    `where`, for bytes that cannot be decoded and for a box outside the image.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            width, height = image.size
            if width * height > _MAX_PIXELS:
                raise DatasetError(f"{where}: {width} x {height} pixels are too many to show")
            x0, y0, x1, y1 = box or (0, 0, width, height)
            left, top, right, bottom = max(0, int(x0)), max(0, int(y0)), min(width, ceil(x1)), min(height, ceil(y1))
            if left >= right or top >= bottom:
                raise DatasetError(f"{where}: the box {box} is outside the image of {width} x {height} pixels")
            scale = max_side / max(right - left, bottom - top)
            image.draft("RGB", (ceil(width * scale), ceil(height * scale)))  # a JPEG may be decoded smaller
            across, down = image.width / width, image.height / height
            part = image.crop((int(left * across), int(top * down), ceil(right * across), ceil(bottom * down)))
            part.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
            rgba = part.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{where}: cannot be decoded ({error}); fetch the tar, or write the shard again") from error
    flat = Image.new("RGB", rgba.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    file = io.BytesIO()
    flat.save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return file.getvalue()
