import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.read.decode import DecodeSettings, decode
from pipeline.sample import DecodedImage, Drop, GivenRegion, SourceItem
from schemas.hashes import sha256
from schemas.reasons import Reason, Stage

ORIENTATION = 0x0112
RED = (250, 10, 20)
BOX = (3.0, 5.0, 17.0, 12.0)
WIDTH, HEIGHT = 40, 24


def raw_image() -> Image.Image:
    """A blue image of WIDTH x HEIGHT with one red rectangle at BOX."""
    pixels = np.full((HEIGHT, WIDTH, 3), (10, 20, 200), dtype=np.uint8)
    pixels[5:12, 3:17] = RED
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def item(data: bytes | None, **fields: object) -> SourceItem:
    return SourceItem(key="k", index=0, uri="k.jpg", data=data, **fields)


def decoded(data: bytes, **fields: object) -> DecodedImage:
    image = decode(item(data, **fields), DecodeSettings())
    assert isinstance(image, DecodedImage), image
    assert image.pixels.dtype == np.uint8 and image.pixels.flags.c_contiguous and image.pixels.flags.writeable
    assert image.sha256 == sha256(image.stored)
    with Image.open(BytesIO(image.stored)) as stored:
        assert {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[str(stored.format)] == image.suffix
        assert (stored.mode, getattr(stored, "n_frames", 1)) == ("RGB", 1)
        assert stored.getexif().get(ORIENTATION) not in range(2, 9)
        np.testing.assert_array_equal(np.asarray(stored), image.pixels)
    return image


def failed(data: bytes, settings: DecodeSettings | None = None, **fields: object) -> Drop:
    drop = decode(item(data, **fields), settings or DecodeSettings())
    assert isinstance(drop, Drop)
    assert drop.stage is Stage.DECODE
    return drop


def extent_of_red(pixels: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(np.abs(pixels.astype(int) - RED).max(axis=2) < 60)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize(
    ("kind", "suffix", "options"),
    [("JPEG", "jpg", {}), ("PNG", "png", {}), ("WEBP", "webp", {"lossless": True})],
)
def test_plain_images_keep_their_bytes(kind, suffix, options):
    data = encoded(raw_image(), kind, **options)
    image = decoded(data)
    assert (image.stored, image.suffix, image.reencoded) == (data, suffix, False)
    assert (image.width, image.height) == (WIDTH, HEIGHT)


def test_suffix_comes_from_the_bytes_not_the_name():
    assert decoded(encoded(raw_image(), "PNG")).suffix == "png"  # the item's uri says k.jpg


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_other_formats_become_jpeg(kind):
    image = decoded(encoded(raw_image(), kind))
    assert (image.suffix, image.reencoded) == ("jpg", True)
    assert extent_of_red(image.pixels) == BOX


def test_jpeg_is_written_without_chroma_subsampling():
    image = decoded(encoded(raw_image(), "BMP"))
    with Image.open(BytesIO(image.stored)) as stored:
        assert {component[1:3] for component in stored.layer} == {(1, 1)}


def test_reencoding_is_deterministic():
    data = encoded(raw_image().convert("P"), "PNG")
    assert decoded(data).stored == decoded(data).stored


def test_comments_of_the_source_are_not_written():
    image = decoded(encoded(raw_image(), "GIF", comment=b"made yesterday"))
    assert b"yesterday" not in image.stored


def test_cmyk_jpeg():
    image = decoded(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert (image.suffix, image.reencoded) == ("jpg", True)
    assert image.pixels[..., 0].min() > 240 and image.pixels[..., 1:].max() < 15


@pytest.mark.parametrize(("mode", "colour"), [("L", 77), ("1", 1), ("P", 3)])
def test_gray_bilevel_and_palette_png(mode, colour):
    source = Image.new(mode, (9, 8), colour)
    if mode == "P":
        source.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 40, 50, 60])
    image = decoded(encoded(source, "PNG"))
    expected = {"L": (77, 77, 77), "1": (255, 255, 255), "P": (40, 50, 60)}[mode]
    assert (image.suffix, image.reencoded) == ("png", True)
    np.testing.assert_array_equal(image.pixels, np.full((8, 9, 3), expected))


def test_16_bit_gray_is_scaled_not_clipped():
    gray16 = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    image = decoded(encoded(Image.fromarray(gray16), "PNG"))
    assert image.reencoded
    np.testing.assert_array_equal(image.pixels[..., 0], gray16 >> 8)


def test_16_bit_gray_with_a_transparent_value():
    gray16 = np.full((4, 4), 0x1234, dtype=np.uint16)
    gray16[0, 0] = 0x1235
    image = decoded(encoded(Image.fromarray(gray16), "PNG", transparency=0x1234))
    assert image.pixels[0, 0].tolist() == [0x12] * 3 and image.pixels[1, 1].tolist() == [255] * 3


def test_16_bit_rgb_png_is_reencoded_to_8_bit():
    image = decoded(png_of_rgb16(width=3, height=2, value=0xABCD))
    assert (image.suffix, image.reencoded) == ("png", True)
    np.testing.assert_array_equal(image.pixels, np.full((2, 3, 3), 0xAB))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_rgb16(*, width: int, height: int, value: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = (b"\0" + struct.pack(">H", value) * 3 * width) * height
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("RGBA", (255, 0, 0, 0), 255), ("LA", (0, 0), 255), ("RGBA", (7, 7, 7, 255), 7), ("LA", (0, 51), 204)],
)
def test_transparency_is_composited_over_white(mode, colour, expected):
    image = decoded(encoded(Image.new(mode, (4, 4), colour), "PNG"))
    assert (image.suffix, image.reencoded) == ("png", True)
    np.testing.assert_array_equal(image.pixels, np.full((4, 4, 3), expected))


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_becomes_white(mode):
    source = Image.new("L", (4, 4), 9).convert(mode)
    source.putpixel((0, 0), (200, 200, 200) if mode == "RGB" else 200)
    image = decoded(encoded(source, "PNG", transparency=(9, 9, 9) if mode == "RGB" else 9))
    assert image.reencoded
    assert image.pixels[1, 1].tolist() == [255] * 3
    assert image.pixels[0, 0].tolist() == [200] * 3


