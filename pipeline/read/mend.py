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

import numpy as np
from PIL import Image

from pipeline.sample import Pixels

_PNG = b"\x89PNG\r\n\x1a\n"
_NEEDED = {b"IHDR", b"PLTE", b"tRNS"}
"""Chunks beside the pixels without which there are others."""
_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By a PNG's colour type."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG: first column and row, steps of columns and rows."""

_HEADER = struct.Struct(">IIBBBBB")
_INTERLACED_AT = 28
"""Where a PNG says whether it is interlaced."""

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS = 0xDA
_COMMENT = 0xFE
_PROGRESSIVE = 0xC2
_FRAMES = {0xC0, 0xC1, _PROGRESSIVE}
"""Markers of frames: sequential, extended, progressive."""
_NEEDED_APPS = {0xE0, 0xEE}
"""Application segments that tell what the colours are: JFIF's and Adobe's."""
_SHORTEST_APP = 14
"""Bytes of such a segment that says so."""
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""What ends a scan: neither a stuffed byte nor a restart."""
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_RESTARTS = 0xDD
"""The marker of the segment that says how many units lie between two restarts."""
_FILLED_UP = (128, 64)
"""What readers show where a JPEG's data is missing: gray, darker where it has four channels."""
_GRAY_TOLERANCE = 3
"""By which it differs once it was encoded again."""
_LONGEST_ZEROS = 8
"""As many zero bytes hardly end a scan."""
_ZEROS_BEFORE_MARKER = bytes(_LONGEST_ZEROS) + b"\xff"
_FILLERS = (b"\x55\xaa\x33" * 64, b"\xaa\x55\xcc" * 64)


def is_clean(data: bytes, pixels: Pixels) -> bool:
    """Return False for a PNG or JPEG on whose `pixels` readers differ, or that holds too little for them.

    That is a PNG with a wrong checksum or without its end, a JPEG without its end, and either where data is missing
    before a sound end, which readers fill up without a word. `pixels` are what was read: `[H, W, 3]` uint8 RGB, in any
    orientation. They tell where a closer look is due, which takes as long as reading them or longer.
    """
    if data.startswith(_SOI):
        return has_end(data) and not _lacks_scans(data) and (not _may_be_filled_up(data, pixels) or _is_whole(data))
    if not data.startswith(_PNG):
        return True
    ends = False
    for kind, _, is_whole in _chunks(data):
        if not is_whole:
            return False
        ends = kind == b"IEND"
    return ends and (not _may_lack_rows(data, pixels) or _holds_all_rows(data))


def has_end(data: bytes) -> bool:
    """Say whether a JPEG has an end mark behind its header."""
    end = data.rfind(_EOI)  # others may follow, as behind the first picture of several; a preview's comes before
    return end == len(data) - len(_EOI) or end > max((stop for *_, stop in _header(data)), default=0)


def _may_be_filled_up(data: bytes, pixels: Pixels) -> bool:
    """Say whether the end of a JPEG may be missing: its last pixels are gray then, or its last bytes zeros.

    Where a progressive one is cut, its last byte is not filled up with ones.
    """
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]].astype(np.int16)
    if any((abs(corners - gray) <= _GRAY_TOLERANCE).all(axis=1).any() for gray in _FILLED_UP):
        return True
    if _ZEROS_BEFORE_MARKER in data and data.startswith(bytes(_LONGEST_ZEROS), _end_of_scans(data) - _LONGEST_ZEROS):
        return True
    return _is_progressive(data) and data[_end_of_scans(data) - 1] % 2 == 0


def _is_whole(data: bytes) -> bool:
    scans = data[: _end_of_scans(data)]
    without_zeros = scans.rstrip(b"\0")
    body = without_zeros if len(scans) - len(without_zeros) >= _LONGEST_ZEROS else scans
    return _with_end(body, max_pixels=None) is not None


def _is_progressive(data: bytes) -> bool:
    return any(marker == _PROGRESSIVE for marker, *_ in _header(data))


def _lacks_scans(data: bytes) -> bool:
    """Say whether a progressive JPEG lacks scans, or one with restarts some of these."""
    if _is_progressive(data) and not _has_all_scans(data):
        return True
    if all(marker != _RESTARTS for marker, *_ in _header(data)):
        return False
    interval, frame = 0, b""
    for marker, start, end in _segments(data):
        segment = data[start + 4 : end]
        if marker == _RESTARTS:
            interval = int.from_bytes(segment[:2], "big")
        elif marker in _FRAMES:
            frame = segment
        elif marker == _SOS and interval and frame and segment:
            following = _MARKER.search(data, end)
            scan = data[end : following.start() if following else None]
            if len(_RESTART.findall(scan)) < -(-_num_units(frame, segment) // interval) - 1:
                return True
    return False


def _num_units(frame: bytes, scan: bytes) -> int:
    """Return how many units a scan codes: blocks of one component, or what holds some blocks of each of several."""
    height, width = (int.from_bytes(frame[at : at + 2], "big") for at in (1, 3))
    factors = {frame[at]: divmod(frame[at + 1], 16) for at in range(6, len(frame) - 1, 3)}
    right, down = (max(1, *(factor[axis] for factor in factors.values())) for axis in (0, 1))
    if scan[0] > 1:
        return -(-width // (8 * right)) * -(-height // (8 * down))
    own_right, own_down = factors.get(scan[1], (right, down))
    return -(-width * own_right // (8 * right)) * -(-height * own_down // (8 * down))


def _end_of_scans(data: bytes) -> int:
    """Return where the pixels of a JPEG end: behind its last scan, at its end mark or what is no segment."""
    end = len(data)
    for marker, _, stop in _segments(data):
        if marker == _SOS:
            following = _MARKER.search(data, stop)
            end = following.start() if following else len(data)
    return end


def _may_lack_rows(data: bytes, pixels: Pixels) -> bool:
    """Say whether the last rows of a PNG may be missing: they have one colour then, but in an interlaced one."""
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return data[_INTERLACED_AT] != 0 or any((edge == edge[0]).all() for edge in edges)


def _holds_all_rows(data: bytes) -> bool:
    chunks = list(_chunks(data))
    pixels = b"".join(body for kind, body, _ in chunks if kind == b"IDAT")
    return bool(_completed(pixels, chunks[0][1], max_pixels=None))


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


def _completed(packed: bytes, header: bytes, max_pixels: int | None) -> bytes:
    """Return a PNG's pixels as a whole zlib stream; nothing where some are missing or wrong."""
    if len(header) != _HEADER.size:
        return b""
    width, height, depth, colours, _, _, interlaced = _HEADER.unpack(header)
    if (max_pixels is not None and width * height > max_pixels) or colours not in _CHANNELS:
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
    if len(pixels) < size:
        return b""
    return packed if stream.eof else zlib.compress(pixels[:size])


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
        if marker == 0xFF:  # markers may be preceded by any number of these
            position += 1
            continue
        if marker == _EOI[1]:
            return
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
    return _with_end(data.rstrip(b"\0"), max_pixels)


def _with_end(body: bytes, max_pixels: int | None) -> bytes | None:
    """Return the JPEG with the end mark that it lacks, where whatever follows it changes none of its pixels."""
    body += b"\0" if body.endswith(b"\xff") else b""  # a stuffed byte
    if body.endswith(_EOI) or not _has_all_scans(body):
        return None
    try:
        with Image.open(BytesIO(body + _EOI), formats=("JPEG",)) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
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
