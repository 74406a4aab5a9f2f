"""What a caption's words say of it, whatever it describes."""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.caption.repetition import repetition, words_of

_PICTURE = r"(?:picture|photo|photograph|image|pic|snapshot|close[- ]?up|shot)s?"
_KIND = (
    r"(?:(?:black[- ]and[- ]white|blurry|blurred|cropped|colou?r|coloured|colored|old|vintage|close[- ]?up|clear|nice"
    r"|good|bad|beautiful|detailed|high[- ]quality|low[- ](?:quality|resolution)|stock|digital|small|large|single"
    r"|cartoon|grainy|pixelated)\s+)*"
)
_BOILERPLATE = re.compile(
    rf"^\W*(?:(?:this|here|it)\s*(?:is|are|'s|’s)\s+)?(?:(?:an?|the|this)\s+)?{_KIND}{_PICTURE}"
    r"\s+(?:of|showing|shows|showcasing|showcases|depicting|depicts|features|featuring|displays|displaying|contains)\b"
    r"|^\W*in\s+(?:this|the)\s+(?:picture|photo|photograph|image)\b"
    r"|^\W*(?:i|we|you)\s+(?:can\s+)?see\b",
    re.IGNORECASE,
)
"""Openings that speak of the caption's own picture, in English."""


class CaptionFacts(NamedTuple):
    """What a caption is."""

    words: int
    """Of scripts without spaces, characters."""
    repetition: bool
    boilerplate: bool


@functools.lru_cache(1 << 16)
def facts_of(caption: str) -> CaptionFacts:
    """Return what the caption is."""
    return CaptionFacts(
        words=len(words_of(caption)),
        repetition=repetition(caption) is not None,
        boilerplate=is_boilerplate(caption),
    )


def is_boilerplate(caption: str) -> bool:
    """Return whether a caption begins by speaking of itself: "a picture of", "the image shows"."""
    return _BOILERPLATE.match(caption) is not None


def caption_columns(captions: Sequence[str | None]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the facts as columns, `[N]` float32 by name; NaN where there is no caption."""
    nothing = (np.nan,) * len(CaptionFacts._fields)
    rows = [nothing if caption is None else facts_of(caption) for caption in captions]
    table = np.array(rows, dtype=np.float32).reshape(len(rows), len(nothing))
    return {name: table[:, column] for column, name in enumerate(CaptionFacts._fields)}