def test_a_transparent_webp_becomes_jpeg():
    image = decoded(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "WEBP", lossless=True))
    assert (image.suffix, image.reencoded) == ("jpg", True)
    assert image.pixels.min() == 255


@pytest.mark.parametrize(
    ("kind", "suffix", "options"), [("GIF", "jpg", {}), ("WEBP", "jpg", {"lossless": True}), ("PNG", "png", {})]
)
def test_animations_give_their_first_frame(kind, suffix, options):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    image = decoded(data)
    assert (image.suffix, image.reencoded) == (suffix, True)
    assert extent_of_red(image.pixels) == (0, 0, 16, 16)


def test_an_rgb_profile_is_kept_and_a_gray_one_dropped():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    gray = srgb[:16] + b"GRAY" + srgb[20:]
    for profile, mode, kept in ((srgb, "RGBA", srgb), (gray, "L", None)):
        image = decoded(encoded(Image.new(mode, (4, 4)), "PNG", icc_profile=profile))
        with Image.open(BytesIO(image.stored)) as stored:
            assert stored.info.get("icc_profile") == kept


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_given_boxes_follow_the_pixels_through_every_orientation(kind, orientation):
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    data = encoded(raw_image(), kind, exif=exif(orientation), **options)
    region = GivenRegion(box=BOX, label="a", score=0.5, caption="b")
    image = decoded(data, given=(region,), given_size=(WIDTH, HEIGHT))
    assert image.reencoded
    assert image.suffix == ("png" if kind == "PNG" else "jpg")
    (given,) = image.given
    if orientation >= 5:
        assert (image.width, image.height) == (HEIGHT, WIDTH)
        assert given.box == extent_of_red(image.pixels)
    else:  # the size does not tell the frames apart: taken as upright
        assert (image.width, image.height) == (WIDTH, HEIGHT)
        assert given.box == BOX != extent_of_red(image.pixels)
    assert (given.label, given.score, given.caption) == ("a", 0.5, "b")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stated", [True, False])
def test_boxes_drawn_on_the_displayed_image_stay(orientation, stated):
    data = encoded(raw_image(), "PNG", exif=exif(orientation))
    upright = extent_of_red(decoded(data).pixels)
    size = (WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH)
    image = decoded(data, given=(GivenRegion(box=upright),), given_size=size if stated else None)
    assert image.given[0].box == upright


def test_boxes_of_a_square_image_are_taken_as_upright():
    data = encoded(raw_image().resize((24, 24)), "PNG", exif=exif(6))
    assert decoded(data, given=(GivenRegion(box=BOX),), given_size=(24, 24)).given[0].box == BOX


def test_bad_given_boxes_pass_through_a_turn_as_bad_boxes():
    region = GivenRegion(box=(float("nan"), 9.0, 8.0, 2.0))
    data = encoded(raw_image(), "PNG", exif=exif(6))
    x0, y0, x1, y1 = decoded(data, given=(region,), given_size=(WIDTH, HEIGHT)).given[0].box
    assert x1 < x0 and np.isnan(y0) and y1 == 8


