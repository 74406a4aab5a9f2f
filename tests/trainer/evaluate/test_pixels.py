"""Image files as they are shown, and which of a folder are looked at."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.data.decode import UnusableSampleError
from trainer.errors import TrainingError
from trainer.evaluate.pixels import decode_upright, image_files


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    content = BytesIO()
    image.save(content, kind)
    return content.getvalue()


def test_sixteen_bits_are_brought_to_eight_by_their_upper_byte():
    values = np.array([[0, 255, 256, 30_000, 65_535]], dtype=np.uint16)
    pixels, _ = decode_upright(png(Image.fromarray(values)))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 117, 255]


def test_what_is_transparent_is_white_and_not_what_hides_there():
    pixels = np.zeros((1, 2, 4), dtype=np.uint8)
    pixels[0, 1] = (200, 0, 0, 255)
    shown, _ = decode_upright(png(Image.fromarray(pixels)))
    assert shown.tolist() == [[[255, 255, 255], [200, 0, 0]]]


def test_pixels_without_a_range_are_refused():
    with pytest.raises(UnusableSampleError, match="32 bits a channel"):
        decode_upright(png(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF"))


def test_bytes_that_are_no_image_are_told_the_same_each_time():
    with pytest.raises(UnusableSampleError, match=r"^cannot be decoded: it is no image that Pillow knows$"):
        decode_upright(b"no image")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.PNG", "a.jpg", "sub/a.jpg", "sub/deep er/c.webp", ".hidden/d.png", "._a.jpg", "found/a.jpg.png"):
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    (tmp_path / "in" / "folder.png").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("")
    return tmp_path / "in"


def test_images_of_folders_below_have_their_path_for_a_name(folder):
    names = ["a.jpg", "b.PNG", "found/a.jpg.png", "sub/a.jpg", "sub/deep er/c.webp"]
    files = image_files(str(folder))
    assert list(files) == names and files["sub/a.jpg"] == folder / "sub" / "a.jpg"
    assert list(image_files(str(folder), str(folder / "found"))) == [name for name in names if "found" not in name]


def test_images_and_what_is_written_are_kept_apart(folder):
    with pytest.raises(TrainingError, match=r"--out .*: the images are there: name another folder"):
        image_files(str(folder), f"{folder}/sub/..")


def test_a_file_or_nothing_in_place_of_a_folder_is_told(folder):
    with pytest.raises(TrainingError, match="a file: name the folder that it is in"):
        image_files(str(folder / "a.jpg"))
    with pytest.raises(TrainingError, match="there is no such folder"):
        image_files(str(folder / "nowhere"))
    with pytest.raises(TrainingError, match="no image is in it"):
        image_files(str(folder / "folder.png"))
