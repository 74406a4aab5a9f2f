"""Captions of images, read alike for all sources: what counts as one, in whatever shape it is written.

    text, bytes, list, struct --CaptionReader.add--> captions, in the order in which they count; a note; or SampleError

A caption says something (`schemas.text.says_something`). NUL and lone surrogates in it are mended; one that is not
UTF-8 is lost, and so is its image where it was the only one. Text files beside pictures may hold labels: lines of
numbers are no captions.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.read.items import SampleError
from schemas.reasons import Reason
from schemas.text import decode_utf8, mended, says_something, was_not_utf8

CAPTION_NAMES = (
    "caption",
    "captions",
    "text",
    "txt",
    "sentence",
    "sentences",
    "alt_text",
    "alt",
    "description",
    "prompt",
    "comment",
    "title",
)
"""What columns and fields that hold captions are called, in any case; the first that is there counts."""
SIDECAR_SUFFIXES = ("txt", "caption", "cap")
"""Of files that hold an image's caption under the image's name, in any case; in this order."""

_NUMBERED = re.compile(r"(?:caption|text|sentence)s?[_ -]?(\d+)", re.IGNORECASE)
_NESTED_NAMES = ("raw", *CAPTION_NAMES)
"""What the text is called where a caption is a struct."""
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_DIGITS = re.compile(r"\d+")
_FEWEST = 4
"""Numbers of a row of labels: no box has fewer."""
_MAX_NESTING = 8


def caption_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that hold captions: the first usual name, else numbered ones such as `caption_0` in order."""
    by_lower: dict[str, str] = {}
    numbered: dict[str, int] = {}
    for name in names:
        stripped = name.strip()
        by_lower.setdefault(stripped.lower(), name)
        if match := _NUMBERED.fullmatch(stripped):
            numbered[name] = int(match[1])
    plain = next((by_lower[candidate] for candidate in CAPTION_NAMES if candidate in by_lower), None)
    return tuple(sorted(numbered, key=numbered.__getitem__)) if plain is None else (plain,)


def tidy_caption(text: str) -> str | None:
    """Return a caption as it is stored: mended, without byte-order mark and last newline; None if it says nothing."""
    text = text.removeprefix("\ufeff")
    if text.endswith("\n"):
        text = text.removesuffix("\n").removesuffix("\r")
    return mended(text) if says_something(text) else None


def is_labels(text: str) -> bool:
    """Return whether most lines of a text file are rows of numbers, with a word or two: boxes, outlines, keypoints.

    So are YOLO's `1 0.35 0.51 0.2 0.3`, KITTI's and DOTA's rows; `route 66`, or a lone number, is not.
    """
    if len(_DIGITS.findall(text)) < _FEWEST:
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    return 2 * sum(map(_is_label_row, lines)) >= len(lines)


def _is_label_row(line: str) -> bool:
    tokens = [token for token in re.split(r"[\s,;]+", line.strip()) if token]
    numbers = [token for token in tokens if _NUMBER.fullmatch(token)]
    words = len(tokens) - len(numbers)
    fractions = sum("." in token for token in numbers)
    return len(numbers) >= _FEWEST and (words == 0 or (words <= 2 and (fractions >= 3 or len(numbers) >= 8)))


class CaptionReader:
    """Collects the captions of one image from wherever its source has them, in the order in which they count."""

    __slots__ = ("_lost", "_notes", "_texts")

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}
        self._notes: list[str] = []
        self._lost: list[SampleError] = []

    def add(self, value: Any, name: str) -> None:
        """Take what a source says: text, bytes, a number, a list or struct of such; `name` says where, for messages."""
        for text in (value,) if isinstance(value, str) else _texts(value):
            if was_not_utf8(text):
                self.lose(SampleError(Reason.CAPTION_ENCODING, f"{name}: a caption that is not UTF-8"))
            elif (tidy := tidy_caption(text)) is not None:
                self._texts.setdefault(tidy)
                if "\ufffd" in tidy and "\ufffd" not in text:
                    self.note(f"{name}: what is no text was replaced by U+FFFD")

    def add_file(self, data: bytes, name: str) -> None:
        """Take the contents of a text file of an image; lines of numbers are noted, and are no caption."""
        text = decode_utf8(data)
        if is_labels(text):
            self.note(f"{name}: lines of numbers are labels, not a caption")
        else:
            self.add(text, name)

    def join(self, other: "CaptionReader") -> None:
        """Take what another reader has taken of the same image, behind what is there."""
        for text in other.found:
            self._texts.setdefault(text)
        self._notes += other._notes
        self._lost += other._lost

    def note(self, text: str) -> None:
        """Keep a sentence for the image's row."""
        self._notes.append(text)

    def lose(self, error: SampleError) -> None:
        """Remember a caption that cannot be read: it ends the image unless there is another."""
        self._lost.append(error)

    @property
    def found(self) -> tuple[str, ...]:
        """The captions that can be read, each once."""
        return tuple(self._texts)

    def captions(self) -> tuple[str, ...]:
        """Return the captions, each once. Raises SampleError where all that there were cannot be read."""
        if self._lost and not self._texts:
            raise self._lost[0]
        return self.found

    @property
    def note_text(self) -> str | None:
        """What was mended or left out, or None."""
        return "; ".join([*self._notes, *map(str, self._lost)]) if self._notes or self._lost else None


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the texts of a value in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes | bytearray | memoryview):
        yield decode_utf8(bytes(value))
    elif isinstance(value, bool) or value is None or value != value:  # NaN, as pandas writes null
        return
    elif isinstance(value, int | float):
        yield str(value)
    elif isinstance(value, Mapping) and depth < _MAX_NESTING:
        yield from _texts(_of_struct(value), depth + 1)
    elif isinstance(value, list | tuple) and depth < _MAX_NESTING:
        for entry in value:
            yield from _texts(entry, depth + 1)


def _of_struct(value: Mapping[Any, Any]) -> Any:
    """Return the field of a struct that is its text: one with a usual name, else the first that is text."""
    by_lower = {str(name).lower(): field for name, field in value.items()}
    for name in _NESTED_NAMES:
        if by_lower.get(name) is not None:
            return by_lower[name]
    return next((field for field in value.values() if isinstance(field, str | bytes)), None)


def notes(*texts: str | None) -> str | None:
    """Return the notes that there are as one, or None."""
    return "; ".join(text for text in texts if text) if any(texts) else None
