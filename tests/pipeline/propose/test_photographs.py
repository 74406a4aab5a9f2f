"""The bundled photographs: what the weightless profile runs on, from the installed package."""

import re
from importlib import resources

import pytest
from PIL import Image

from schemas.names import KEY_PATTERN

FOLDER = resources.files("pipeline") / "golden" / "photographs"
NAMES = ["astronaut", "cat", "coffee", "flower", "rocket", "temple"]


def test_the_folder_holds_six_photographs_and_what_belongs_to_them():
    expected = {f"{name}.{suffix}" for name in NAMES for suffix in ("jpg", "txt")} | {"ATTRIBUTION.md"}
    assert {entry.name for entry in FOLDER.iterdir()} == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_is_small_plain_and_attributed(name):
    path = FOLDER / f"{name}.jpg"
    with path.open("rb") as file, Image.open(file) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert max(image.size) <= 640
        assert not image.getexif()
    assert len(path.read_bytes()) < 120_000
    caption = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert caption.endswith(".\n")
    assert f"`{name}.jpg`" in (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")


def test_names_are_keys():
    assert all(re.fullmatch(KEY_PATTERN, name) for name in NAMES)
