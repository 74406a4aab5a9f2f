"""Wrong captions out of right ones: one attribute or noun is changed to another that the same data speak of.

    words = Vocabulary.of(captions, nouns=labels)
    words.changes("a small red star")     size: a large red star; colour: a small blue star; noun: a small red ring

Nothing is invented: a word is changed only to words of its own kind that the data's captions hold. Words that mean the
same, or may be said of the same thing (small and tiny), never stand for each other.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

ATTRIBUTES: dict[str, tuple[tuple[str, ...], ...]] = {
    "colour": (
        ("red", "maroon", "crimson"),
        ("orange",),
        ("yellow", "gold", "golden"),
        ("green", "olive"),
        ("cyan", "turquoise", "teal"),
        ("blue", "navy"),
        ("purple", "violet"),
        ("pink", "magenta"),
        ("brown", "tan", "beige"),
        ("black",),
        ("white",),
        ("gray", "grey", "silver"),
    ),
    "size": (("small", "little", "tiny"), ("medium",), ("large", "big", "huge")),
    "texture": (
        ("solid", "plain"),
        ("striped",),
        ("dotted", "polka-dot", "spotted"),
        ("checkered", "plaid"),
        ("floral",),
    ),
    "material": (
        ("wooden", "wood"),
        ("metal", "metallic", "steel"),
        ("plastic",),
        ("glass",),
        ("leather",),
        ("stone", "concrete"),
        ("brick",),
        ("paper",),
        ("ceramic",),
    ),
    "state": (("open",), ("closed", "shut")),
    "age": (("young",), ("old", "elderly")),
    "person": (("man", "boy"), ("woman", "girl"), ("dog",), ("cat",), ("horse",), ("bird",)),
}
"""Words by kind; those of one tuple mean nearly the same."""

NOUN = "noun"
"""The kind of the names that the data's labels give."""

_VOWELS = "aeiou"


class Change(NamedTuple):
    """A wrong caption."""

    kind: str
    """Of the word that was changed: a key of `ATTRIBUTES`, or `noun`."""
    caption: str


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The words of a data set, by kind."""

    groups: dict[str, tuple[tuple[str, ...], ...]]

    @classmethod
    def of(cls, captions: Iterable[str], nouns: Iterable[str] = ()) -> "Vocabulary":
        """Collect the words that `captions` hold; `nouns` are the data's labels, used as far as captions name them."""
        present: set[str] = set()
        text = set()
        for caption in set(captions):
            words = _words(caption)
            present.update(words)
            text.add(" " + " ".join(words) + " ")
        named = sorted({noun.lower().strip() for noun in nouns} - {""})
        of_data = tuple((noun,) for noun in named if any(f" {noun} " in caption for caption in text))
        groups = {**ATTRIBUTES, NOUN: of_data}
        known = {
            kind: tuple(kept for same in sets if (kept := tuple(w for w in same if kind == NOUN or w in present)))
            for kind, sets in groups.items()
        }
        return cls(groups={kind: sets for kind, sets in known.items() if len(sets) > 1})

    def changes(self, caption: str) -> list[Change]:
        """Return all captions that differ from `caption` in one word, sorted within their kind; none where none can."""
        found: dict[str, Change] = {}
        for kind, sets in self.groups.items():
            spoken = [same for same in sets if any(_pattern(word).search(caption) for word in same)]
            for mine in spoken:
                others = [same[0] for same in sets if same not in spoken]
                for change in self._swaps(kind, mine, others, caption):
                    found.setdefault(change.caption, change)
        return list(found.values())

    @staticmethod
    def _swaps(kind: str, mine: tuple[str, ...], others: list[str], caption: str) -> Iterator[Change]:
        for word in mine:
            if not (pattern := _pattern(word)).search(caption):
                continue
            for other in sorted(others):
                yield Change(kind, pattern.sub(partial(_fitting, other), caption, count=1))


def _words(caption: str) -> list[str]:
    return re.findall(r"[\w-]+", caption.lower())


@cache
def _pattern(word: str) -> re.Pattern[str]:
    """Match a whole word, with the article in front where there is one."""
    return re.compile(rf"(?:\b(?P<article>an?)(?P<space>\s+))?(?<![\w-]){re.escape(word)}(?![\w-])", re.IGNORECASE)


def _fitting(word: str, match: re.Match[str]) -> str:
    """Return the other word, with its article: an orange star, a red star."""
    if match["article"] is None:
        return word.capitalize() if match[0][:1].isupper() else word
    article = "an" if word[0] in _VOWELS else "a"
    return (article.capitalize() if match["article"][0].isupper() else article) + match["space"] + word
