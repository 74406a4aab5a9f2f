"""Categories of regions without a label: the noun of a list that its caption names first, as RegionCLIP parses them.

A noun counts in any case and in the plural with s or es; of two that begin at one place, the longer.
"""

import re
from collections.abc import Sequence
from functools import cache

from pipeline.word_list import read_word_list

FLAG = "--nouns"


def read_nouns(path: str) -> tuple[str, ...]:
    """Return the nouns of a text file, a line each; # starts a comment. Raises SettingError for a file without any."""
    return read_word_list(path, FLAG, "noun")


def noun_of(caption: str, nouns: Sequence[str]) -> str | None:
    """Return the noun of the list that a caption names first, or None."""
    found = _pattern(tuple(nouns)).search(caption) if nouns else None
    return None if found is None else _by_lower(tuple(nouns))[found[1].lower()]


@cache
def _pattern(nouns: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(nouns, key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})(?:s|es)?\b", re.IGNORECASE)


@cache
def _by_lower(nouns: tuple[str, ...]) -> dict[str, str]:
    return {noun.lower(): noun for noun in reversed(nouns)}
