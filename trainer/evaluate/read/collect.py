"""Collecting a truth from files: what is found, brought into the order of its images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from schemas.boxes import area, as_boxes, clip, is_valid
from schemas.coco import Rle
from schemas.hashes import text_hash
from trainer.data.decode import UnusableSampleError
from trainer.errors import TrainingError
from trainer.evaluate.masks import Masks, Outlines, Segments
from trainer.evaluate.metrics import Ints
from trainer.evaluate.settings import TruthSettings
from trainer.evaluate.truth import Alternatives, Truth


@dataclass(frozen=True, kw_only=True)
class FileImages:
    """Images in files."""

    names: Sequence[str]
    """As the annotations say them: files of different folders may have equal names."""
    files: Sequence[Path]
    sizes: Sequence[tuple[int, int] | None]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.files)

    def key(self, image: int) -> str:
        """Return an image's name."""
        return self.names[image]

    def read(self, image: int) -> bytes:
        """Return an image's file. Raises UnusableSampleError."""
        try:
            return self.files[image].read_bytes()
        except OSError as error:
            raise UnusableSampleError(f"cannot be read: {error}") from error

    def size(self, image: int) -> tuple[int, int] | None:
        """Return the (width, height) that the annotations state."""
        return self.sizes[image]


@dataclass(frozen=True, kw_only=True)
class FoundRegion:
    """A region of an image."""

    image: int
    box: tuple[float, float, float, float]
    """xyxy in pixels."""
    label: str | None = None
    caption: str | None = None
    is_crowd: bool = False
    is_thing: bool | None = None
    outline: Rle | tuple[tuple[float, ...], ...] | None = None
    segment: tuple[Path, int] | None = None
    """PNG and id."""
    wrong: tuple[str, ...] = ()
    """Wrong captions."""


@dataclass(kw_only=True)
class Collector:
    """What a reader finds."""

    where: str
    """Named in errors."""
    settings: TruthSettings
    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int] | None] = field(default_factory=list)
    captions: list[tuple[int, str]] = field(default_factory=list)
    """(image, caption)."""
    regions: list[FoundRegion] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def unusable(self, problem: str) -> None:
        """Count an annotation that cannot be used; `problem` says why."""
        self.problems.append(problem)

    def image(self, name: str, size: tuple[int, int] | None = None) -> int:
        """Add an image and return its number."""
        self.names.append(name)
        self.sizes.append(size)
        return len(self.names) - 1

    def caption(self, image: int, text: str) -> None:
        """Add a caption of an image, or count that there is nothing in it."""
        if text.strip():
            self.captions.append((image, text.strip()))
        else:
            self.left_out["caption that is no text"] += 1

    def region(self, region: FoundRegion) -> None:
        """Add a region, or count why it is not measured."""
        box = as_boxes([region.box])
        size = self.sizes[region.image]
        box = box if size is None else clip(box, *size)
        limit = self.settings.max_area_px
        px = float(area(box)[0])
        reasons = {
            "crowd": region.is_crowd and not self.settings.crowds,
            "box without area": not bool(is_valid(box)[0]),
            "smaller than --min-area-px": px < self.settings.min_area_px,
            "larger than --max-area-px": limit is not None and px > limit,
        }
        reason = next((reason for reason, holds in reasons.items() if holds), None)
        if reason is None:
            self.regions.append(region)
        else:
            self.left_out[reason] += 1

    def truth(self, folder: Path, *, classes: Sequence[str] | None = None) -> Truth:
        """Return all of it; `folder` holds the images. Raises TrainingError where none of them is there."""
        regions = sorted(self.regions, key=lambda region: region.image)
        captions = sorted(self.captions, key=lambda caption: caption[0])
        tells = bool(regions) and all(region.is_thing is not None for region in regions)
        texts = [region.caption for region in regions]
        if self.problems:
            self.left_out[f"annotation that cannot be used; the first, {self.problems[0]}"] = len(self.problems)
        return Truth(
            images=FileImages(names=self.names, files=self._files(folder), sizes=self.sizes),
            caption_start=_starts([image for image, _ in captions], len(self.names)),
            captions=[caption for _, caption in captions],
            caption_text_ids=np.arange(len(captions)),
            region_start=_starts([region.image for region in regions], len(self.names)),
            boxes=as_boxes([region.box for region in regions]),
            region_captions=texts,
            region_text_ids=text_ids(texts),
            labels=[region.label for region in regions],
            classes=classes,
            is_thing=np.array([region.is_thing for region in regions], dtype=bool) if tells else None,
            is_crowd=np.array([region.is_crowd for region in regions], dtype=bool),
            masks=_masks(regions),
            alternatives=_alternatives(regions),
            left_out=dict(self.left_out),
        )

    def _files(self, folder: Path) -> list[Path]:
        found = [find_file(folder, name) for name in self.names]
        if self.names and not any(map(_is_file, found[:100])):
            raise TrainingError(f"{self.where}: no image is there: {found[0]}; say where they are by ?images=FOLDER")
        return found


def find_file(folder: Path, name: str) -> Path:
    """Return where a named image is: under its whole name, its last two parts, or its last; the first if nowhere."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    places = [folder.joinpath(*parts[-count:]) for count in (len(parts), 2, 1)]
    return next((place for place in places if _is_file(place)), places[0])


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except OSError:  # a name that is longer than any can be
        return False


def text_ids(texts: Sequence[str | None]) -> Ints:
    """Return `[N]`: equal for texts equal after normalisation; 0 for none."""
    return np.array([0 if text is None else int(text_hash(text)[:15], 16) for text in texts], dtype=np.int64)


def _starts(images: Sequence[int], num_images: int) -> Ints:
    counts = np.bincount(np.array(images, dtype=np.int64), minlength=num_images)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _masks(regions: Sequence[FoundRegion]) -> Masks | None:
    if any(region.segment for region in regions):
        return Segments(segments=[region.segment for region in regions])
    if any(region.outline for region in regions):
        return Outlines(shapes=[region.outline or None for region in regions])
    return None


def _alternatives(regions: Sequence[FoundRegion]) -> Alternatives | None:
    wrong = [caption for region in regions for caption in region.wrong]
    if not wrong:
        return None
    start = np.concatenate([[0], np.cumsum([len(region.wrong) for region in regions])]).astype(np.int64)
    return Alternatives(start=start, captions=wrong, kinds=["attribute"] * len(wrong))