@pytest.mark.parametrize("size", [(WIDTH + 1, HEIGHT), (HEIGHT, WIDTH)])
def test_an_annotation_of_another_size_fails_where_there_are_boxes(size):
    data = encoded(raw_image(), "PNG")
    drop = failed(data, given=(GivenRegion(box=BOX),), given_size=size)
    assert drop.reason is Reason.SIZE_MISMATCH
    assert f"{size[0]} x {size[1]}" in drop.message and f"{WIDTH} x {HEIGHT}" in drop.message
    assert decoded(data, given_size=size).given == ()


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(value):
    data = encoded(raw_image(), "JPEG", exif=exif(value))
    assert decoded(data).stored == data


@pytest.mark.parametrize("junk", [b"Exif\0\0not a TIFF header", b"Exif\0\0MM\0*"])
def test_unreadable_exif_is_upright(junk):
    data = encoded(raw_image(), "JPEG", exif=junk)
    assert decoded(data).stored == data


def test_too_many_pixels_are_refused_by_the_header_alone():
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b""))
    drop = failed(data)
    assert drop.reason is Reason.TOO_LARGE
    assert "20000 x 20000" in drop.message and "--read.max-pixels" in drop.message
    assert failed(data, DecodeSettings(max_pixels=400_000_000)).reason is Reason.TRUNCATED  # now it is decoded


def test_the_limits_themselves_are_allowed():
    data = encoded(raw_image(), "PNG")
    pixels = WIDTH * HEIGHT
    assert isinstance(decode(item(data), DecodeSettings(max_pixels=pixels, max_bytes=len(data))), DecodedImage)
    assert failed(data, DecodeSettings(max_pixels=pixels - 1)).reason is Reason.TOO_LARGE
    drop = failed(data, DecodeSettings(max_bytes=len(data) - 1))
    assert drop.reason is Reason.TOO_LARGE and "--read.max-bytes" in drop.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_cut_files_are_truncated(kind, part):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    assert failed(data[: int(len(data) * part)]).reason is Reason.TRUNCATED


def test_empty_and_foreign_files():
    assert failed(b"").reason is Reason.EMPTY_FILE
    drop = failed(b"<!DOCTYPE html><html>not found</html>")
    assert drop.reason is Reason.DECODE
    assert "<!DOCTYPE html>" in drop.message and " at 0x" not in drop.message


def test_postscript_is_not_run():
    drop = failed(encoded(raw_image(), "EPS"))
    assert drop.reason is Reason.DECODE and drop.message.startswith("none of JPEG, PNG")


def test_broken_webp_of_the_right_length_is_not_truncated():
    data = bytearray(encoded(raw_image(), "WEBP"))
    data[20:40] = b"\xff" * 20
    assert failed(bytes(data)).reason is Reason.DECODE


def test_pixels_without_a_range_are_refused():
    drop = failed(encoded(Image.new("F", (4, 4), 0.5), "TIFF"))
    assert drop.reason is Reason.DECODE and "mode F" in drop.message


def test_an_item_that_failed_before_gives_its_failure():
    drop = Drop(reason=Reason.MISSING, stage=Stage.READ, message="gone")
    assert decode(item(None, drop=drop), DecodeSettings()) is drop


@pytest.mark.parametrize("name", ["max_pixels", "max_bytes"])
def test_settings_name_the_flag(name):
    with pytest.raises(ValueError, match=f"--read.{name.replace('_', '-')}"):
        DecodeSettings(**{name: 0})


def test_boxes_that_fit_the_upright_pixels_alone_and_a_raw_size_contradict_each_other():
    data = encoded(raw_image(), "PNG", exif=exif(6))  # raw WIDTH x HEIGHT, upright HEIGHT x WIDTH
    low = GivenRegion(box=(1, 1, 4, WIDTH - 1))
    drop = failed(data, given=(GivenRegion(box=(1, 1, 2, 2)), low), given_size=(WIDTH, HEIGHT))
    assert drop.reason is Reason.SIZE_MISMATCH
    assert f"beyond the stated {WIDTH} x {HEIGHT} pixels" in drop.message and "state the upright size" in drop.message
    far = GivenRegion(box=(1, 1, 4, WIDTH + HEIGHT))  # fits neither: nothing tells
    assert decoded(data, given=(far,), given_size=(WIDTH, HEIGHT)).given[0].box != far.box
