"""Pools of concepts for `clip_rule`: what a region may be, and the sentences that stand for each in CLIP's space."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.scenes.words import COLOURS, SHAPES, SIZES, TEXTURES, Attributes, region_caption
from pipeline.word_list import read_word_list
from schemas.hashes import sha256

SHIPPED = Path(__file__).with_name("concepts.txt")
SCENES = "scenes"
"""Name of the pool of what scenes show: every shape in every colour."""

_FLAG = "--caption.concepts"
_TEMPLATES = (
    "a photo of a {}.",
    "a close-up photo of a {}.",
    "a cropped photo of a {}.",
    "a blurry photo of a {}.",
    "a photo of a small {}.",
    "a photo of a large {}.",
    "there is a {} in the scene.",
)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Concepts, and what each is called in the sentences whose mean embedding stands for it."""

    concepts: tuple[str, ...]
    """Different from each other, at least one."""
    prompts: tuple[tuple[str, ...], ...]
    """The sentences of each concept, as many for one as for another."""

    @property
    def sha256(self) -> str:
        """Names the concepts, their order and their sentences."""
        return sha256("\n".join([*self.concepts, *(prompt for prompts in self.prompts for prompt in prompts)]).encode())


def find_pool(name: str | None) -> Pool:
    """Return the pool that ships, `scenes`, or that of a text file of a concept a line (# starts a comment).

    Raises SettingError for a file that cannot be read or has no concept.
    """
    if name == SCENES:
        return _scenes()
    concepts = read_word_list(SHIPPED if name is None else name, _FLAG, "concept")
    return Pool(concepts=concepts, prompts=tuple(tuple(filled(one, word) for one in _TEMPLATES) for word in concepts))


def _scenes() -> Pool:
    """Return each shape in each colour; the mini CLIP knows whole captions only, so size and texture are averaged."""
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    return Pool(
        concepts=tuple(f"{colour} {shape}" for colour, shape in pairs),
        prompts=tuple(
            tuple(region_caption(Attributes(size, colour, texture, shape)) for size in SIZES for texture in TEXTURES)
            for colour, shape in pairs
        ),
    )


def filled(template: str, concept: str) -> str:
    """Return the template with the concept for `{}`, and "an" for its "a" where the concept begins with a vowel."""
    if concept[0].lower() in "aeiou":
        template = re.sub(r"\ba \{\}", "an {}", template)
    return template.replace("{}", concept)
