"""What an object of a scene can be, how captions name it, and how a caption is read back for scoring."""

from dataclasses import dataclass
from typing import Literal

Size = Literal["small", "medium", "large"]
Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

EXTENTS_PX: dict[str, tuple[int, int]] = {"small": (20, 28), "medium": (38, 50), "large": (64, 80)}
"""Range of an object's longer side by size. The gaps stay open when up to 15 % of a side is hidden."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 32, 36),
    "orange": (245, 136, 20),
    "yellow": (248, 222, 40),
    "green": (40, 160, 60),
    "cyan": (40, 205, 215),
    "blue": (36, 70, 210),
    "purple": (130, 45, 170),
    "pink": (250, 130, 190),
    "brown": (120, 72, 30),
    "black": (18, 18, 20),
    "white": (250, 250, 250),
}
"""8-bit RGB of each colour, before jitter and shading."""

TEXTURES = ("solid", "striped", "dotted", "checkered")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "crescent", "arrow", "diamond")
SIZES = tuple(EXTENTS_PX)

CHOICES: dict[str, tuple[str, ...]] = {
    "size": SIZES,
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "shape": SHAPES,
}
"""The words of each attribute, in the order of a caption."""

HELD_OUT = frozenset((shape, tuple(COLOURS)[(3 * i + 2) % len(COLOURS)]) for i, shape in enumerate(SHAPES))
"""(shape, colour) pairs that only the `test` split shows: one per shape, each with another colour."""

_OPEN = tuple(
    (shape, colour)
    for shape in ("circle", "square", "star", "ring")
    for colour in ("orange", "green", "cyan", "pink", "black", "white")
)
CLASS_LISTS: dict[str, tuple[tuple[str, str], ...]] = {"open24": _OPEN, "open34": (*_OPEN, *sorted(HELD_OUT))}
"""(shape, colour) pairs that scenes may be drawn of alone, to be told apart as classes: 24 that `train` scenes show
too, and these with the held-out pairs."""

NUMBERS = ("zero", "a", "two", "three", "four", "five", "six", "seven", "eight")
"""How image captions count; one is the article."""

PLURALS = {shape: "crosses" if shape == "cross" else f"{shape}s" for shape in SHAPES}


@dataclass(frozen=True, order=True)
class Attributes:
    """What a region caption says of an object; its fields in the order of the words."""

    size: str
    colour: str
    texture: str
    shape: str

    @property
    def held_out(self) -> bool:
        """True when the `train` split never shows this shape in this colour."""
        return (self.shape, self.colour) in HELD_OUT


def class_name(shape: str, colour: str) -> str:
    """Return what a pair is called as a class, such as `green square`."""
    return f"{colour} {shape}"


def pairs(split: Split, classes: str | None = None) -> list[tuple[str, str]]:
    """Return the (shape, colour) pairs that scenes of `split` draw from, in a fixed order. Raises ValueError.

    With `classes`, the name of a class list, they are its pairs, in both splits.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    if classes is not None:
        return list(CLASS_LISTS[classes])
    every = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    return [pair for pair in every if split == "test" or pair not in HELD_OUT]


def region_caption(attributes: Attributes) -> str:
    """Return the caption of one object, such as `a small red striped star`."""
    return f"a {attributes.size} {attributes.colour} {attributes.texture} {attributes.shape}"


def parse_region_caption(caption: str) -> Attributes | None:
    """Read a region caption back. None when it does not follow the grammar, as a model's caption need not."""
    words = caption.strip().lower().removesuffix(".").split()
    known = ("a",), SIZES, COLOURS, TEXTURES, SHAPES
    if len(words) != len(known) or any(word not in allowed for word, allowed in zip(words, known, strict=True)):
        return None
    return Attributes(*words[1:])


def every_region_caption() -> list[str]:
    """Return all captions of the grammar in a fixed order."""
    return [
        region_caption(Attributes(size, colour, texture, shape))
        for size in SIZES
        for colour in COLOURS
        for texture in TEXTURES
        for shape in SHAPES
    ]
