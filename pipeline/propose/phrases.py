"""Phrases that detectors are asked for: those of a file, or the noun phrases of an image's own caption, by a rule.

The rule knows English function words and common verbs: what stands between them is a phrase. It needs no model, and it
errs: a verb that it does not know stays in a phrase. Captions in other scripts have no phrases by it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.backends import SettingError
from pipeline.sample import DecodedImage, Drop
from pipeline.word_list import read_word_list
from schemas.hashes import sha256
from schemas.reasons import Reason, Stage

_FLAG = "--propose.phrases"
_MOST_WORDS = 6
"""Words of a noun phrase, at most: a longer run is no English, or nothing that a detector could find."""
_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
_ADDRESS = re.compile(r"\S*(?:://|www\.)\S*")
_WORDS = {
    "colours": "red orange yellow green blue purple pink brown black white grey gray beige gold silver",
    "determiners and pronouns": """
        a an the this that these those some any each every both either neither another other others no all such its his
        her their our your my it he she they we you i him them us me who whom whose which what where when while there
        here one's itself himself herself themselves something someone everything everyone nothing""",
    "prepositions and adverbs of place": """
        of in on at by with without from to into onto over under above below beneath behind between among amid across
        through along around against near beside besides inside outside within toward towards up down off out upon about
        during before after as like via per next front top bottom left right middle side background foreground back
        ahead away together nearby alongside atop""",
    "conjunctions and adverbs": """
        and or but nor so yet if because than then very just also only too not more most quite rather still well almost
        however though although please""",
    "auxiliaries": """
        is are was were be been being am has have had do does did can could may might must shall should will would""",
    "of the picture": "photo photograph picture image view shot scene closeup close-up",
    "verbs": """
        sits sit sat stands stand stood lies lie lay lays laid holds hold held worn wear wears wore rides ride rode
        walks walk runs ran plays plays looks shows show shown uses used hangs hung eats ate drinks flies flew jumps
        leans carries carry carried sleeps rests waits watches makes made gets goes comes takes took taken gives
        appears seems contains includes features surrounded covered filled parked placed seated topped attached
        located mounted dressed displayed set leads drives pulls pushes throws catches hits swings smiles stares faces
        grazes swims sails floats crosses climbs reaches prepares poses talks reads works cuts cooks serves surfs skis
        skates lifts launches blooms grows rises""",
    "nouns that end as participles do": """
        awning bedding building bunting ceiling clothing coating covering crossing dressing drawing duckling dumpling
        earring evening flooring fencing icing king landing lighting lightning lining morning opening painting paving
        pudding railing ring rigging sapling seating sibling siding spring sting string stuffing swing thing topping
        tubing viking wedding wing wiring wrapping""",
}
_SETS = {name: frozenset(words.split()) for name, words in _WORDS.items()}
_COLOURS, _VERBS, _ING_NOUNS = (_SETS.pop(name) for name in ("colours", "verbs", "nouns that end as participles do"))
FUNCTION_WORDS = frozenset().union(*_SETS.values())
"""Words that no phrase has at its ends."""


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """The phrases of a file."""

    phrases: tuple[str, ...]
    """Different from each other, at least one, in the file's order."""

    @property
    def sha256(self) -> str:
        """Names the phrases and their order."""
        return sha256("\n".join(self.phrases).encode())


def read_phrases(path: str | None) -> Phrases | None:
    """Return the phrases of a text file, one a line (# starts a comment); None where no file is named.

    Raises SettingError for a file that cannot be read or has no phrase.
    """
    if path is None:
        return None
    phrases = _distinct(read_word_list(path, _FLAG, "phrase"))
    for phrase in phrases:
        if not _WORD.search(phrase):
            raise SettingError(f"{_FLAG} {path}: {phrase[:100]!r} names nothing; write words")
    return Phrases(phrases=phrases)


def check_lengths(given: Phrases | None, tokenizer: Any, *, most: int) -> None:
    """Raise SettingError for a phrase of a file that is longer than the model's text tower takes."""
    most = min(most, tokenizer.model_max_length)
    for phrase in given.phrases if given is not None else ():
        count = len(tokenizer(phrase, verbose=False)["input_ids"])
        if count > most:
            raise SettingError(f"{_FLAG}: {phrase[:100]!r} has {count} tokens, and the model takes {most} at most")


def noun_phrases(caption: str) -> tuple[str, ...]:
    """Return the noun phrases of an English caption, as they are written there, without articles; each once."""
    caption = _ADDRESS.sub(lambda address: "." * len(address.group()), caption)
    runs: list[list[re.Match[str]]] = [[]]
    end = 0
    for word in _WORD.finditer(caption):
        is_boundary = bool(caption[end : word.start()].strip())  # punctuation
        end = word.end()
        if is_boundary:
            runs.append([])
        if _ends_phrase(word.group()):
            runs.append([])
        else:
            runs[-1].append(word)
    named = [run for run in runs if len(run) <= _MOST_WORDS and any(map(_names_something, run))]
    return _distinct(caption[run[0].start() : run[-1].end()] for run in named)


def phrases_of(image: DecodedImage, given: Phrases | None) -> tuple[str, ...] | Drop:
    """Return the given phrases, or the noun phrases of the image's caption; the image's drop where it has none."""
    if given is not None:
        return given.phrases
    caption = image.item.caption or ""
    return noun_phrases(caption) or no_phrases(
        caption, f"has no noun phrase by the rule for English: {caption[:200]!r}"
    )


def no_phrases(caption: str, problem: str) -> Drop:
    """Return the drop of an image whose caption names nothing; `problem` says why where there is a caption."""
    message = f"the image's caption {problem}" if caption.strip() else "the image has no caption to find the phrases of"
    message += f"; {_FLAG} FILE gives the phrases to look for in every image"
    return Drop(reason=Reason.NO_PHRASES, stage=Stage.PROPOSE, message=message)


def _ends_phrase(word: str) -> bool:
    """Return whether a word belongs to no noun phrase: a function word, a verb that is known, a participle."""
    low = word.lower().replace("’", "'")
    is_participle = low.endswith("ing") and len(low) > 4 and low not in _ING_NOUNS
    return low in FUNCTION_WORDS or low in _VERBS or is_participle


def _names_something(word: re.Match[str]) -> bool:
    """Return whether a word may be a noun of English: more than one Latin letter, and no colour."""
    return len(_LATIN.findall(word.group())) > 1 and word.group().lower() not in _COLOURS


def _distinct(phrases: Iterable[str]) -> tuple[str, ...]:
    """Return each phrase once, whatever its case, as it is written the first time; no empty ones."""
    known: dict[str, str] = {}
    for phrase in filter(None, phrases):
        known.setdefault(phrase.casefold(), phrase)
    return tuple(known.values())
