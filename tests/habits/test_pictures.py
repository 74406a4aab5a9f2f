"""A picture is judged by its pixels: where they are all there it is ok, whatever is damaged around them."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipeline.read.decode import DecodeSettings, decode
from pipeline.read.describe import unread_files
from pipeline.read.formats import FORMAT_OF_SUFFIX, FORMATS, NOT_READ, is_image
from pipeline.sample import DecodedImage, Drop, Pixels, SourceItem
from schemas.reasons import Reason

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
SMOOTH = cv2.resize(NOISE[:6, :8], (64, 48), interpolation=cv2.INTER_CUBIC)


def encoded(kind: str, pixels: Pixels = SMOOTH, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> DecodedImage | Drop:
    return decode(SourceItem(key="k", index=0, uri="k", data=data), DecodeSettings())


def ok(data: bytes) -> DecodedImage:
    """The decoded image, whose stored bytes two readers load to the same pixels without a complaint."""
    image = decoded(data)
    assert isinstance(image, DecodedImage), image
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Image.open(io.BytesIO(image.stored)) as stored:
            np.testing.assert_array_equal(np.asarray(stored), image.pixels)
    other = cv2.imdecode(np.frombuffer(image.stored, np.uint8), cv2.IMREAD_COLOR)
    assert other is not None
    assert np.abs(other[..., ::-1].astype(int) - image.pixels).max() <= 2
    return image


def chunk(kind: bytes, body: bytes, *, damage: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ damage)


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position < len(png):
        (length,) = struct.unpack_from(">I", png, position)
        yield png[position + 4 : position + 8], png[position + 8 : position + 8 + length]
        position += 12 + length


def with_chunk(png: bytes, added: bytes, *, before: bytes) -> bytes:
    """The PNG with a chunk before the first of kind `before`."""
    at = png.index(before) - 4
    return png[:at] + added + png[at:]


LARGE = zlib.compress(bytes(8 * 2**20))
PNG = encoded("PNG")
ANCILLARY = {
    "zTXt": b"Comment\0\0" + LARGE,
    "iTXt": b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE,
    "tEXt": b"Comment\0" + b"x" * 2**20,
    "iCCP": b"icc\0\0" + LARGE,
    "pHYs": b"\0",
    "gAMA": b"",
    "cHRM": b"\0\0",
    "sRGB": b"",
    "acTL": b"\0",
    "tIME": b"\0",
}


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("damage", [0, 1])
@pytest.mark.parametrize("kind", ANCILLARY)
def test_a_png_with_odd_large_or_damaged_chunks_beside_its_pixels_is_ok(kind, damage, before):
    added = chunk(kind.encode(), ANCILLARY[kind], damage=damage)
    image = ok(with_chunk(PNG, added, before=before))
    np.testing.assert_array_equal(image.pixels, SMOOTH)
    assert image.suffix == "png"


def test_many_small_texts_of_a_png_are_no_harm():
    texts = PngImagePlugin.PngInfo()
    for number in range(80):
        texts.add_text(f"page {number}", "x" * 2**20, zip=True)
    image = ok(encoded("PNG", pnginfo=texts))
    np.testing.assert_array_equal(image.pixels, SMOOTH)
    assert image.reencoded


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA"])
@pytest.mark.parametrize("missing", [1, 4, 8, 12, 13, 16, 18])
def test_a_png_without_its_end_is_ok_in_every_mode(mode, missing):
    whole = encoded("PNG", NOISE, mode)
    image = ok(whole[:-missing])
    np.testing.assert_array_equal(image.pixels, ok(whole).pixels)
    assert (image.suffix, image.reencoded) == ("png", True)


def test_a_png_whose_pixels_have_a_wrong_checksum_is_ok():
    (begin, *_, end) = [chunk(*parts) for parts in chunks(PNG)]
    pixels = next(body for kind, body in chunks(PNG) if kind == b"IDAT")
    image = ok(PNG[:8] + begin + chunk(b"IDAT", pixels, damage=77) + end)
    np.testing.assert_array_equal(image.pixels, SMOOTH)
    assert image.reencoded


def test_what_turns_and_colours_a_damaged_png_is_kept():
    exif = Image.Exif()
    exif[0x0112] = 6
    damaged = chunk(b"zTXt", b"Comment\0\0" + LARGE)
    turned = ok(with_chunk(encoded("PNG", exif=exif), damaged, before=b"IDAT"))
    np.testing.assert_array_equal(turned.pixels, np.rot90(SMOOTH, -1))
    clear = ok(with_chunk(encoded("PNG", mode="P", transparency=0), damaged, before=b"IDAT"))
    np.testing.assert_array_equal(clear.pixels, ok(encoded("PNG", mode="P", transparency=0)).pixels)


JPEGS: dict[str, bytes] = {
    "baseline": encoded("JPEG", NOISE),
    "4:4:4": encoded("JPEG", NOISE, subsampling=0),
    "4:2:0": encoded("JPEG", NOISE, subsampling=2),
    "progressive": encoded("JPEG", NOISE, progressive=True),
    "optimised": encoded("JPEG", SMOOTH, optimize=True),
    "restarts": encoded("JPEG", NOISE, restart_marker_blocks=3),
    "gray": encoded("JPEG", NOISE, "L"),
    "cmyk": encoded("JPEG", NOISE, "CMYK"),
}


@pytest.mark.parametrize("tail", [b"", b"\xff", b"\0" * 600, b"\xff" + b"\0" * 5], ids=["cut", "half", "zeros", "both"])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_without_its_end_mark_is_ok_where_its_pixels_are_all_there(name, tail):
    whole = JPEGS[name]
    image = ok(whole[:-2] + tail)
    np.testing.assert_array_equal(image.pixels, ok(whole).pixels)
    assert (image.suffix, image.reencoded) == ("jpg", True)


@pytest.mark.parametrize("tail", [b"", b"\0" * 600])
@pytest.mark.parametrize("part", [0.4, 0.6, 0.8, 0.9, 0.95, 0.98])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_lacks_pixels_is_truncated_whatever_follows(name, part, tail):
    drop = decoded(JPEGS[name][: int(len(JPEGS[name]) * part)] + tail)
    assert isinstance(drop, Drop)
    assert drop.reason is Reason.TRUNCATED


def test_a_progressive_jpeg_that_lacks_a_whole_scan_is_truncated():
    whole = JPEGS["progressive"]
    starts = [at for at in range(len(whole) - 1) if whole[at : at + 2] == b"\xff\xda"]
    assert len(starts) > 3
    for start in starts[1:]:
        tables = whole.rfind(b"\xff\xc4", 0, start)
        for end in {start, tables if tables > starts[0] else start}:
            drop = decoded(whole[:end])
            assert isinstance(drop, Drop) and drop.reason is Reason.TRUNCATED


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_a_png_that_lacks_pixels_is_truncated(mode, part):
    data = encoded("PNG", NOISE, mode)
    drop = decoded(data[: int(len(data) * part)])
    assert isinstance(drop, Drop) and drop.reason is Reason.TRUNCATED


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xE3, 0xED, 0xEE, 0xFE])
@pytest.mark.parametrize(
    "body", [b"", b"\0", b"Photoshop 3.0\x008BIM", b"Exif\0\0MM\0*", b"ICC_PROFILE\0\2\1", b"Adobe"]
)
@pytest.mark.filterwarnings("default")
def test_a_jpeg_with_an_odd_segment_keeps_its_pixels(marker, body):
    whole = JPEGS["baseline"]
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    np.testing.assert_array_equal(ok(whole[:2] + segment + whole[2:]).pixels, ok(whole).pixels)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "BMP"])
@pytest.mark.parametrize("size", [(70_000, 3), (3, 70_000), (65_501, 2), (65_500, 2)])
def test_a_picture_too_long_for_jpeg_is_stored_all_the_same(kind, size):
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, ::7] = (200, 30, 40)
    image = decoded(encoded(kind, pixels))
    assert isinstance(image, DecodedImage), image
    assert (image.width, image.height) == size
    assert image.suffix == ("jpg" if max(size) <= 65_500 and kind != "PNG" else "png")
    if image.suffix == "png":
        np.testing.assert_array_equal(image.pixels, pixels)


def of_every_format() -> dict[str, bytes]:
    return {kind: encoded(kind, **({"lossless": True} if kind == "WEBP" else {})) for kind in FORMATS}


@pytest.mark.parametrize("suffix", FORMAT_OF_SUFFIX)
def test_what_planning_takes_for_a_picture_is_opened(suffix):
    assert is_image(f"a.b/c{suffix}") and is_image(f"C{suffix.upper()}")
    assert np.abs(ok(of_every_format()[FORMAT_OF_SUFFIX[suffix]]).pixels.astype(int) - SMOOTH).mean() < 16


def test_pictures_that_are_not_read_are_counted_by_suffix():
    names = ["a.HEIC", "b/c.heic", "d.heic/e.jpg", "f.CR2", "g.mp4", "h.pdf", "i.svg", "j.txt", ".heic", "heic", "k"]
    unread = {entry.name: entry.count for entry in unread_files(names) if entry.like == "images"}
    assert unread.pop(".jpg") == 1, "counted as well, were it among the files that are not read"
    assert unread == {".heic": 2, ".cr2": 1, ".mp4": 1, ".pdf": 1, ".svg": 1}
    assert not NOT_READ.keys() & FORMAT_OF_SUFFIX.keys()


def frames(kind: str, **options: object) -> bytes:
    first, second = Image.fromarray(SMOOTH), Image.fromarray(NOISE)
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=[second], **options)
    return buffer.getvalue()


def interlaced() -> bytes:
    """An Adam7 PNG, which Pillow reads and does not write."""
    rows = b""
    for x, y, right, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        rows += b"".join(b"\0" + row.tobytes() for row in SMOOTH[y::down, x::right])
    header = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 1)
    return PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


EXACT: dict[str, Callable[[], bytes]] = {
    "animated png": lambda: frames("PNG"),
    "animated webp": lambda: frames("WEBP", lossless=True),
    "interlaced png": interlaced,
    "interlaced png, cut": lambda: interlaced()[:-15],
    "mpo": lambda: frames("MPO", quality=100, subsampling=0),
    "progressive jpeg": lambda: encoded("JPEG", quality=100, subsampling=0, progressive=True),
    "palette png": lambda: encoded("PNG", NOISE // 64 * 64, "P"),
}


@pytest.mark.parametrize("name", EXACT)
def test_kinds_that_are_read_well_stay_so(name):
    data = EXACT[name]()
    with Image.open(io.BytesIO(data)) as first:
        expected = np.asarray(first.convert("RGB"))
    tolerance = 0 if ok(data).suffix == "png" else 12
    assert np.abs(ok(data).pixels.astype(int) - expected).max() <= tolerance


TAILS = {
    "end": b"\xff\xd9",
    "noise": bytes(range(1, 200)) * 5 + b"\xff\xd9",
    "page": b"<html>503 Service \xff\xd9 unavailable</html>",
    "zeros": bytes(900) + b"\xff\xd9",
}
LARGE_NOISE = np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8)
LARGE_JPEGS: dict[str, bytes] = {
    "baseline": encoded("JPEG", LARGE_NOISE),
    "turned": encoded("JPEG", LARGE_NOISE, exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"),
    "progressive": encoded("JPEG", LARGE_NOISE, progressive=True),
    "restarts": encoded("JPEG", LARGE_NOISE, restart_marker_rows=1),
    "gray": encoded("JPEG", LARGE_NOISE, "L"),
    "cmyk": encoded("JPEG", LARGE_NOISE, "CMYK"),
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("part", [0.1, 0.35, 0.6])
@pytest.mark.parametrize("name", LARGE_JPEGS)
def test_a_jpeg_that_lacks_pixels_is_truncated_whatever_end_mark_follows(name, part, tail):
    whole = LARGE_JPEGS[name]
    assert isinstance(ok(whole), DecodedImage)
    drop = decoded(whole[: int(len(whole) * part)] + TAILS[tail])
    assert isinstance(drop, Drop) and drop.reason is Reason.TRUNCATED


@pytest.mark.parametrize("missing", [1, 2, 5])
def test_a_jpeg_that_lacks_restarts_is_truncated(missing):
    whole = LARGE_JPEGS["restarts"]
    marks = [at for at in range(len(whole) - 1) if whole[at] == 0xFF and 0xD0 <= whole[at + 1] <= 0xD7]
    drop = decoded(whole[: marks[2]] + whole[marks[2 + missing] :])
    assert isinstance(drop, Drop) and drop.reason is Reason.TRUNCATED


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"mode": "L"}])
def test_a_gray_jpeg_is_ok(options):
    image = ok(encoded("JPEG", np.full((48, 64, 3), 128, np.uint8), **options))
    assert np.abs(image.pixels.astype(int) - 128).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
@pytest.mark.parametrize("rows", [0, 1, 24, 47])
def test_a_png_that_lacks_rows_in_a_sound_file_is_truncated(mode, rows):
    whole = encoded("PNG", NOISE, mode)
    raw = zlib.decompress(b"".join(body for kind, body in chunks(whole) if kind == b"IDAT"))
    pixels = zlib.compress(raw[: len(raw) // 48 * rows])
    before = [chunk(*parts) for parts in chunks(whole) if parts[0] not in (b"IDAT", b"IEND")]
    drop = decoded(whole[:8] + b"".join(before) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    assert isinstance(drop, Drop) and drop.reason is Reason.TRUNCATED


def test_an_interlaced_png_that_lacks_rows_is_truncated():
    whole = interlaced()
    raw = zlib.decompress(next(body for kind, body in chunks(whole) if kind == b"IDAT"))
    header = next(body for kind, body in chunks(whole) if kind == b"IHDR")
    for part in (0.3, 0.6, 0.9):
        pixels = chunk(b"IDAT", zlib.compress(raw[: int(len(raw) * part)]))
        drop = decoded(whole[:8] + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))
        assert isinstance(drop, Drop) and drop.reason is Reason.TRUNCATED


def png_of(rows: bytes, depth: int, colours: int, width: int, height: int, clear: bytes) -> bytes:
    """A PNG with one transparent value; `rows` are packed, without filters' bytes."""
    stride = len(rows) // height
    raw = b"".join(b"\0" + rows[at : at + stride] for at in range(0, len(rows), stride))
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    parts = (b"IHDR", header), (b"tRNS", clear), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")
    return PNG[:8] + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("clear", [0, 1])
