"""Source bytes to an upright 8-bit RGB image and the bytes to store, in one frame, with the given boxes moved along.

    SourceItem --decode--> DecodedImage   bytes kept, mended, or re-encoded upright
                       --> Drop           empty, too large, truncated, not decodable, annotated with another size

Bytes are kept untouched where any reader sees the same upright RGB pixels in them: 8-bit RGB JPEG, PNG or WebP with one
frame, no transparency and no EXIF rotation. A file whose pixels are all there, though what lies around them is damaged,
is mended (`mend`). All else is re-encoded: PNG as PNG, the rest as JPEG, and as PNG where a side is too long for JPEG.
"""

import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO

import msgspec
import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from pipeline.read.formats import FORMATS
from pipeline.read.mend import has_end, is_clean, mend
from pipeline.sample import DecodedImage, Drop, GivenRegion, Pixels, SourceItem, drop_of
from schemas.hashes import sha256
from schemas.reasons import Reason, Stage

# Pillow warns at one number of pixels and raises at another, and a warning cannot be caught in one thread alone. Our
# check of the header against `max_pixels` comes before any pixel is decoded, so Pillow's is off in this process.
Image.MAX_IMAGE_PIXELS = None

_SUFFIX_OF_KEPT = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}

_DECODE_ERRORS = (
    OSError,  # most of Pillow, UnidentifiedImageError too
    SyntaxError,  # broken PNG, JPEG and AVIF structure
    ValueError,  # numbers in headers; modes without a way to RGB
    RuntimeError,  # the AVIF decoder
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AssertionError,  # Pillow's, for a palette that is not there
    OverflowError,
    MemoryError,  # a header that asks for more than there is
    struct.error,
    zlib.error,
    Image.DecompressionBombError,  # where another library of the process set Pillow's limit again
)

_TURN_OF_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what brings the raw pixels upright."""

_PNG_DEPTH_AT = 24
"""Where a PNG says how many bits a channel has: its header is the first chunk."""
_TIFF_TONES = 262
"""The tag that says which end of a gray TIFF's range is white."""
_WHITE_IS_ZERO = 0
_EXIF_ORIENTATION = 0x0112
_LONGEST_JPEG_SIDE = 65_500
"""What libjpeg writes and reads, though the format could say 65,535."""


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """What is refused before it is decoded."""

    max_pixels: int = 100_000_000
    """Largest width x height of an image, in pixels; read from its header."""
    max_bytes: int = 256 * 2**20
    """Largest image file, in bytes."""

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"--read.{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """The bytes to store, and the pixels any reader will find in them."""

    data: bytes
    suffix: str
    reencoded: bool
    pixels: Pixels
    orientation: int
    """EXIF orientation (1-8) of the source's raw pixels; the stored ones are upright."""


Admit = Callable[[int], None]
"""Told a number of pixels before they are decoded; may wait until there is memory for them."""


def _at_once(num_pixels: int) -> None:
    pass


def decode(item: SourceItem, settings: DecodeSettings, admit: Admit = _at_once) -> DecodedImage | Drop:
    """Return the image upright as `[H, W, 3]` uint8 RGB with the bytes to store, or why there is none.

    An item that carries a drop gives that drop. Transparent pixels are composited over white, the first frame of
    an animation is taken, 16 bits are reduced to the upper 8. Pixels are those of the stored bytes, so a model sees
    what every later reader of the shard sees. Raises nothing for bad input.
    """
    if item.drop is not None:
        return item.drop
    assert item.data is not None, f"{item.key}: an item without a drop has data"
    if not item.data:
        return _drop(Reason.EMPTY_FILE, "the file has 0 bytes")
    if len(item.data) > settings.max_bytes:
        return _drop(Reason.TOO_LARGE, f"{len(item.data)} bytes, above --read.max-bytes {settings.max_bytes}")
    try:
        stored = _store(item.data, settings.max_pixels, admit)
        if isinstance(stored, _Stored) and not is_clean(item.data, stored.pixels):  # some readers do not notice
            missing = _drop(Reason.TRUNCATED, "the file ends before its pixels do, or they have a wrong checksum")
            stored = _store_mended(item.data, settings.max_pixels, admit) or missing
    except _DECODE_ERRORS as error:
        mended = _store_mended(item.data, settings.max_pixels, admit)
        if mended is None:
            return _drop_of(error, item.data)
        stored = mended
    return stored if isinstance(stored, Drop) else _with_given(item, stored)


