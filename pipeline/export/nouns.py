"""Categories of regions without a label: the noun of a list that its caption names first, as RegionCLIP parses them.

A noun counts in any case and in the plural with s or es; of two that begin at one place, the longer.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pipeline.backends import SettingError

FLAG = "--nouns"


def read_nouns(path: str) -> tuple[str, ...]:
    """Return the nouns of a text file, a line each; # starts a comment. Raises SettingError for a file without any."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{FLAG} {path}: {getattr(error, 'strerror', None) or error}") from error
    tidied = (" ".join(line.split()) for line in lines)
    nouns = tuple(dict.fromkeys(line for line in tidied if line and not line.startswith("#")))
    if not nouns:
        raise SettingError(f"{FLAG} {path}: holds no noun; write one a line")
    return nouns


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
