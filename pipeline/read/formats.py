"""The formats of pictures: the one list by which files are found when planning and opened when decoding.

A suffix says what a file is taken for; what it is, its first bytes say (`decode`).
"""

import struct
from io import BytesIO

from PIL import Image

FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".mpo": "JPEG",
    ".png": "PNG",
    ".apng": "PNG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
    ".avif": "AVIF",
    ".avifs": "AVIF",
    ".jp2": "JPEG2000",
    ".j2k": "JPEG2000",
    ".j2c": "JPEG2000",
    ".jpc": "JPEG2000",
    ".jpf": "JPEG2000",
    ".jpx": "JPEG2000",
}
"""What a file with one of these suffixes, in any case, is taken for: pictures that are read."""

FORMATS = tuple(dict.fromkeys(FORMAT_OF_SUFFIX.values()))
"""What is opened, by Pillow's names (JPEG stands for MPO too). Not all Pillow knows: its EPS reader would run
Ghostscript on the input."""

IMAGE_SUFFIXES = tuple(FORMAT_OF_SUFFIX)

_RAW = "a camera's raw data: develop it to JPEG or TIFF first"
_PHONE = "HEIF: convert it to JPEG first, with heif-convert for instance"
_DRAWING = "a drawing, which has no pixels: render it first"
_PAGES = "a document: extract its pictures first"
_VIDEO = "a video: extract its frames first"
_LAYERS = "a file of an image editor: export it first"
_OTHER = "a format that is not read: convert it to PNG or JPEG first"

NOT_READ = {
    **dict.fromkeys((".heic", ".heif", ".hif", ".heics"), _PHONE),
    **dict.fromkeys((".raw", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf"), _RAW),
    **dict.fromkeys((".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f", ".3fr", ".iiq", ".kdc", ".dcr", ".mrw"), _RAW),
    **dict.fromkeys((".svg", ".svgz", ".eps", ".ps", ".ai", ".wmf", ".emf"), _DRAWING),
    **dict.fromkeys((".pdf", ".djvu"), _PAGES),
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"), _VIDEO),
    **dict.fromkeys((".psd", ".psb", ".xcf", ".kra"), _LAYERS),
    **dict.fromkeys((".jxl", ".exr", ".hdr", ".tga", ".ico", ".icns", ".dds", ".qoi", ".pcx", ".dcm", ".pfm"), _OTHER),
}
"""Suffix -> what it is, and what to do: files that hold pictures and are not read."""


def suffix_of(name: str) -> str:
    """Return what follows the last dot of a path's name, with the dot, in lower case; "" where there is none."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return f"{dot}{suffix}".lower() if stem else ""


def is_image(name: str) -> bool:
    """Return True for a name with the suffix of a picture that is read."""
    return suffix_of(name) in FORMAT_OF_SUFFIX


def looks_like_picture(head: bytes) -> bool:
    """Return True for the first bytes of a picture that is read, whatever it is called."""
    try:
        Image.open(BytesIO(head), formats=FORMATS).close()
    except (OSError, SyntaxError, ValueError, TypeError, RuntimeError, OverflowError, struct.error):
        return False
    return True
