import io

import numpy as np
import pytest
from PIL import Image

from pipeline.viewer.pixels import crop, decode, media_type, shrink_for, smaller
from schemas.folder import DatasetError


def encoded(kind, size=(40, 20), mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, size, (200, 30, 30, 0)[: len(mode)]).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_media_types_come_from_the_bytes(kind):
    assert media_type(encoded(kind), "x") == f"image/{kind.lower()}"


@pytest.mark.parametrize("data", [b"", b"<svg onload=alert(1)>", b"GIF89a", b"RIFF1234WAVE"])
def test_other_bytes_are_refused(data):
    with pytest.raises(DatasetError, match="here: these bytes are no image"):
        media_type(data, "here")


def test_smaller_images_keep_their_shape_and_show_transparency_as_white():
    with Image.open(io.BytesIO(smaller(encoded("PNG", mode="RGBA"), "x", max_side=10))) as image:
        assert image.format == "JPEG" and image.size == (10, 5)
        assert np.asarray(image).min() > 250
    with Image.open(io.BytesIO(smaller(encoded("JPEG"), "x", max_side=100))) as image:
        assert image.size == (40, 20)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_crop_is_as_sharp_as_the_stored_image_allows(kind):
    pixels = np.zeros((1600, 1200, 3), np.uint8)
    pixels[800:, 600:] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    for box, size in (((500.5, 700.2, 701, 901), (100, 100)), ((590, 790, 610, 800), (20, 10))):
        assert shrink_for(box, 100) == (2 if size[0] == 100 else 1)
        decoded = decode(file.getvalue(), "x", shrink=shrink_for(box, 100))
        assert decoded.image.width == (600 if size[0] == 100 and kind == "JPEG" else 1200)
        with Image.open(io.BytesIO(crop(decoded, box, "x", max_side=100))) as image:
            assert image.size == size
            shown = np.asarray(image.convert("L"))
            assert shown[0, 0] < 20 and (size[1] == 10 or shown[-1, -1] > 235)


@pytest.mark.parametrize("box", [(50, 0, 60, 10), (-9, -9, -1, -1)])
def test_a_crop_beyond_the_image_is_an_error(box):
    with pytest.raises(DatasetError, match="outside"):
        crop(decode(encoded("PNG"), "x"), box, "x", max_side=10)


def test_a_damaged_image_is_an_error_that_names_it():
    data = encoded("PNG", size=(400, 400))
    for broken in (data[:60], b"\x89PNG\r\n\x1a\n" + b"x" * 100):
        with pytest.raises(DatasetError, match="train-000000: cannot be decoded"):
            smaller(broken, "train-000000", max_side=10)