def _store_mended(data: bytes, max_pixels: int, admit: Admit) -> _Stored | Drop | None:
    """Return what to store of a damaged file whose pixels are all there; None if they are not."""
    for mended in mend(data, max_pixels):
        with suppress(*_DECODE_ERRORS):
            stored = _store(mended, max_pixels, admit)
            if isinstance(stored, Drop):
                return stored
            if is_clean(mended, stored.pixels):
                return replace(stored, reencoded=True)
    return None


def _drop_of(error: BaseException, data: bytes) -> Drop:
    if isinstance(error, UnidentifiedImageError):
        # Pillow's message holds a memory address, which would make equal runs write different rows.
        return _drop(Reason.DECODE, f"none of {', '.join(FORMATS)}; the file begins with {data[:16]!r}")
    return drop_of(error, Reason.TRUNCATED if _is_truncated(data, error) else Reason.DECODE, Stage.DECODE)


def _drop(reason: Reason, message: str) -> Drop:
    return Drop(reason=reason, stage=Stage.DECODE, message=message)


def _store(data: bytes, max_pixels: int, admit: Admit) -> _Stored | Drop:
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            return _drop(Reason.TOO_LARGE, f"{width} x {height} pixels, above --read.max-pixels {max_pixels}")
        admit(width * height)
        orientation, turn = _load(image)
        if turn is None and _is_plain(image, data):
            suffix = _SUFFIX_OF_KEPT[str(image.format)]
            pixels = np.array(image)
            return _Stored(data=data, suffix=suffix, reencoded=False, pixels=pixels, orientation=orientation)
        rgb = _as_rgb(image, data)
        suffix = "png" if image.format == "PNG" or max(rgb.size) > _LONGEST_JPEG_SIDE else "jpg"
        stored = _encode(rgb if turn is None else rgb.transpose(turn), suffix, _rgb_profile(image))
    with Image.open(BytesIO(stored)) as reread:
        pixels = np.array(reread)
    return _Stored(data=stored, suffix=suffix, reencoded=True, pixels=pixels, orientation=orientation)


def _load(image: Image.Image) -> tuple[int, Image.Transpose | None]:
    """Decode the pixels; return their EXIF orientation (1-8) and what is left to do to bring them upright."""
    if image.format == "TIFF":
        # Pillow turns a TIFF upright while it loads, and forgets the tag.
        orientation = _orientation(image)
        image.load()
        return orientation, None
    image.load()
    orientation = _orientation(image)
    return orientation, _TURN_OF_ORIENTATION.get(orientation)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where the tag is absent or EXIF unreadable, as viewers do."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION)
    except (SyntaxError, ValueError, OSError, TypeError, struct.error):
        return 1
    return value if isinstance(value, int) and value in _TURN_OF_ORIENTATION else 1


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Return True for an image whose bytes every reader decodes to the same 8-bit RGB pixels."""
    if image.format not in _SUFFIX_OF_KEPT or image.mode != "RGB" or image.has_transparency_data:
        return False
    if getattr(image, "n_frames", 1) != 1:
        return False
    # Pillow reduces a 16-bit PNG to 8 bits without a word.
    return image.format != "PNG" or data[_PNG_DEPTH_AT] == 8


def _as_rgb(image: Image.Image, data: bytes) -> Image.Image:
    """Return the loaded image as 8-bit RGB, over white. Raises ValueError for modes without a fixed range."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _from_16_bit(image).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} (32 bits a channel) have no fixed range to bring to 8 bits")
    if image.format == "PNG" and "transparency" in image.info:
        depth = data[_PNG_DEPTH_AT]
        if image.mode == "RGB" and depth == 16:
            return _over_white_16_bit(image, data)
        if image.mode == "L" and depth < 8:  # Pillow brings the pixels to 8 bits, the transparent value not
            image.info["transparency"] = image.info["transparency"] % 2**depth * 255 // (2**depth - 1)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Return 16-bit gray as 8-bit gray: the upper byte (`convert` would clip at 255), the transparent value white."""
    gray16 = np.asarray(image)
    gray = (gray16 >> 8).astype(np.uint8)
    gray[gray16 == image.info.get("transparency", -1)] = 255
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_TIFF_TONES) == _WHITE_IS_ZERO:
        gray = 255 - gray  # Pillow does so for 8 bits only
    return Image.fromarray(gray)


def _over_white_16_bit(image: Image.Image, data: bytes) -> Image.Image:
    """Return a 16-bit RGB PNG, of which Pillow gives the upper bytes, with its one transparent colour white."""
    import cv2  # doctor decodes without the pipeline's extra: what shards store has 8 bits

    bgr16 = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if bgr16 is None or bgr16.dtype != np.uint16 or bgr16.shape[:2] != (image.height, image.width):
        raise ValueError("16-bit RGB with a transparent colour that cannot be told from the others")
    rgb = np.array(image)
    rgb[(bgr16[..., 2::-1] == np.array(image.info["transparency"])).all(axis=2)] = 255
    return Image.fromarray(rgb)


