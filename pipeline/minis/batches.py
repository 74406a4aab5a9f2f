"""Scenes and their crops as training batches: which scenes a step sees follows from the step alone."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.sample import Pixels
from pipeline.scenes.draw import Scene, draw_scene
from pipeline.scenes.words import Attributes, region_caption

_Value = TypeVar("_Value", bound=np.generic)


def scenes_of_step(seed: int, step: int, count: int) -> list[Scene]:
    """Return the `count` train scenes of a step; no scene comes twice in a run."""
    return [draw_scene(seed, "train", step * count + i) for i in range(count)]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A crop of a scene, and what is known of its object."""

    pixels: Pixels
    mask: npt.NDArray[np.bool_]
    """`[h, w]`: the object's visible pixels."""
    attributes: Attributes

    @property
    def caption(self) -> str:
        """The object's region caption."""
        return region_caption(self.attributes)


def crops_of_step(seed: int, step: int, count: int) -> list[Example]:
    """Return `count` crops of train scenes, cut with up to 12 % of context on each side.

    Steps draw from ranges of `count` scenes, so that no crop comes twice in a run.
    """
    rng = np.random.default_rng((seed, step))
    examples: list[Example] = []
    for index in range(step * count, (step + 1) * count):
        scene = draw_scene(seed, "train", index)
        for box, mask, attributes in zip(scene.boxes, scene.masks, scene.attributes, strict=True):
            wider = loosened(box, rng)
            examples.append(Example(pixels=cut(scene.pixels, wider), mask=cut(mask, wider), attributes=attributes))
        if len(examples) >= count:
            break
    return examples[:count]


def loosened(box: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return `[4]` xyxy with each side moved by -4 % to +12 % of the box, as detectors and more context move them."""
    width, height = box[2] - box[0], box[3] - box[1]
    left, top, right, bottom = rng.uniform(-0.04, 0.12, 4)
    return np.asarray(box + np.array([-left * width, -top * height, right * width, bottom * height]), dtype=np.float32)


def cut(picture: npt.NDArray[_Value], box: npt.NDArray[np.float32]) -> npt.NDArray[_Value]:
    """Return the part of `picture` (`[H, W, ...]`) that `box` (`[4]` xyxy, its pixels) touches, at least one pixel."""
    height, width = picture.shape[:2]
    x0, y0 = np.clip(np.floor(box[:2]).astype(int), 0, (width - 1, height - 1))
    x1, y1 = np.clip(np.ceil(box[2:]).astype(int), (x0 + 1, y0 + 1), (width, height))
    return picture[y0:y1, x0:x1]
