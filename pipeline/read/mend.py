"""Picture files whose pixels are all there, though what lies around them is damaged: made whole without touching them.

PNG    chunks that say nothing of the pixels are left out where they are damaged or too large for readers; checksums and
       the end mark are written again
JPEG   the end mark is added, where nothing of the pixels is missing; segments that say nothing of them are left out

The bytes are then such as any reader loads, where the originals made some readers fail.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO

from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_NEEDED = {b"IHDR", b"PLTE", b"tRNS"}
"""Chunks beside the pixels without which there are others."""
_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By a PNG's colour type."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG: first column and row, steps of columns and rows."""

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS = 0xDA
_COMMENT = 0xFE
_FRAMES = {0xC0, 0xC1, 0xC2}
"""Markers of frames: sequential, extended, progressive."""
_NEEDED_APPS = {0xE0, 0xEE}
"""Application segments that tell what the colours are: JFIF's and Adobe's."""
_SHORTEST_APP = 14
"""Bytes of such a segment that says so."""
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""What ends a scan: neither a stuffed byte nor a restart."""
_FILLERS = (b"\x55\xaa\x33" * 64, b"\xaa\x55\xcc" * 64)


def is_clean(data: bytes) -> bool:
    """Return False for a PNG with a wrong checksum, a PNG or JPEG without its end: readers differ on what they show."""
    if data.startswith(_SOI):
        end = data.rfind(_EOI)  # others may follow, as behind the first picture of several; a preview's comes before
        return end == len(data) - len(_EOI) or end > max((stop for *_, stop in _header(data)), default=0)
    if not data.startswith(_PNG):
        return True
    ends = False
    for kind, _, is_whole in _chunks(data):
        if not is_whole:
            return False
        ends = kind == b"IEND"
    return ends


def mend(data: bytes, max_pixels: int) -> Iterator[bytes]:
    """Yield what the file may be mended to, the closest to it first; whether a reader loads it is to be tried.

    Yields nothing where pixels are missing, and for more than `max_pixels` of them.
    """
    if data.startswith(_PNG):
        yield from _mended_pngs(data, max_pixels)
    elif data.startswith(_SOI):
        yield from _mended_jpegs(data, max_pixels)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield kind and body of each chunk, and whether it is whole: all there, with the right checksum."""
    position = len(_PNG)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        position += 12 + length
        checksum = data[position - 4 : position]
        yield kind, body, len(checksum) == 4 and zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(checksum, "big")
        if kind == b"IEND":
            return


def _mended_pngs(data: bytes, max_pixels: int) -> Iterator[bytes]:
    chunks = list(_chunks(data))
    if not chunks or any(kind in (b"IHDR", b"PLTE") and not is_whole for kind, _, is_whole in chunks):
        return
    pixels = b"".join(body for kind, body, _ in chunks if kind == b"IDAT")
    pixels = _completed(pixels, chunks[0][1], max_pixels)
    kinds = {kind for kind, _, is_whole in chunks if is_whole}
    for kept in (kinds, kinds - _TEXT, _NEEDED | {b"iCCP", b"eXIf"}, _NEEDED) if pixels else ():
        parts, left = [_PNG], pixels
        for kind, body, is_whole in chunks:
            if kind == b"IDAT":
                body, left = left, b""
            if body and (kind == b"IDAT" or (is_whole and kind in kept)):
                parts.append(struct.pack(">I", len(body)) + kind + body + _checksum(kind + body))
        yield b"".join([*parts, struct.pack(">I", 0) + b"IEND" + _checksum(b"IEND")])


def _checksum(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def _completed(packed: bytes, header: bytes, max_pixels: int) -> bytes:
    """Return a PNG's pixels as a whole zlib stream; nothing where some are missing or wrong."""
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if width * height > max_pixels or colours not in _CHANNELS:
        return b""
    size = 0
    for x, y, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // right), -(-(height - y) // down)
        size += rows * (1 + -(-columns * depth * _CHANNELS[colours] // 8)) if columns > 0 and rows > 0 else 0
    stream = zlib.decompressobj()
    try:
        pixels = stream.decompress(packed, size + 1)
    except zlib.error:
        return b""
    if stream.eof:
        return packed
    return zlib.compress(pixels[:size]) if len(pixels) >= size else b""


def _mended_jpegs(data: bytes, max_pixels: int) -> Iterator[bytes]:
    plain = _without_segments(data)
    for candidate in (data, plain):
        if candidate != data:
            yield candidate
        ended = _ended(candidate, max_pixels)
        if ended is not None:
            yield ended


def _without_segments(data: bytes) -> bytes:
    """Return a JPEG without the segments before its first scan that say nothing of the pixels."""
    parts, position = [_SOI], 2
    for marker, start, end in _header(data):
        if marker == _SOS:
            break
        application = 0xE0 <= marker <= 0xEF or marker == _COMMENT
        if not application or (marker in _NEEDED_APPS and end - start >= _SHORTEST_APP):
            parts.append(data[start:end])
        position = end
    return b"".join([*parts, data[position:]])


def _header(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the segments of a JPEG up to its first scan's."""
    for segment in _segments(data):
        yield segment
        if segment[0] == _SOS:
            return


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment of a JPEG, where it begins and ends; a scan's header without its pixels."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, position, end
        position = end
        if marker == _SOS:
            following = _MARKER.search(data, end)
            if following is None:
                return
            position = following.start()


def _ended(data: bytes, max_pixels: int) -> bytes | None:
    """Return a JPEG that lacks its end mark with one; None where it has one, or pixels are missing.

    They are all there if whatever follows in place of the missing bytes changes none of them.
    """
    body = data.rstrip(b"\0")
    body += b"\0" if body.endswith(b"\xff") else b""  # a stuffed byte
    if body.endswith(_EOI) or not _has_all_scans(body):
        return None
    try:
        with Image.open(BytesIO(body + _EOI), formats=("JPEG",)) as image:
            if image.width * image.height > max_pixels:
                return None
        pixels = [_pixels(body + filler + _EOI) for filler in (b"", *_FILLERS)]
    except (OSError, SyntaxError, ValueError, struct.error):
        return None
    return body + _EOI if pixels[0] == pixels[1] == pixels[2] else None


def _pixels(data: bytes) -> bytes:
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        return sha256(image.tobytes()).digest()


def _has_all_scans(data: bytes) -> bool:
    """Say whether the scans of a JPEG bring every coefficient of every component to its last bit."""
    missing: dict[int, set[int]] = {}
    for marker, start, end in _segments(data):
        segment = data[start + 4 : end]
        if end > len(data) or not segment:
            return False
        if marker in _FRAMES:
            missing = {component: set(range(64)) for component in segment[6::3]}
        elif marker == _SOS and len(segment) >= 4 + 2 * segment[0]:
            first, last, bits = segment[1 + 2 * segment[0] :][:3]
            for component in segment[1 : 1 + 2 * segment[0] : 2]:
                if bits & 15 == 0:
                    missing.get(component, set()).difference_update(range(first, last + 1))
    return bool(missing) and not any(missing.values())