def _rgb_profile(image: Image.Image) -> bytes | None:
    """Return the ICC profile if it describes RGB; one of CMYK or gray says nothing of the converted pixels."""
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and profile[16:20] == b"RGB " else None


def _encode(rgb: Image.Image, suffix: str, icc_profile: bytes | None) -> bytes:
    """Return the RGB image as PNG or JPEG (quality 95, 4:4:4): equal pixels, equal bytes."""
    rgb.info = {}  # comments, times and transparency of the source would be written too
    buffer = BytesIO()
    if suffix == "png":
        rgb.save(buffer, "PNG", icc_profile=icc_profile)
    else:
        rgb.save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=icc_profile)
    return buffer.getvalue()


def _is_truncated(data: bytes, error: BaseException) -> bool:
    """Return True where the data ends early: Pillow says so, a WebP is too short, or a JPEG has no end mark."""
    if data[:4] == b"RIFF":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data[:2] == b"\xff\xd8" and not has_end(data):
        return True
    return isinstance(error, EOFError) or "truncated" in str(error).lower()


def _with_given(item: SourceItem, stored: _Stored) -> DecodedImage | Drop:
    given = _given_upright(item, stored)
    if isinstance(given, Drop):
        return given
    return DecodedImage(
        item=replace(item, data=None),
        width=stored.pixels.shape[1],
        height=stored.pixels.shape[0],
        pixels=stored.pixels,
        stored=stored.data,
        suffix=stored.suffix,
        reencoded=stored.reencoded,
        sha256=sha256(stored.data),
        given=given,
    )


def _given_upright(item: SourceItem, stored: _Stored) -> tuple[GivenRegion, ...] | Drop:
    """Return the given regions in the upright frame, or why their frame is unknown. Shares are of the upright image.

    Boxes stated for the upright size are upright. Only a size that is the upright one with its sides swapped, as EXIF
    orientations 5 to 8 swap them, tells of boxes drawn on the raw pixels; these are turned. Orientations 2 to 4, and
    square images, leave the size as it is, so their boxes are taken as drawn on the image as displayed: upright. Masks
    are of the frame of their boxes; those of boxes that are turned are left out. A box that does not fit the raw
    pixels, but the upright ones, tells of a tool that states the one size and draws on the other: then none is taken.
    """
    height, width = stored.pixels.shape[:2]
    if item.given_in_shares:
        return tuple(_in_pixels(region, width, height) for region in item.given)
    if not item.given or item.given_size in (None, (width, height)):
        return item.given
    if stored.orientation >= 5 and item.given_size == (height, width):
        if any(_is_only_within(region.box, width, height) for region in item.given):
            beyond = f"boxes reach beyond the stated {height} x {width} pixels, and not beyond the upright image's"
            drawn = f"{beyond} {width} x {height}: they were drawn upright, so state the upright size"
            return _drop(Reason.SIZE_MISMATCH, drawn)
        return tuple(
            msgspec.structs.replace(region, box=_turn(region.box, item.given_size, stored.orientation), mask_rle=None)
            for region in item.given
        )
    stated = " x ".join(map(str, item.given_size or ()))
    return _drop(Reason.SIZE_MISMATCH, f"the annotation states {stated} pixels, the image has {width} x {height}")


def _is_only_within(box: tuple[float, float, float, float], width: int, height: int) -> bool:
    """Return whether a box fits an image of this size, and not one with its sides swapped; a pixel is allowed."""
    x0, y0, x1, y1 = box
    fits = min(x0, y0) >= -1 and x1 <= width + 1 and y1 <= height + 1
    return fits and (x1 > height + 1 or y1 > width + 1)


def _in_pixels(region: GivenRegion, width: int, height: int) -> GivenRegion:
    x0, y0, x1, y1 = region.box
    return msgspec.structs.replace(region, box=(x0 * width, y0 * height, x1 * width, y1 * height))


def _turn(
    box: tuple[float, float, float, float], size: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """Turn an xyxy box of the raw frame (`size` = width, height) upright, for EXIF orientations 5 to 8."""
    (x0, y0, x1, y1), (width, height) = box, size
    if orientation in (7, 8):
        x0, x1 = width - x1, width - x0
    if orientation in (6, 7):
        y0, y1 = height - y1, height - y0
    return y0, x0, y1, x1
