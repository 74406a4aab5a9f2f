"""What `--data` means to a segmenter: images with a class a pixel, base ones to train on, all to measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol
from urllib.parse import unquote

import numpy as np

from trainer.data.decode import Pixels, UnusableSampleError
from trainer.errors import TrainingError
from trainer.evaluate.class_split import BASE, ClassSplit
from trainer.evaluate.metrics import Ints
from trainer.evaluate.read.source import Wanted, open_truth
from trainer.evaluate.settings import TruthSettings
from trainer.segmentation.label_maps import KINDS, OPTIONS, open_maps
from trainer.segmentation.mask_loss import NO_CLASS
from trainer.segmentation.outlines import open_context, region_labels

ALL = "all"


class Labels(Protocol):
    """Images with labels, from whatever source."""

    def __len__(self) -> int:
        """Return how many there are."""

    def key(self, image: int) -> str:
        """Return what an image is called."""

    def identity(self, image: int) -> str:
        """Return what a fingerprint takes of its labels."""

    def read(self, image: int) -> tuple[Pixels, Ints]:
        """Return `[h, w, 3]` and `[h, w]` places in the source's classes or NO_CLASS. Raises UnusableSampleError."""


@dataclass(frozen=True, kw_only=True)
class SegmentData:
    """Images with a class a pixel."""

    where: str
    labels: Labels
    place: Ints
    """`[K + 1]`: which of `classes` each of the source's is, NO_CLASS for those left out; the last is NO_CLASS's."""
    classes: tuple[str, ...]
    groups: Mapping[str, Sequence[int]]
    """Places in `classes` that metrics are told of: base, novel, ..., and all."""
    left_out: Mapping[str, int]
    """How many images are not here, by why."""

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.labels)

    def key(self, image: int) -> str:
        """Return what an image is called."""
        return self.labels.key(image)

    def read(self, image: int) -> tuple[Pixels, Ints]:
        """Return an image `[h, w, 3]`, and `[h, w]` places in `classes`, or NO_CLASS. Raises UnusableSampleError."""
        pixels, labels = self.labels.read(image)
        if not min(pixels.shape[:2]):
            raise UnusableSampleError("the image is empty")
        return pixels, self.place[labels]

    def fingerprint(self) -> str:
        """Return the sha256 of classes, names of images, and what is known of their labels without reading them all."""
        lines = [*self.classes, *map(str, self.place.tolist())]
        lines += [f"{self.key(image)} {self.labels.identity(image)}" for image in range(len(self))]
        return sha256("\n".join(lines).encode()).hexdigest()


def open_data(
    data: str, split: ClassSplit | None, *, to_train: bool, background: str | None, shards: str = "train"
) -> SegmentData:
    """Return the images and labels of `data`: of base classes alone where they are `to_train` on.

    `background` names what no region covers, in data of regions. Raises TrainingError, naming data and what is wrong.
    """
    where = f"--data {data}"
    kind, _, rest = data.partition(":")
    if kind in KINDS or kind == "pc59":
        path, options = _options(rest, where)
        if kind == "pc59":
            labels, listed = open_context(path, options, where)
            return _chosen(where, labels, listed.names, split, {}, to_train=to_train)
        maps, left_out = open_maps(kind, path, options, where)
        return _chosen(where, maps, maps.classes.names, split, left_out, to_train=to_train)
    truth = open_truth(data, split=shards, settings=TruthSettings(), wanted=Wanted(masks=True))
    names = tuple(truth.classes or sorted({label for label in truth.labels if label is not None}))
    if not truth.num_regions:
        raise TrainingError(f"{where}: there is no region in any of {len(truth.images)} images")
    regions = region_labels(truth, names, background, where)
    return _chosen(where, regions, names, split, truth.left_out, to_train=to_train, background=background)


def _chosen(
    where: str,
    labels: Labels,
    names: Sequence[str],
    split: ClassSplit | None,
    left_out: Mapping[str, int],
    *,
    to_train: bool,
    background: str | None = None,
) -> SegmentData:
    """Return the classes of a split, or all, and `background` after them."""
    chosen = list(names) if split is None else split.ordered(names, where)
    if split is not None and to_train:
        chosen = [name for name in chosen if split.is_base(name)]
    places = {name: number for number, name in enumerate(chosen)} if split is not None else {}
    place = [places.get(name, NO_CLASS) for name in names] if split is not None else list(range(len(names)))
    groups = {
        group: [places[name] for name in members]
        for group, members in ({} if split is None else split.groups).items()
        if not to_train or group == BASE
    }
    groups[ALL] = list(range(len(chosen)))
    if background is not None:
        if background in chosen:
            raise TrainingError(f"{where}: --background {background!r} is a class of the data too: give another name")
        place.append(len(chosen))
        chosen.append(background)
    return SegmentData(
        where=where,
        labels=labels,
        place=np.array([*place, NO_CLASS], dtype=np.int64),
        classes=tuple(chosen),
        groups=groups,
        left_out={why: count for why, count in left_out.items() if count},
    )


def _options(rest: str, where: str) -> tuple[str, dict[str, str]]:
    path, mark, query = rest.partition("?")
    options: dict[str, str] = {}
    for pair in query.split("&") if mark else ():
        name, equals, value = pair.partition("=")
        if not equals or name not in OPTIONS or name in options:
            raise TrainingError(f"{where}: {pair!r} is none of its options once: {', '.join(OPTIONS)}")
        options[name] = unquote(value)
    return path, options
