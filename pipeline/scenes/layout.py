"""What a scene shows and where, drawn from the scene's own random numbers; no pixels yet.

Objects come in groups of one colour and shape, so that captions have something to count. They are placed back to
front; one may hide a part of others, but never so much that its size or shape can no longer be told.
"""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.scenes.shapes import OUTLINES
from pipeline.scenes.words import COLOURS, EXTENTS_PX, SIZES, TEXTURES, Attributes, Split, pairs

VERSION = "1"
"""Of the generator. Raise it with any change of what a scene shows: plans, caches and minis follow it."""

SIDE_PX = 256
"""Width and height of a scene."""

Coverage = npt.NDArray[np.uint8]
"""`[H, W]` how much of each pixel an object covers, 0 to 255."""

_MAX_OBJECTS = 7
_TRIES = 24
_GAP_PX = 3
_MIN_VISIBLE_AREA = 0.68
_MIN_VISIBLE_SIDE = 0.85
_OCCLUDED_SCENES = 0.5
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An object with its place. `x`, `y` is the top left corner of `coverage` in the scene, in pixels."""

    attributes: Attributes
    rgb: tuple[int, int, int]
    angle: float
    """Radians, clockwise."""
    x: int
    y: int
    coverage: Coverage

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the scene that `coverage` takes."""
        height, width = self.coverage.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


def generator(seed: int, split: Split, index: int, classes: str | None = None) -> np.random.Generator:
    """Return the random numbers of one scene, independent of those of every other."""
    name = f"scenes {VERSION} {seed} {split} {index}" + ("" if classes is None else f" {classes}")
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big")
    return np.random.Generator(np.random.Philox(key=key))


def place_objects(rng: np.random.Generator, split: Split, classes: str | None = None) -> list[Placed]:
    """Return the objects of a scene from back to front: 1 to 7, no (shape, colour) pair in two groups."""
    placed: list[Placed] = []
    overlapping = bool(rng.random() < _OCCLUDED_SCENES)
    choices = pairs(split, classes)
    picked = rng.permutation(len(choices))[: rng.integers(1, 5)]
    wanted = [choices[i] for i in picked for _ in range(rng.choice(3, p=(0.6, 0.27, 0.13)) + 1)][:_MAX_OBJECTS]
    for shape, colour in [wanted[i] for i in rng.permutation(len(wanted))]:
        candidate = _place(rng, placed, (shape, colour), overlapping=overlapping)
        if candidate is not None:
            placed.append(candidate)
    return placed


def _place(
    rng: np.random.Generator, placed: list[Placed], pair: tuple[str, str], *, overlapping: bool
) -> Placed | None:
    """Return an object at a free place, or None where none was found (the scene then has one object fewer)."""
    shape, colour = pair
    size = SIZES[rng.integers(len(SIZES))]
    attributes = Attributes(size, colour, TEXTURES[rng.integers(len(TEXTURES))], shape)
    extent_px = float(rng.uniform(*EXTENTS_PX[size]))
    angle = float(rng.uniform(-0.45, 0.45))
    coverage = _coverage(rng, shape, extent_px, angle)
    red, green, blue = (int(c) for c in np.clip(np.add(COLOURS[colour], rng.integers(-12, 13, 3)), 0, 255))
    for _ in range(_TRIES):
        y, x = (int(rng.integers(0, SIDE_PX - side + 1)) for side in coverage.shape)
        candidate = Placed(attributes=attributes, rgb=(red, green, blue), angle=angle, x=x, y=y, coverage=coverage)
        if _fits(placed, candidate, overlapping=overlapping):
            return candidate
    return None


def _coverage(rng: np.random.Generator, shape: str, extent_px: float, angle: float) -> Coverage:
    """Return the object alone, `[h, w]` uint8, just large enough to hold it."""
    cos, sin = np.cos(angle), np.sin(angle)
    mirror = 1 if rng.random() < 0.5 else -1
    stretch = np.array([mirror * rng.uniform(0.9, 1.1), 1.0])
    contours = [(contour * stretch) @ np.array([[cos, sin], [-sin, cos]]) for contour in OUTLINES[shape]]
    low, high = contours[0].min(axis=0), contours[0].max(axis=0)
    scale = extent_px / (high - low).max()
    width, height = np.ceil((high - low) * scale).astype(int) + 2
    points = [np.round(((c - low) * scale + 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32) for c in contours]
    coverage = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(coverage, points, 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return coverage


def _fits(placed: list[Placed], candidate: Placed, *, overlapping: bool) -> bool:
    """Return whether `candidate` may lie on top of `placed`: clear of them, or hiding little where that is allowed."""
    touching = [
        other
        for other in placed
        if all(
            max(one.start, two.start) < min(one.stop, two.stop) + _GAP_PX
            for one, two in zip(other.window, candidate.window, strict=True)
        )
    ]
    if not touching:
        return True
    if not overlapping:
        return False
    owners = ownership([*placed, candidate])
    return all(_recognisable(owners == i, other.coverage) for i, other in enumerate(placed) if other in touching)


def _recognisable(visible: npt.NDArray[np.bool_], coverage: Coverage) -> bool:
    """Return whether enough of an object's area and of both its sides is `visible` (`[H, W]`, in the scene)."""
    alone = coverage >= 128
    if visible.sum() < _MIN_VISIBLE_AREA * alone.sum():
        return False
    sides = [(np.flatnonzero(mask.any(axis=axis)), axis) for mask in (visible, alone) for axis in (0, 1)]
    lengths = [int(where[-1] - where[0]) + 1 for where, _ in sides]
    return all(seen >= _MIN_VISIBLE_SIDE * full for seen, full in zip(lengths[:2], lengths[2:], strict=True))


def ownership(placed: list[Placed]) -> npt.NDArray[np.int8]:
    """Return `[256, 256]` int8: the object seen in each pixel (its position in `placed`), or -1 for background.

    A pixel belongs to the front-most object that covers at least half of it.
    """
    owners = np.full((SIDE_PX, SIDE_PX), -1, dtype=np.int8)
    for i, obj in enumerate(placed):
        owners[obj.window][obj.coverage >= 128] = i
    return owners
