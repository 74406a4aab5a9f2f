import numpy as np
import pytest

from pipeline.caption.colours import COLOUR_NAMES, colour_indices

# The CSS colours that share a name with ours, and plain mixtures nobody would name otherwise.
NAMED = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "light gray": (200, 200, 200),
    "dark gray": (64, 64, 64),
    "red": (255, 0, 0),
    "dark red": (128, 0, 0),
    "green": (0, 128, 0),
    "dark green": (0, 90, 0),
    "light green": (144, 238, 144),
    "blue": (0, 0, 255),
    "dark blue": (0, 0, 128),
    "light blue": (173, 216, 230),
    "yellow": (255, 255, 0),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
    "pink": (255, 192, 203),
    "brown": (139, 69, 19),
    "turquoise": (64, 224, 208),
    "teal": (0, 128, 128),
    "tan": (210, 180, 140),
    "beige": (245, 245, 220),
    "olive": (128, 128, 0),
    "magenta": (255, 0, 255),
}


@pytest.mark.parametrize(("name", "rgb"), NAMED.items())
def test_a_colour_has_its_everyday_name(name, rgb):
    pixels = np.full((2, 3, 3), rgb, dtype=np.uint8)
    indices = colour_indices(pixels)
    assert indices.shape == (2, 3)
    assert {COLOUR_NAMES[index] for index in indices.ravel()} == {name}


def test_each_pixel_is_named_for_itself():
    pixels = np.array([[[0, 0, 0], [255, 255, 255]], [[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    names = [[COLOUR_NAMES[index] for index in row] for row in colour_indices(pixels)]
    assert names == [["black", "white"], ["red", "blue"]]
