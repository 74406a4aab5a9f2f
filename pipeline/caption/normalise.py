"""What a captioner returned, made fit to be a caption: tidied, or refused with a reason where it says nothing.

Words, their case and their punctuation are the model's own and stay. What goes is what is no part of a sentence: odd
white space, control characters, quotes around the whole, and what chat models put in front of an answer.
"""

import re
import unicodedata
from itertools import groupby

from pipeline.sample import Caption, Drop
from schemas.reasons import Reason, Stage

_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Marks without width, of direction and of byte order, and lone surrogates, which UTF-8 cannot hold. The joiners
U+200C and U+200D stay: emoji and some scripts are written with them."""
_SPECIAL_TOKEN = re.compile(r"<\|[a-zA-Z0-9_]+\|>|</?s>|<pad>|<unk>")
_LEAD_IN = re.compile(r"(?:assistant|answer|caption|description|response)\s*:\s*", re.IGNORECASE)
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb", "`": "`"}

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
_PHRASE_TIMES, _WORD_TIMES = 3, 4
"""Times in a row from which on a phrase of two words or more, or a single word ("very very"), is a stuck model's."""
_LONG_WORD = 24
"""Characters from which on a word is looked into: scripts without spaces, or one letter held down."""
_STUCK_WORD = re.compile(r"(.+?)\1{4,}")


def finished(outcome: Caption | Drop, prompt: str | None = None) -> Caption | Drop:
    """Return the caption as it goes into a shard, or why it does not.

    The text is `normalised`, the score rounded to 1e-4. A text without a word is `empty_caption`, one that repeats
    itself `repeated_caption`; a Drop passes through. `prompt` is what the captioner was asked.
    """
    if isinstance(outcome, Drop):
        return outcome
    text = normalised(outcome.text, prompt)
    if not _WORD.search(text):
        return _refused(Reason.EMPTY_CAPTION, f"the captioner returned {outcome.text[:200]!r}")
    repeated = repetition(text)
    if repeated is not None:
        return _refused(Reason.REPEATED_CAPTION, f"{repeated!r} again and again in {text[:200]!r}")
    return Caption(text=text, score=None if outcome.score is None else round(outcome.score, 4))


def normalised(text: str, prompt: str | None = None) -> str:
    """Return the text in Unicode NFC, on one line, without what stands around the sentence; idempotent.

    Taken away: control characters, special tokens that were not skipped, a repeated `prompt` and lead-ins such as
    `Assistant:` at the start, quotes around the whole.
    """
    tidied = _one_line(text)
    asked = _one_line(prompt or "")
    while (shorter := _one_line(_unwrapped(tidied, asked))) != tidied:
        tidied = shorter
    return tidied


def _one_line(text: str) -> str:
    """Return the text in NFC with each run of white space and control characters as one space, none at the ends."""
    seen = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    spaced = "".join(" " if unicodedata.category(character) == "Cc" else character for character in seen)
    return unicodedata.normalize("NFC", " ".join(spaced.split()))  # what was taken away may have kept accents apart


def _unwrapped(text: str, prompt: str) -> str:
    """Return the text without one layer of what surrounds a sentence."""
    text = _SPECIAL_TOKEN.sub(" ", text)
    if prompt and text.casefold().startswith(prompt.casefold()):
        rest = text[len(prompt) :]
        if not (rest[:1].isalnum() and prompt[-1].isalnum()):  # or the prompt is the beginning of another word
            text = rest
    if lead_in := _LEAD_IN.match(text):
        text = text[lead_in.end() :]
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and not {text[0], text[-1]} & set(text[1:-1]):
        text = text[1:-1]
    return text


def repetition(text: str) -> str | None:
    """Return what the text says again and again, as a model does that got stuck; None where it does not.

    That is a phrase of two words or more three times in a row, a word four times, one word three times and nothing
    else, or within a very long word some letters five times. Case and punctuation do not count.
    """
    words = [word.casefold() for word in _WORD.findall(text)]
    for size in range(1, len(words) // _PHRASE_TIMES + 1):
        times = _WORD_TIMES if size == 1 and len(words) > _PHRASE_TIMES else _PHRASE_TIMES
        first = _repeated_from(words, size, times)
        if first is not None:
            return " ".join(words[first : first + size])
    stuck = (_STUCK_WORD.search(word) for word in words if len(word) >= _LONG_WORD)
    return next((found.group(1) for found in stuck if found), None)


def _repeated_from(words: list[str], size: int, times: int) -> int | None:
    """Return where `size` words stand `times` times in a row; None if nowhere."""
    same_as_later = [word == later for word, later in zip(words, words[size:], strict=False)]
    position = 0
    for same, run in groupby(same_as_later):
        length = len(list(run))
        if same and length >= size * (times - 1):
            return position
        position += length
    return None


def _refused(reason: Reason, message: str) -> Drop:
    return Drop(reason=reason, stage=Stage.CAPTION, message=message)
