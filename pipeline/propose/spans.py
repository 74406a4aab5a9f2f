"""Texts for models that find phrases in them, and phrases from what such a model says of each token.

A caption is given as it is, and a phrase is a run of its words; a list is given as a text, and a phrase is one of it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.propose.phrases import FUNCTION_WORDS

_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+(?:['’\-][^\W_]+)*"
)
"""A word; of Chinese and Japanese, which do not part them, a character."""
_SENTENCE = re.compile(r"[^.!?。！？;\n]+[.!?。！？;\n]*\s*")
_END = re.compile(r"[.!?。！？;]")
_BUCKET = 16
"""Texts are padded to multiples of so many tokens, so that inputs of few shapes come about."""


@dataclass(frozen=True, kw_only=True)
class SpanText:
    """A text, and which tokens are of which part of it: a word, or a phrase of a list."""

    text: str
    length: int
    """Tokens that it is padded to."""
    parts: tuple[tuple[int, int], ...]
    """Where each part begins and ends, in characters."""
    part_of: tuple[int | None, ...]
    """Of each token; None for what is no part."""
    labels: tuple[str, ...] | None
    """Of the parts, where they are phrases; None where they are words."""

    def phrase(self, probabilities: Sequence[float], threshold: float) -> str | None:
        """Return the phrase whose tokens are probable: that with the best of them; None where no word's is.

        Of words, it is the run around the best that are all above the threshold, without function words at its ends.
        """
        best = [0.0] * len(self.parts)
        for part, probability in zip(self.part_of, probabilities, strict=False):
            if part is not None:
                best[part] = max(best[part], probability)
        peak = max(range(len(best)), key=best.__getitem__, default=None)
        if peak is None:
            return None
        if self.labels is not None:
            return self.labels[peak]
        if best[peak] <= threshold:
            return None
        first = last = peak
        while first > 0 and best[first - 1] > threshold and self._are_joined(first - 1):
            first -= 1
        while last + 1 < len(best) and best[last + 1] > threshold and self._are_joined(last):
            last += 1
        return self._trimmed(first, last)

    def _are_joined(self, part: int) -> bool:
        """Return whether no sentence ends between a part and the next."""
        return not _END.search(self.text[self.parts[part][1] : self.parts[part + 1][0]])

    def _trimmed(self, first: int, last: int) -> str:
        """Return the text of a run of parts without function words at its ends, unless there are no others."""
        is_function = [self.text[start:end].lower() in FUNCTION_WORDS for start, end in self.parts]
        if not all(is_function[first : last + 1]):
            while is_function[first]:
                first += 1
            while is_function[last]:
                last -= 1
        return self.text[self.parts[first][0] : self.parts[last][1]]


class SpanTexts:
    """Makes texts of captions and of lists, each as long as a model's text tower takes."""

    def __init__(self, tokenizer: Any, *, most: int) -> None:
        """Take the model's tokenizer, and how many tokens a text may have."""
        self._tokenizer = tokenizer
        self._most = min(most, tokenizer.model_max_length)

    def of_caption(self, caption: str) -> tuple[SpanText, ...]:
        """Return a caption as texts: one, or several where it is long, cut between sentences, else between words."""
        tidy = " ".join(caption.split())
        sentences = _SENTENCE.findall(tidy) if self._count(tidy) > self._most - 1 else [tidy]
        units: list[str] = []
        for sentence in sentences:
            units += [sentence] if self._count(sentence) <= self._most - 1 else re.findall(r"\s*\S+", sentence)
        texts = ("".join(units).strip() for units in self._packed(units))
        made = [self._made(text if _END.match(text[-1]) else f"{text}.", None) for text in texts if text]
        return tuple(text for text in made if text.parts)

    def of_list(self, phrases: Sequence[str]) -> tuple[SpanText, ...]:
        """Return phrases as texts, a full stop after each: that is what parts them for the models."""
        packed = self._packed(phrases, written=_as_sentence)
        return tuple(self._made(" ".join(map(_as_sentence, some)), tuple(some)) for some in packed)

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, verbose=False)["input_ids"])

    def _packed(self, units: Iterable[str], *, written: Callable[[str], str] = str) -> Iterator[list[str]]:
        """Yield the units in groups that fit into a text each; a unit that does not fit alone is cut by the model."""
        group: list[str] = []
        total = 3  # what begins and ends a text, and its full stop
        for unit in units:
            cost = self._count(written(unit)) - 2
            if group and total + cost > self._most:
                yield group
                group, total = [], 3
            group.append(unit)
            total += cost
        if group:
            yield group

    def _made(self, text: str, labels: tuple[str, ...] | None) -> SpanText:
        found = re.finditer(r"[^.]+(?=\.)", text) if labels is not None else _WORD.finditer(text)
        parts = tuple(match.span() for match in found if match.group().strip())
        offsets = self._tokenizer(text, return_offsets_mapping=True, truncation=True, max_length=self._most)
        part_of = tuple(_part_at(parts, start, end) for start, end in offsets["offset_mapping"])
        length = min(self._most, -(-len(part_of) // _BUCKET) * _BUCKET)
        return SpanText(text=text, length=length, parts=parts, part_of=part_of, labels=labels)


def _as_sentence(phrase: str) -> str:
    """Return a phrase with a full stop after it, and none within it."""
    return f"{' '.join(_END.sub(' ', phrase).split())}."


def _part_at(parts: Sequence[tuple[int, int]], start: int, end: int) -> int | None:
    """Return the part that holds the characters of a token, if any."""
    return next((number for number, (a, b) in enumerate(parts) if a <= start < b and end > start), None)
