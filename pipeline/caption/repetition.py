"""Whether a text says the same again and again, as a model does that got stuck: judged by what repeats, in any script.

True sentences repeat themselves too: prices, serial numbers, laughter, reduplication. What a word is differs by script:
some set no spaces, and many write vowels as marks that are no letters.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Literal

_JOINTS = "'\u2019-\u2010\u2011"
"""What may stand inside a word; inside a number, `_NUMBER_JOINTS` may too."""
_NUMBER_JOINTS = ".,:/\u066b\u066c"
_WITHOUT_SPACES = (
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "BOPOMOFO",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
    "YI",
    "JAVANESE",
    "TAI",
)
"""First words of the Unicode names of characters of scripts that set no space between words."""

_WORD_TIMES, _PHRASE_TIMES = 4, 3
"""Times in a row from which on a word ("very very"), or a phrase of two words or more, is a stuck model's."""
_CODE_TIMES = {1: 10, 2: 6, 3: 6}
"""The same where a number, a letter or a row of one sign is in it, by the phrase's words: prices and serial numbers."""
_CHARACTER_TIMES = {1: 12, 2: 5}
"""The same in a script without spaces, by the phrase's characters: laughter and reduplication are written so."""
_LONG_WORD = 24
"""Letters from which on a word is looked into: one letter or syllable held down."""
_LONG_CODE = 48
_STUCK_WORD = re.compile(r"(.+?)\1{4,}")


def repetition(text: str) -> str | None:
    """Return what the text says again and again, as a model does that got stuck; None where it does not.

    That is a phrase of two words or more three times in a row, a word four times, one word three times and nothing
    else, or within a very long word some letters five times. Numbers, codes and the characters of scripts without
    spaces have to come more often. Case and punctuation do not count.
    """
    words = words_of(text.casefold())
    for size in range(1, len(words) // _PHRASE_TIMES + 1):
        same_as_later = [word == later for word, later in zip(words, words[size:], strict=False)]
        position = 0
        for same, run in groupby(same_as_later):
            length = len(list(run))
            phrase = words[position : position + size]
            if same and length >= size * (_times(phrase, alone=len(words) == length + size) - 1) and _is_whole(phrase):
                return (" " if size < len("".join(phrase)) else "").join(phrase)
            position += length
    for word in words:
        longest = _LONG_CODE if any(map(str.isdigit, word)) else _LONG_WORD
        if (found := _STUCK_WORD.search(word)) and len(word) >= longest:
            return found.group(1)
    return None


def words_of(text: str) -> list[str]:
    """Return the words and numbers of a text; of scripts without spaces the characters, each with its marks."""
    words: list[str] = []
    before = joint = ""  # what the last character was to its word; what may join the next one to it
    for character, following in zip(text, [*text[1:], ""], strict=True):
        kind = _kind(character)
        if kind == "mark" and before:
            words[-1] += character
        elif kind == "letter" and before == "letter":
            words[-1] += joint + character
            joint = ""
        elif kind in ("letter", "character"):
            words.append(character)
            before, joint = kind, ""
        else:
            in_number = character in _NUMBER_JOINTS and words and words[-1][-1].isdigit() and following.isdigit()
            joins = (character in _JOINTS or in_number) and before == "letter" and not joint
            before, joint = (before, character) if joins else ("", "")
    return words


@cache
def _kind(character: str) -> Literal["letter", "character", "mark", ""]:
    """Return what a character is to its word; a "character" is a word, or a part of one that no space tells."""
    if unicodedata.category(character)[0] == "M" or character in "\u200c\u200d":
        return "mark"
    if not character.isalnum():
        return ""
    name = unicodedata.name(character, "")
    return "character" if name.startswith(_WITHOUT_SPACES) and not character.isdigit() else "letter"


def _times(phrase: Sequence[str], *, alone: bool) -> int:
    """Return how often in a row a phrase is a stuck model's; `alone` where the text says nothing else."""
    if any(_kind(word[0]) == "character" for word in phrase):
        return _CHARACTER_TIMES.get(len(phrase), _PHRASE_TIMES)
    has_letters = any(map(str.isalpha, "".join(phrase)))
    if len(phrase) == 1 and alone and has_letters:
        return _PHRASE_TIMES
    if any(_is_code(word) for word in phrase) or (len(phrase) == 1 and len(phrase[0]) == 1):
        return _CODE_TIMES.get(len(phrase), _PHRASE_TIMES)
    return _WORD_TIMES if len(phrase) == 1 else _PHRASE_TIMES


def _is_code(word: str) -> bool:
    """Return whether a word has a digit in it, or is one sign again and again ("XXXX")."""
    return any(map(str.isdigit, word)) or (len(word) > 1 and len(set(word)) == 1)


def _is_whole(phrase: Sequence[str]) -> bool:
    """Return whether a phrase is no repetition of a shorter one, which has its own number of times."""
    return not any(
        len(phrase) % size == 0 and list(phrase) == list(phrase[:size]) * (len(phrase) // size)
        for size in range(1, len(phrase) // 2 + 1)
    )
