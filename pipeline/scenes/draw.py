"""A scene from its (seed, split, index): pixels, exact boxes and masks, captions.

The truth is read off the same ownership map that the pixels are composed by: a box is the tight box of the pixels in
which its object is seen.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.scenes import shapes
from pipeline.scenes.layout import SIDE_PX, Placed, generator, ownership, place_objects
from pipeline.scenes.words import COLOURS, NUMBERS, PLURALS, Attributes, Split, region_caption
from schemas.boxes import Boxes

_RELATION_GAP_PX = 16
_GRAIN = 6

Canvas = npt.NDArray[np.float32]
"""`[H, W, 3]` RGB, 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture and all that is true of it. Objects are in the order they were drawn, the front-most last."""

    pixels: npt.NDArray[np.uint8]
    """`[256, 256, 3]` RGB."""
    owners: npt.NDArray[np.int8]
    """`[256, 256]`: the object seen in each pixel, -1 for background and clutter."""
    boxes: Boxes
    """`[R, 4]` float32 xyxy: the tight box of each object's visible pixels, right and bottom exclusive."""
    attributes: tuple[Attributes, ...]
    """Of each object, `R`."""
    caption: str
    """Of the picture: what is there, how many, and one relation where one holds."""

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """`[R, 256, 256]`: the visible pixels of each object."""
        return np.asarray(self.owners[None] == np.arange(len(self.attributes), dtype=np.int8)[:, None, None])

    @property
    def captions(self) -> tuple[str, ...]:
        """The region caption of each object."""
        return tuple(region_caption(attributes) for attributes in self.attributes)


def draw_scene(seed: int, split: Split, index: int, classes: str | None = None) -> Scene:
    """Draw one scene; equal arguments give equal bytes. Raises ValueError for an unknown split.

    `classes` names the class list whose pairs alone it shows; None shows all of the split's.
    """
    rng = generator(seed, split, index, classes)
    placed = place_objects(rng, split, classes)
    canvas = _background(rng)
    _scatter_clutter(rng, canvas)
    for obj in placed:
        _paint(rng, canvas, obj)
    grain = np.frombuffer(rng.bytes(SIDE_PX * SIDE_PX), dtype=np.uint8).reshape(SIDE_PX, SIDE_PX, 1)
    canvas += grain.astype(np.float32) * (2 * _GRAIN / 255) - _GRAIN
    owners = ownership(placed)
    boxes = _tight_boxes(owners, len(placed))
    attributes = tuple(obj.attributes for obj in placed)
    return Scene(
        pixels=np.clip(np.rint(canvas), 0, 255).astype(np.uint8),
        owners=owners,
        boxes=boxes,
        attributes=attributes,
        caption=_image_caption(rng, attributes, boxes),
    )


def _tight_boxes(owners: npt.NDArray[np.int8], num_objects: int) -> Boxes:
    boxes = np.zeros((num_objects, 4), dtype=np.float32)
    for i in range(num_objects):
        seen = owners == i
        columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
        boxes[i] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def _muted(rng: np.random.Generator) -> Canvas:
    """Return a background colour `[3]`: greyish, neither bright nor dark, so that every object stands out a little."""
    value, saturation = rng.uniform(95, 200), rng.uniform(0, 0.3)
    tint = rng.random(3)
    return np.asarray(value * (1 - saturation * tint / tint.max()), dtype=np.float32)


def _background(rng: np.random.Generator) -> Canvas:
    """Return `[256, 256, 3]`: two muted colours mixed by a ramp, blotches, stripes, tiles or not at all."""
    one, two = _muted(rng), _muted(rng)
    along, across = _turned_grid(SIDE_PX, SIDE_PX, float(rng.uniform(0, np.pi)))
    period_px = float(rng.uniform(12, 60))
    kind = int(rng.integers(5))
    if kind == 0:
        share = np.full((SIDE_PX, SIDE_PX), rng.random(), dtype=np.float32)
    elif kind == 1:
        share = (along - along.min()) / (along.max() - along.min())
    elif kind == 2:
        cells = int(rng.integers(4, 24))
        coarse = rng.random((cells, cells), dtype=np.float32)
        share = cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)
    elif kind == 3:
        share = (np.mod(along, period_px) < period_px / 2).astype(np.float32)
    else:
        share = np.mod(np.floor(along / period_px) + np.floor(across / period_px), 2)
    return np.asarray(one + (two - one) * share[..., None], dtype=np.float32)


