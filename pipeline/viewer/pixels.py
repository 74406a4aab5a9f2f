"""Image bytes on their way to the page: what they are, and smaller ones where the stored file is large."""

import io

from PIL import Image

from schemas.folder import DatasetError

_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
_MAX_PIXELS = 200_000_000
_JPEG_QUALITY = 82


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
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise DatasetError(f"{where}: {image.width} x {image.height} pixels are too many to show")
            image.draft("RGB", (max_side, max_side))
            image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
            rgba = image.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{where}: cannot be decoded ({error}); fetch the tar, or write the shard again") from error
    flat = Image.new("RGB", rgba.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    file = io.BytesIO()
    flat.save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return file.getvalue()
