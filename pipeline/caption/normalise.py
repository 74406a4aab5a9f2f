"""What a captioner returned, made fit to be a caption: tidied, or refused with a reason where it says nothing.

Words, their case and their punctuation are the model's own and stay. What goes is what is no part of a sentence: odd
white space, control characters, quotes around the whole, and what chat models put in front of an answer: lead-ins, and
what they thought.
"""

import re
import unicodedata

from pipeline.caption.repetition import repetition
from pipeline.caption.thoughts import without_thoughts
from pipeline.sample import Caption, Drop
from schemas.reasons import Reason, Stage
from schemas.text import says_something

_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Marks without width, of direction and of byte order, and lone surrogates, which UTF-8 cannot hold. The joiners
U+200C and U+200D stay: emoji and some scripts are written with them."""
_SPECIAL_TOKEN = re.compile(r"<\|[a-zA-Z0-9_]+\|>|</?s>|<pad>|<unk>")
_LEAD_IN = re.compile(r"(?:assistant|answer|caption|description|response)\s*:\s*", re.IGNORECASE)
_ANSWER = re.compile(r"<(answer|caption|description|response|output)>(.*?)(?:</\1>.*)?", re.IGNORECASE | re.DOTALL)
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb", "`": "`"}


def finished(outcome: Caption | Drop, prompt: str | None = None, *, keeps_unfinished: bool = True) -> Caption | Drop:
    """Return the caption as it goes into a shard, or why it does not.

    The text is `normalised`, the score rounded to 1e-4. A text that says nothing is `empty_caption`, one that repeats
    itself `repeated_caption`, one that was cut short `unfinished` unless `keeps_unfinished`; a Drop passes through.
    `prompt` is what the captioner was asked.
    """
    if isinstance(outcome, Drop):
        return outcome
    text = normalised(outcome.text, prompt)
    if outcome.unfinished and not keeps_unfinished:
        return _refused(Reason.UNFINISHED, f"{outcome.unfinished}: {outcome.text[:200]!r}")
    if not says_something(text):
        cut = f" ({outcome.unfinished})" if outcome.unfinished else ""
        return _refused(Reason.EMPTY_CAPTION, f"the captioner returned {outcome.text[:200]!r}{cut}")
    repeated = repetition(text)
    if repeated is not None:
        return _refused(Reason.REPEATED_CAPTION, f"{repeated!r} again and again in {text[:200]!r}")
    score = None if outcome.score is None else round(outcome.score, 4)
    return Caption(text=text, score=score, unfinished=outcome.unfinished)


def normalised(text: str, prompt: str | None = None) -> str:
    """Return the text in Unicode NFC, on one line, without what stands around the sentence; idempotent.

    Taken away: what a model thought before it answered, control characters, special tokens that were not skipped, a
    repeated `prompt` and lead-ins such as `Assistant:` at the start, quotes around the whole.
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
    text = _SPECIAL_TOKEN.sub(" ", without_thoughts(text))
    if answer := _ANSWER.fullmatch(text):
        text = answer.group(2)
    if prompt and text.casefold().startswith(prompt.casefold()):
        rest = text[len(prompt) :]
        if not (rest[:1].isalnum() and prompt[-1].isalnum()):  # or the prompt is the beginning of another word
            text = rest
    if lead_in := _LEAD_IN.match(text):
        text = text[lead_in.end() :]
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and not {text[0], text[-1]} & set(text[1:-1]):
        text = text[1:-1]
    return text


def _refused(reason: Reason, message: str) -> Drop:
    return Drop(reason=reason, stage=Stage.CAPTION, message=message)
