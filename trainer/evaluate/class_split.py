"""Base classes, whose boxes and masks are trained on, and novel ones, which are known by name alone.

`ov-coco` is the field's split of COCO's 80 names (48 base, 17 novel, 15 unused); `scenes` and `scenes-held-out` are for
data of `scenes:N?classes=open24` and `open34`; a file is JSON: {"base": [names], "novel": [names], ...}.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import TrainingError

BASE = "base"


@dataclass(frozen=True, kw_only=True)
class ClassSplit:
    """Names of classes by group; `base` is one of them, all others are novel."""

    where: str
    """What it was called by; named in errors."""
    groups: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(name for group in self.groups.values() for name in group)

    def is_base(self, name: str) -> bool:
        """Say whether a class is trained on."""
        return name in self.groups[BASE]

    def ordered(self, categories: Sequence[str], where: str) -> list[str]:
        """Return the split's names in the order of a data set's `categories`.

        Raises TrainingError, naming the split, a class and the data, where one is not among them.
        """
        missing = [name for name in self.names if name not in categories]
        if missing:
            shown = ", ".join(map(repr, missing[:3])) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            others = ", ".join(map(repr, list(categories)[:5])) or "none"
            same = missing[0].strip().casefold()
            near = next((name for name in categories if name.strip().casefold() == same), None)
            raise TrainingError(
                f"--split-classes {self.where}: {shown}: no such category in {where}, which has {others}"
                f"{', ...' if len(categories) > 5 else ''}; "
                + ("give the list that belongs to the data" if near is None else f"is {near!r} meant?")
            )
        return [name for name in categories if name in set(self.names)]


def read_class_split(name: str) -> ClassSplit:
    """Return a split that is known by name, or a JSON file's. Raises TrainingError."""
    if name in NAMED:
        return ClassSplit(where=name, groups=NAMED[name])
    try:
        written = json.loads(Path(name).read_text(encoding="utf-8-sig"))
        groups = {str(group): tuple(names) for group, names in written.items() if isinstance(names, list)}
        odd = [group for group in written if not all(isinstance(one, str) for one in groups.get(str(group), (0,)))]
        if odd:
            raise ValueError(f"{odd[0]!r} is no list of names")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"--split-classes {name}: {error}; give {', '.join(NAMED)}, or a JSON file "
            '{"base": [names], "novel": [names]}'
        ) from error
    return _checked(ClassSplit(where=name, groups=groups))


def _checked(split: ClassSplit) -> ClassSplit:
    lacking = [group for group in (BASE, "novel") if not split.groups.get(group)]
    twice = sorted({name for name in split.names if split.names.count(name) > 1})
    if "all" in split.groups:
        raise TrainingError(
            f"--split-classes {split.where}: 'all' is what all groups are told under: call it another name"
        )
    if lacking:
        raise TrainingError(f"--split-classes {split.where}: it has no {lacking[0]!r}: give names of classes for it")
    if twice:
        raise TrainingError(f"--split-classes {split.where}: {twice[0]!r} is there twice")
    return split


_COCO_BASE = (
    "person, bicycle, car, motorcycle, train, truck, boat, bench, bird, horse, sheep, bear, zebra, giraffe, backpack, "
    "handbag, suitcase, frisbee, skis, kite, surfboard, bottle, fork, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, pizza, donut, chair, bed, toilet, tv, laptop, mouse, remote, microwave, oven, toaster, "
    "refrigerator, book, clock, vase, toothbrush"
)
_COCO_NOVEL = (
    "airplane, bus, cat, dog, cow, elephant, umbrella, tie, snowboard, skateboard, cup, knife, cake, couch, keyboard, "
    "sink, scissors"
)
_SCENES_NOVEL = ("orange circle", "green square", "cyan star", "pink ring", "black circle", "white star")
_SCENES_BASE = tuple(
    name
    for shape in ("circle", "square", "star", "ring")
    for colour in ("orange", "green", "cyan", "pink", "black", "white")
    if (name := f"{colour} {shape}") not in _SCENES_NOVEL
)
_SCENES_HELD_OUT = (
    "yellow circle, blue square, brown triangle, red star, green cross, purple ring, black heart, orange crescent, "
    "cyan arrow, pink diamond"
)
_SCENES = {BASE: _SCENES_BASE, "novel": _SCENES_NOVEL}

NAMED: dict[str, dict[str, tuple[str, ...]]] = {
    "ov-coco": {BASE: tuple(_COCO_BASE.split(", ")), "novel": tuple(_COCO_NOVEL.split(", "))},
    "scenes": _SCENES,
    "scenes-held-out": {**_SCENES, "held_out": tuple(_SCENES_HELD_OUT.split(", "))},
}
"""Splits by name."""