def _turned_grid(height: int, width: int, angle: float) -> tuple[Canvas, Canvas]:
    """Return the pixel coordinates `[height, width]` along and across the direction `angle` (radians)."""
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _scatter_clutter(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw thin lines and specks that are no objects, in any colour, onto `canvas`."""
    colours = list(COLOURS.values())
    for _ in range(int(rng.integers(0, 6))):
        (x0, y0, x1, y1), colour = rng.integers(0, SIDE_PX, 4).tolist(), colours[rng.integers(len(colours))]
        cv2.line(canvas, (x0, y0), (x1, y1), colour, thickness=1)
    for _ in range(int(rng.integers(0, 16))):
        (x, y), colour = rng.integers(0, SIDE_PX, 2).tolist(), colours[rng.integers(len(colours))]
        radius_x, radius_y = rng.integers(1, 4, 2).tolist()
        cv2.ellipse(canvas, (x, y), (radius_x, radius_y), 0, 0, 360, colour, thickness=-1)


def _paint(rng: np.random.Generator, canvas: Canvas, obj: Placed) -> None:
    """Blend an object into `canvas`: its colour, the pattern in a second tone, and light from one side."""
    base = np.array(obj.rgb, dtype=np.float32)
    second = base * 0.5 if base.max() > 64 else base + 0.45 * (255 - base)
    height, width = obj.coverage.shape
    u, v = _turned_grid(height, width, obj.angle + float(rng.uniform(-0.3, 0.3)))
    offset_u, offset_v = rng.uniform(0, 7, 2).astype(np.float32)
    pattern = shapes.pattern(obj.attributes.texture, u + offset_u, v + offset_v)
    light, _ = _turned_grid(height, width, float(rng.uniform(0, 2 * np.pi)))
    light = 0.9 + 0.15 * (light - light.min()) / (light.max() - light.min())
    paint = np.where(pattern[..., None], second, base) * light[..., None]
    alpha = obj.coverage[..., None].astype(np.float32) / 255
    under = canvas[obj.window]
    canvas[obj.window] = under + alpha * (paint - under)


def _image_caption(rng: np.random.Generator, attributes: tuple[Attributes, ...], boxes: Boxes) -> str:
    """Return the picture's caption: groups with counts, then one relation that holds between two of them."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, one in enumerate(attributes):
        groups.setdefault((one.colour, one.shape), []).append(i)
    phrases = [_phrase([attributes[i] for i in members]) for members in groups.values()]
    listed = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    order = rng.permutation(len(groups))
    members = [list(groups.values())[i] for i in order]
    for first, second in pairwise(members):
        relation = _relation(boxes[first], boxes[second])
        if relation is not None:
            named = []
            for group in (first, second):
                one = attributes[group[0]]
                named.append(f"the {one.colour} {one.shape if len(group) == 1 else PLURALS[one.shape]}")
            verb = "is" if len(first) == 1 else "are"
            return f"{listed}; {named[0]} {verb} {relation} {named[1]}"
    return listed


def _phrase(members: list[Attributes]) -> str:
    """Return how the caption lists a group: `two blue circles`, or `a large green star` for a single object."""
    first = members[0]
    if len(members) == 1:
        return f"a {first.size} {first.colour} {first.shape}"
    sizes = Counter(member.size for member in members)
    size = f"{first.size} " if len(sizes) == 1 else ""
    return f"{NUMBERS[len(members)]} {size}{first.colour} {PLURALS[first.shape]}"


def _relation(boxes_a: Boxes, boxes_b: Boxes) -> str | None:
    """Return where all centres of `boxes_a` lie from all of `boxes_b`, or None where neither side is clear."""
    centres_a, centres_b = ((boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (boxes_a, boxes_b))
    names = (("left of", "right of"), ("above", "below"))
    for axis, (before, after) in enumerate(names):
        if centres_a[:, axis].max() + _RELATION_GAP_PX <= centres_b[:, axis].min():
            return before
        if centres_b[:, axis].max() + _RELATION_GAP_PX <= centres_a[:, axis].min():
            return after
    return None
