"""What counts as text, for whatever reads, makes or checks captions; and numbers as sentences name them."""

_INVISIBLE_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")
"""Hangul fillers: letters to Unicode, nothing to a reader (Default_Ignorable_Code_Point)."""


def says_something(text: str) -> bool:
    """Return whether `text` has a letter or a digit of any script.

    What has none is no caption: blanks, no-break and zero-width spaces, punctuation, symbols alone.
    """
    return any(character.isalnum() and character not in _INVISIBLE_LETTERS for character in text)


def counted(count: int, noun: str) -> str:
    """Return `count` with its noun, of those that only add an s: "1 key", "2,000 keys"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
