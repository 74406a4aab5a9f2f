"""The words that captions are made of, by attribute, and sentences that use them: what `--task words` asks about."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from trainer.errors import TrainingError

Attributes = tuple[str, ...]
"""One attribute, or the two of a pair."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The words of captions, and what is asked about them."""

    words: Mapping[str, Sequence[str]]
    """By attribute."""
    sentences: Sequence[str]
    """With attributes in braces: `a {colour} {shape}`."""
    pairs: Sequence[Attributes]
    """Attributes to be told together."""

    @property
    def tasks(self) -> list[Attributes]:
        """What is asked: each attribute alone, then the pairs."""
        return [*((name,) for name in self.words), *map(tuple, self.pairs)]

    def prompts(self) -> dict[str, dict[str, str]]:
        """Return all sentences with all words, and which word each has of which attribute."""
        found = {}
        for sentence in self.sentences:
            names = _slots(sentence)
            for choice in itertools.product(*(self.words[name] for name in names)):
                said = dict(zip(names, choice, strict=True))
                found[sentence.format(**said)] = said
        return found

    def classes(self, task: Attributes) -> list[tuple[str, ...]]:
        """Return the classes of a task: a word each, or a pair of words."""
        return list(itertools.product(*(self.words[name] for name in task)))


def read_vocabulary(path: str) -> Vocabulary:
    """Read a file of words. Raises TrainingError where it is not one."""
    try:
        written = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        vocabulary = Vocabulary(
            words=dict(written["words"]),
            sentences=list(written["sentences"]),
            pairs=[tuple(pair) for pair in written.get("pairs", ())],
        )
        asked = {name for task in vocabulary.tasks for name in task}
        unsaid = sorted(asked - {name for sentence in vocabulary.sentences for name in _slots(sentence)})
        unknown = sorted({name for s in vocabulary.sentences for name in _slots(s)} - vocabulary.words.keys())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"--words {path}: {type(error).__name__}: {error}; it needs `words` by attribute"
        ) from error
    if unsaid or unknown:
        raise TrainingError(
            f"--words {path}: "
            + (f"no sentence has {{{unsaid[0]}}}" if unsaid else f"a sentence has {{{unknown[0]}}}, which has no words")
        )
    return vocabulary


def _slots(sentence: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(sentence) if name]