def test_the_transparent_tone_of_a_gray_png_of_few_bits_is_white(depth, clear):
    values = np.arange(64 * 48).reshape(48, 64) % 2**depth
    bits = (values[..., None] >> np.arange(depth)[::-1]) & 1
    data = png_of(np.packbits(bits.reshape(48, -1), axis=1).tobytes(), depth, 0, 64, 48, struct.pack(">H", clear))
    expected = np.where(values == clear, 255, values * 255 // (2**depth - 1))
    np.testing.assert_array_equal(ok(data).pixels, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("clear", [(0x1234, 0x5678, 0x9ABC), (0, 0, 0), (7, 8, 9), (0xFFFF, 0, 1)])
def test_the_transparent_colour_of_a_16_bit_png_is_white_and_no_other(clear):
    pixels = np.random.default_rng(2).integers(0, 2**16, (48, 64, 3)).astype(np.uint16)
    pixels[5:9, 7:30] = clear
    pixels[20:25, 7:30] = np.array(clear) ^ (0, 1, 0)  # equal in its upper bytes
    expected = (pixels >> 8).astype(np.uint8)
    expected[5:9, 7:30] = 255
    data = png_of(pixels.astype(">u2").tobytes(), 16, 2, 64, 48, struct.pack(">HHH", *clear))
    np.testing.assert_array_equal(ok(data).pixels, expected)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("white_is_zero", [True, False])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_gray_tiff_has_its_white_at_the_end_that_it_says(depth, white_is_zero, compression):
    tones = np.repeat(np.linspace(0, 2**depth - 1, 64)[None], 48, axis=0).astype(np.uint16 if depth == 16 else np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(tones).save(buffer, "TIFF", compression=compression, tiffinfo={262: 0 if white_is_zero else 1})
    with Image.open(io.BytesIO(buffer.getvalue())) as written:
        stored = written.tag_v2[262]
        raw = tones if depth == 16 else np.asarray(written)
    assert (stored == 0) == white_is_zero
    expected = (raw >> 8 if depth == 16 else raw).astype(int)
    expected = 255 - expected if white_is_zero and depth == 16 else expected
    assert np.abs(ok(buffer.getvalue()).pixels - expected[..., None]).max() <= 2


@pytest.mark.parametrize("most", [255, 256, 1023, 4095, 65535])
@pytest.mark.parametrize("plain", [True, False])
def test_a_pgm_of_any_range_is_read(most, plain):
    tones = np.repeat(np.linspace(0, most, 64)[None], 48, axis=0).round().astype(int)
    text = " ".join(map(str, tones.ravel())).encode()
    body = text if plain else tones.astype(">u2" if most > 255 else np.uint8).tobytes()
    image = ok(b"P%d\n64 48\n%d\n" % (2 if plain else 5, most) + body)
    assert np.abs(image.pixels - (tones * 255 / most)[..., None]).max() <= 3


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_png_of_a_palette_that_is_not_there_dies(depth):
    header = struct.pack(">IIBBBBB", 64, 48, depth, 3, 0, 0, 0)
    pixels = zlib.compress(bytes(48 * (1 + 8 * depth)))
    data = PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    drop = decoded(data)
    assert isinstance(drop, Drop) and drop.reason is Reason.DECODE


@pytest.mark.parametrize("length", [0, 5, 12, 14])
def test_a_png_whose_header_has_another_length_dies(length):
    begin, *rest = chunks(PNG)
    header = (begin[1] + b"\0")[:length]
    drop = decoded(PNG[:8] + b"".join(chunk(*part) for part in ((b"IHDR", header), *rest))[:-3])
    assert isinstance(drop, Drop)
