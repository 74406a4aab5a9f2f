"""`scenes:N?seed=S&split=train|test`: N procedural pictures that bring their true boxes and captions along.

`&classes=open24` draws from a class list: each box then has its class as label (`green square`), and its mask.
"""

from collections.abc import Iterator
from typing import ClassVar
from urllib.parse import parse_qsl

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.read.base import SourceError, SourceFile, SourcePart
from pipeline.read.describe import Description
from pipeline.sample import GivenRegion, SourceItem
from pipeline.scenes.draw import Scene, draw_scene
from pipeline.scenes.layout import SIDE_PX, VERSION
from pipeline.scenes.words import CLASS_LISTS, SPLITS, Split, class_name
from schemas.coco import compress_runs

_URI = "scenes"
_EXAMPLE = "scenes:200?seed=1&split=test"
_JPEG_OPTIONS = (
    cv2.IMWRITE_JPEG_QUALITY,
    95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)


class Scenes:
    """The first `num_scenes` scenes of a seed and split, each drawn when it is read."""

    kind: ClassVar[str] = "scenes"

    def __init__(self, spec: str) -> None:
        """Take what follows `scenes:`, such as `200?seed=1&split=test`. Raises SourceError."""
        self.spec = spec
        number, _, query = spec.partition("?")
        settings = _settings(spec, query)
        self.num_scenes = _whole_number(spec, "the number of scenes", number, least=1)
        self.seed = _whole_number(spec, "seed", settings.get("seed", "0"), least=0)
        self.split = _split(spec, settings.get("split", "train"))
        self.classes = _classes(spec, settings.get("classes"))

    def files(self) -> Iterator[SourceFile]:
        """Yield one virtual file whose etag is the generator's version: another version is another input."""
        listed = "" if self.classes is None else f"-{self.classes}"
        yield SourceFile(uri=_URI, size=0, etag=f"scenes-{VERSION}{listed}")

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield ranges of `shard_size` scenes; `repack` changes nothing."""
        for start in range(0, self.num_scenes, shard_size):
            yield (SourcePart(uri=_URI, start=start, stop=min(start + shard_size, self.num_scenes)),)

    @property
    def root(self) -> str:
        """No files."""
        return ""

    def describe(self) -> Description:
        """Their captions and boxes are the truth about them."""
        return Description(captions=("what was drawn",), boxes=("what was drawn",))

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Draw the part's scenes in order. Regions come back to front, their label is the shape, or their class."""
        stop = self.num_scenes if part.stop is None else part.stop
        for index in range(part.start, stop):
            yield self._item(index)

    def _item(self, index: int) -> SourceItem:
        scene = draw_scene(self.seed, self.split, index, self.classes)
        listed = "" if self.classes is None else f"{self.classes}-"
        key = f"scene-{listed}{self.split}-s{self.seed}-{index:08d}"
        return SourceItem(
            key=key,
            index=index,
            uri=f"{key}.jpg",
            data=encode(scene),
            captions=(scene.caption,),
            given=_given(scene) if self.classes is None else _given_classes(scene),
            given_size=(SIDE_PX, SIDE_PX),
        )


def encode(scene: Scene) -> bytes:
    """Return the scene as JPEG bytes, quality 95 without chroma subsampling.

    JPEG and not PNG: a third of the bytes and a seventh of the time, and it is what most data sets hold. The truth is
    that of the pixels before compression.
    """
    _, buffer = cv2.imencode(".jpg", cv2.cvtColor(scene.pixels, cv2.COLOR_RGB2BGR), _JPEG_OPTIONS)
    return buffer.tobytes()


def _given(scene: Scene) -> tuple[GivenRegion, ...]:
    return tuple(
        GivenRegion(box=(x0, y0, x1, y1), label=truth.shape, caption=caption)
        for (x0, y0, x1, y1), truth, caption in zip(scene.boxes.tolist(), scene.attributes, scene.captions, strict=True)
    )


def _given_classes(scene: Scene) -> tuple[GivenRegion, ...]:
    """Return the regions with their classes as labels, and their masks."""
    return tuple(
        msgspec.structs.replace(region, label=class_name(truth.shape, truth.colour), mask_rle=_runs(mask))
        for region, truth, mask in zip(_given(scene), scene.attributes, scene.masks, strict=True)
    )


def _runs(mask: npt.NDArray[np.bool_]) -> str:
    """Return a mask as the `counts` of COCO's compressed run lengths, which go down the columns."""
    changes = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False))
    ends = np.concatenate([[0], changes, [mask.size]])
    return compress_runs(np.diff(ends).tolist())


def _settings(spec: str, query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    settings = dict(pairs)
    unknown = sorted(settings.keys() - {"seed", "split", "classes"})
    if unknown or len(settings) != len(pairs):
        problem = f"unknown setting {unknown[0]!r}" if unknown else "a setting is given twice"
        raise SourceError(f"scenes:{spec}: {problem}; write it like {_EXAMPLE}")
    return settings


def _whole_number(spec: str, name: str, text: str, *, least: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise SourceError(f"scenes:{spec}: {name} must be a whole number from {least}, not {text!r}; like {_EXAMPLE}")
    return int(text)


def _split(spec: str, text: str) -> Split:
    for split in SPLITS:
        if text == split:
            return split
    raise SourceError(f"scenes:{spec}: split must be one of {', '.join(SPLITS)}, not {text!r}")


def _classes(spec: str, text: str | None) -> str | None:
    if text is not None and text not in CLASS_LISTS:
        raise SourceError(f"scenes:{spec}: classes must be one of {', '.join(CLASS_LISTS)}, not {text!r}")
    return text
