"""Captions by rule: colours, size, shape, position and the label, put into one of a few sentences. No weights.

They say little, but what they say is true of the pixels, and it takes a fraction of a millisecond: for scale runs of
the machinery, for tests, and for a first look at proposals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.backends import check_ranges
from pipeline.caption.base import CaptionerBase
from pipeline.caption.colours import COLOUR_NAMES, colour_indices
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import OURS, Licensed
from pipeline.sample import Caption, Crop, Pixels
from schemas.hashes import sha256

_SAMPLES_A_SIDE = 24
"""Colours are counted on a grid of about this many pixels a side."""
_ONE_COLOUR, _MAIN_COLOUR, _ANY_COLOUR = 0.8, 0.6, 0.25
"""Least shares of the commonest colour: named alone; "mostly" it; named together with the next as equals."""
_SECOND_COLOUR = 0.12
"""Least share of a second colour to be named."""

_SIZES = ((0.01, "tiny"), (0.05, "small"), (0.2, "medium-sized"), (0.6, "large"), (float("inf"), "very large"))
"""Box areas, as shares of the image's, below which a size word holds."""
_ELONGATED = 1.6
"""From this ratio of its sides on, a box is tall or wide; from `_UNEQUAL` on it is taller than wide, or wider."""
_UNEQUAL = 1.15
_FILLS_IMAGE = 0.6
"""From this share of the image on, a box has no position."""

_PLACES = (
    ("in the upper left of the image", "at the top of the image", "in the upper right of the image"),
    ("on the left side of the image", "in the center of the image", "on the right side of the image"),
    ("in the lower left of the image", "at the bottom of the image", "in the lower right of the image"),
)
_THINGS = ("area", "region", "patch")
"""What a region without a label is called: a rule cannot tell an object from background."""
_PLURALS = frozenset({"children", "men", "people", "skis", "women"})
_SINGULAR_ENDINGS = ("ss", "us", "is")


@dataclass(frozen=True)
class RuleConfig:
    """Settings of `rule`."""

    batch_size: int = 64
    """Crops a call."""

    def __post_init__(self) -> None:
        check_ranges(self, flag="--caption")


class Rule(CaptionerBase):
    """Describes a crop by what can be measured; the region's id alone chooses among equivalent sentences."""

    name: ClassVar[str] = "rule"
    version: ClassVar[int] = 1
    """Raised when the same input would give another output: it is part of the fingerprint."""
    config_class: ClassVar[type[RuleConfig]] = RuleConfig

    def __init__(self, config: RuleConfig, *, device: Device = CPU) -> None:
        super().__init__(config)

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption]:
        """Return one sentence a crop, without a score. Prompts are not read: a rule cannot be asked."""
        return [Caption(text=_sentence(crop), score=None) for crop, _ in zip(crops, prompts, strict=True)]

    @staticmethod
    def licenses(config: RuleConfig) -> tuple[Licensed, ...]:
        """Return the terms of our own code: there are no weights."""
        return (OURS,)


def _sentence(crop: Crop) -> str:
    choice = int(sha256(crop.region_id.encode())[:8], 16)
    thing = _label_words(crop.label) or _THINGS[choice // 8 % len(_THINGS)]
    colours, detail = _colour_words(crop.pixels)
    share, place = _share_and_place(crop)
    size = next(word for limit, word in _SIZES if share < limit)
    width, height = crop.box[2] - crop.box[0], crop.box[3] - crop.box[1]
    shape = "tall" if height >= _ELONGATED * width else "wide" if width >= _ELONGATED * height else ""
    match choice % 4:
        case 0:
            sentence = f"{_noun_phrase([size, colours, thing])} {place}"
        case 1:
            sentence = f"{_noun_phrase([size, shape, thing])}, {detail}, {place}"
        case 2:
            sentence = f"{place}, {_noun_phrase([size, colours, thing])}"
        case _:
            unequal = "taller than wide" if height >= _UNEQUAL * width else "wider than tall"
            is_square = max(width, height) < _UNEQUAL * min(width, height)
            proportions = "about as wide as tall" if is_square else unequal
            sentence = f"{_noun_phrase([colours, thing])} {place}, {proportions}"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _noun_phrase(words: list[str]) -> str:
    """Join the words that are not empty, the last being the noun, with the article that fits.

    The first word is always one of ours, never a label's, so that its first letter tells how it is spoken.
    """
    phrase = " ".join(word for word in words if word)
    noun = phrase.split()[-1].lower()
    is_plural = noun in _PLURALS or (noun.endswith("s") and not noun.endswith(_SINGULAR_ENDINGS))
    return phrase if is_plural else f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _label_words(label: str | None) -> str:
    """Return the first of a label's comma-separated names, fit for the inside of a sentence, or "" if it has none."""
    first_name = (label or "").split(",")[0].replace("_", " ")
    printable = "".join(character if character.isprintable() else " " for character in first_name)
    return " ".join(printable.split()).strip(" .;:!?")


def _colour_words(pixels: Pixels) -> tuple[str, str]:
    """Return the crop's colours as adjective ("red and white") and as a phrase of their own ("mostly red")."""
    step_y, step_x = (-(-side // _SAMPLES_A_SIDE) for side in pixels.shape[:2])
    sampled = pixels[step_y // 2 :: step_y, step_x // 2 :: step_x]
    counts = np.bincount(colour_indices(sampled).ravel(), minlength=len(COLOUR_NAMES))
    first, second = np.argsort(-counts, kind="stable")[:2].tolist()
    total = sampled.shape[0] * sampled.shape[1]
    first_share, second_share = int(counts[first]) / total, int(counts[second]) / total
    first_name, second_name = COLOUR_NAMES[first], COLOUR_NAMES[second]
    if first_share >= _ONE_COLOUR or (first_share >= _MAIN_COLOUR and second_share < _SECOND_COLOUR):
        return first_name, f"{'all' if first_share == 1 else 'mostly'} {first_name}"
    both = f"{first_name} and {second_name}"
    if first_share >= _MAIN_COLOUR:
        return both, f"mostly {first_name} with some {second_name}"
    if first_share >= _ANY_COLOUR and second_share >= _SECOND_COLOUR:
        return both, both
    return "multicolored", f"of many colors, among them {both}"


def _share_and_place(crop: Crop) -> tuple[float, str]:
    """Return the box's share of the image's area, and where in the image its middle lies, in words."""
    x0, y0, x1, y1 = crop.box
    share = (x1 - x0) * (y1 - y0) / (crop.image_width * crop.image_height)
    if share >= _FILLS_IMAGE:
        return share, "filling most of the image"
    column = min(2, int((x0 + x1) / 2 / crop.image_width * 3))
    row = min(2, int((y0 + y1) / 2 / crop.image_height * 3))
    return share, _PLACES[row][column]
