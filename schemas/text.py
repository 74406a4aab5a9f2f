"""What counts as text, for whatever reads, makes or checks captions, labels and names; numbers as sentences name them.

Two things are no text, and are never stored: NUL, which C strings end at, and lone surrogates, which UTF-8 cannot say.
Both are mended: U+FFFD stands in their place. A byte that is not UTF-8 is mended too, but its text is told apart
(`was_not_utf8`): a caption in another encoding is lost, not mended.
"""

import re

_INVISIBLE_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")
"""Hangul fillers: letters to Unicode, nothing to a reader (Default_Ignorable_Code_Point)."""

_UNDECODABLE = "\ufdd0"
"""Stands for a byte that is not UTF-8: Unicode keeps it for use inside programs, so that no text holds it."""
SURROGATE = "\ufdd1"
"""Stands for a lone surrogate where a strict reader would not take it; `mended` knows it."""
_NO_TEXT = re.compile(f"[\0\ud800-\udfff{_UNDECODABLE}{SURROGATE}]")

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_CONTROL = re.compile("[\\x00-\\x08\\x0e-\\x1f]")
_FEWEST_UTF16 = 6
"""Bytes of a text that is taken for UTF-16 without its mark."""


def says_something(text: str) -> bool:
    """Return whether `text` has a letter or a digit of any script.

    What has none is no caption: blanks, no-break and zero-width spaces, punctuation, symbols alone.
    """
    return any(character.isalnum() and character not in _INVISIBLE_LETTERS for character in text)


def decode_utf8(data: bytes) -> str:
    """Return `data` as text, without a byte-order mark in front; bytes that are not UTF-8 are marked for `mended`."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = re.sub("[\udc80-\udcff]", _UNDECODABLE, data.decode("utf-8", "surrogateescape"))
    return text.removeprefix("\ufeff")


def decode_text(data: bytes) -> str:
    """Return `data` as `decode_utf8` does, or as UTF-16 where its byte-order mark says so.

    Raises UnicodeDecodeError where the mark is that of UTF-16 and the rest is not.
    """
    return data.decode("utf-16") if data.startswith(_UTF16_MARKS) else decode_utf8(data)


def lines_of(data: bytes) -> list[str]:
    """Return the lines of `data`, each as `decode_utf8` has it; they end at line feeds and carriage returns alone.

    `str.splitlines` ends them at eight more characters, which may stand in a sentence or a name.
    """
    return [decode_utf8(line) for line in data.splitlines()]


def was_not_utf8(text: str) -> bool:
    """Return whether `decode_utf8` met bytes in `text` that are not UTF-8, or UTF-16 without its byte-order mark.

    In UTF-16 every second byte of most scripts is the same low one: 0 in Latin, 3 in Greek, 4 in Cyrillic.
    """
    if _UNDECODABLE in text:
        return True
    if len(text) < _FEWEST_UTF16 or len(text) % 2 or not _CONTROL.search(text):
        return False
    halves = (text[::2], text[1::2])
    return any(len(_CONTROL.findall(half)) * 10 >= len(half) * 8 for half in halves)


def mended(text: str) -> str:
    """Return `text` as it can be stored: U+FFFD in place of NUL, of lone surrogates and of bytes that are not UTF-8."""
    if "\0" not in text and text.isascii():
        return text
    return _NO_TEXT.sub("\ufffd", text)


def counted(count: int, noun: str) -> str:
    """Return `count` with its noun, of those that only add an s: "1 key", "2,000 keys"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
