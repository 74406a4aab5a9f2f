"""Names of colours: which of a few everyday names (American spelling, as image captions use it) a pixel's is."""

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sample import Pixels

# Several samples a name, because a name's pixels are no ball around one colour: shaded yellow is olive, dark orange is
# brown. 8-bit sRGB; a pixel has the name of the sample nearest to it in CIE Lab.
_SAMPLES: dict[str, tuple[int, ...]] = {
    "black": (0x000000, 0x141414, 0x1A1414, 0x14141C),
    "dark gray": (0x3A3A3A, 0x555555, 0x4A4E52, 0x524C48),
    "gray": (0x707070, 0x8C8C8C, 0x9A9A9A, 0x84888C, 0x8C8682),
    "light gray": (0xB8B8B8, 0xD0D0D0, 0xC8CCD0, 0xCFCBC7),
    "white": (0xFFFFFF, 0xEEEEEE, 0xF5F5FA),
    "dark red": (0x8B0000, 0x6E1414, 0x5A1818),
    "red": (0xFF0000, 0xDC143C, 0xC81E1E, 0xB22222, 0xD04030),
    "pink": (0xFFC0CB, 0xFF69B4, 0xE8A0A8, 0xF5B8C8, 0xD88090),
    "magenta": (0xFF00FF, 0xD0108C, 0xC020B0),
    "purple": (0x800080, 0x6A3D9A, 0x50306E, 0x9040D0, 0x7A5A90),
    "lavender": (0xC8A8E0, 0xB09AD8, 0xDCC8F0),
    "dark blue": (0x00008B, 0x14285A, 0x1C2E4A, 0x10104A, 0x2A3C64),
    "blue": (0x0000FF, 0x1E5AC8, 0x3A66B0, 0x2A52E0, 0x4A6FA5),
    "light blue": (0xADD8E6, 0x87CEEB, 0x8CB4E0, 0xC4DCF0, 0x5AA0E6),
    "turquoise": (0x00FFFF, 0x40E0D0, 0x30C0C0, 0x90E8E0),
    "teal": (0x008080, 0x205A60, 0x3A8A8A, 0x104048),
    "dark green": (0x006400, 0x1E3C1E, 0x2A4A20, 0x144028),
    "green": (0x008000, 0x00FF00, 0x3CB050, 0x4A8A3A, 0x2E8B57, 0x5A7A4A),
    "light green": (0x90EE90, 0xB4E0A0, 0x98D880, 0xA8C8A0),
    "olive": (0x808000, 0x6B6B2A, 0x56582E, 0x8C8C50, 0x3E4020),
    "yellow": (0xFFFF00, 0xFFD700, 0xE8D040, 0xF0E68C, 0xD8B820),
    "orange": (0xFF8000, 0xFFA500, 0xE8702A, 0xE05A10, 0xF0A050),
    "brown": (0x8B4513, 0x7A5230, 0x6A4A3A, 0xA0602A, 0x94705A),
    "dark brown": (0x4A2A14, 0x3A2418, 0x50382A, 0x2C1C12),
    "tan": (0xD2B48C, 0xB89468, 0xC8A078, 0xA88C70),
    "beige": (0xF5F5DC, 0xF0E0C8, 0xE8DCC8, 0xFFE8D0),
}

COLOUR_NAMES: tuple[str, ...] = tuple(_SAMPLES)
"""Every name a colour can have; indices of `colour_indices` count in this tuple."""

_BITS = 5
"""Bits a channel that name a colour: a table of 32 ** 3 entries answers for all 16 M colours."""


def colour_indices(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Return `[h, w]` uint8 indices into `COLOUR_NAMES` for `pixels` `[h, w, 3]` uint8 RGB."""
    red, green, blue = np.moveaxis(pixels >> (8 - _BITS), -1, 0)
    indices: npt.NDArray[np.uint8] = _name_table()[red, green, blue]
    return indices


@cache
def _name_table() -> npt.NDArray[np.uint8]:
    """Return the `[32, 32, 32]` name index of each reduced colour, by red, green and blue."""
    levels = np.arange(2**_BITS) * 255 // (2**_BITS - 1)  # both ends kept: black is black, white is white
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    names = [index for index, samples in enumerate(_SAMPLES.values()) for _ in samples]
    samples = [(value >> 16, value >> 8 & 255, value & 255) for values in _SAMPLES.values() for value in values]
    distances = np.square(_lab(colours)[:, None] - _lab(np.array(samples))[None]).sum(axis=2)
    table: npt.NDArray[np.uint8] = np.array(names, dtype=np.uint8)[distances.argmin(axis=1)]
    return table.reshape((2**_BITS,) * 3)


def _lab(colours: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return `[n, 3]` float32 CIE Lab (D65) of `[n, 3]` 8-bit sRGB colours."""
    rgb = (colours[None] / 255).astype(np.float32)
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0], dtype=np.float32)
