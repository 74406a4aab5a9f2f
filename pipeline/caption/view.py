"""What a captioner sees of a region: one place for all captioners, and each region is a picture of its own.

crop      the tight box
context   the box with room around it
marked    the whole image with the box drawn around the region
alpha     the tight box, with what is outside of the mask dimmed
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.backends import SettingError
from pipeline.caption.crop import Box, cut, window
from pipeline.sample import Candidate, Crop, Drop, Pixels, Sample, drop_of
from schemas.coco import decompress_runs
from schemas.reasons import Reason, Stage

_CONTEXT_SCALE = 1.5
_MARKED_SIDE = 1536
"""Pixels: larger images are scaled down before a box is drawn. Many wait for a batch, each a whole image."""
_LINES_A_SIDE = 256
"""Widths of one of the frame's thin lines that the image's longer side has."""
_RED, _WHITE = (255, 0, 0), (255, 255, 255)
_KEPT, _GREY = 0.25, 128
"""How much of a dimmed pixel is left, and what the rest is mixed with: it shows on dark pictures and bright ones."""


class MaskError(ValueError):
    """A region has no mask of its image's size."""


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """What a captioner sees of a region."""

    view: Literal["crop", "context", "marked", "alpha"] = "crop"
    """What is shown of a region: crop (the tight box), context (with room around it), marked (the whole image with a
    red box around the region: say so in the prompt), or alpha (the crop, dimmed outside of the region's mask)."""
    context_scale: float | None = None
    """Sides of what --caption.view context shows, as a multiple of the box's; 1.5 when not given."""

    def __post_init__(self) -> None:
        if self.context_scale is None:
            return
        if self.view != "context":
            raise ValueError(f"--caption.context-scale is of --caption.view context, not of {self.view}")
        if not 1 <= self.context_scale < math.inf:
            raise ValueError(f"--caption.context-scale is {self.context_scale}, but must be a number of at least 1")

    @property
    def scale(self) -> float:
        """Sides of the window as a multiple of the box's."""
        return (self.context_scale or _CONTEXT_SCALE) if self.view == "context" else 1.0

    def as_json(self) -> dict[str, Any]:
        """Return what decides the pixels."""
        return {"name": self.view} | ({"scale": self.scale} if self.view == "context" else {})


def check_asked(settings: ViewSettings, caption: Any) -> None:
    """Raise SettingError where a captioner of the config `caption` would describe whole images instead of regions."""
    if settings.view != "marked":
        return
    prompts = [field.default for field in dataclasses.fields(caption) if field.name == "prompt"]
    if not prompts:
        raise SettingError(
            "--caption.view marked shows the whole image with a box drawn: it is for captioners that can be asked "
            "about the box, by --caption.prompt; this one would describe the whole image for each region"
        )
    if caption.prompt == prompts[0]:
        raise SettingError(
            "--caption.view marked shows the whole image: say in --caption.prompt which part of it you mean, such as "
            "'Describe what is in the red box in one sentence.'"
        )


def check_masks(settings: ViewSettings, *, given: bool) -> None:
    """Raise SettingError where a view wants masks and there are none: `given` says whether regions come with them."""
    if settings.view == "alpha" and not given:
        raise SettingError(
            "--caption.view alpha dims what is outside of a region's mask, and these regions have none: annotate with "
            "--propose.masks true (of sam or fastsam), or with --proposer manual where the source has masks"
        )


def crops_of(sample: Sample, settings: ViewSettings) -> Iterator[Crop | tuple[str, Drop]]:
    """Yield what is seen of each region of a sample that has no caption yet, in order; its id and a drop where it
    cannot be seen so.
    """
    assert sample.image is not None
    whole, scale = sample.image.pixels, 1.0
    if settings.view == "marked":
        whole, scale = _fitting(whole)
    for region in (region for region in sample.regions if region.region_id not in sample.captions):
        assert region.box is not None
        try:
            pixels = _seen(whole, region, scale, settings)
        except MaskError as error:
            yield region.region_id, drop_of(error, Reason.NO_MASK, Stage.CROP)
            continue
        yield Crop(
            region_id=region.region_id,
            pixels=pixels,
            box=region.box,
            image_width=sample.image.width,
            image_height=sample.image.height,
            label=region.label,
            given_caption=region.given.caption if region.given else None,
        )


def _seen(whole: Pixels, region: Candidate, scale: float, settings: ViewSettings) -> Pixels:
    assert region.box is not None
    if settings.view == "marked":
        x0, y0, x1, y1 = (edge * scale for edge in region.box)
        return marked(whole, (x0, y0, x1, y1))
    if settings.view == "alpha":
        return dimmed(whole, region.box, region.mask)
    return cut(whole, region.box, scale=settings.scale)


def _fitting(pixels: Pixels) -> tuple[Pixels, float]:
    """Return an image scaled down to `_MARKED_SIDE`, and its size as a share of what it was."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _MARKED_SIDE / max(height, width))
    if scale == 1.0:
        return pixels, scale
    import cv2  # which commands that only read settings do without

    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8), scale


def marked(pixels: Pixels, box: Box) -> Pixels:
    """Return a copy of an image (`[H, W, 3]` uint8 RGB) with a red frame, edged in white, around `box` (xyxy).

    The frame lies outside of the box, so that it hides nothing of the smallest region. Where there is no room for it,
    the image is made larger by its own edge.
    """
    height, width = pixels.shape[:2]
    line = max(1, round(max(height, width) / _LINES_A_SIDE))
    frame = 4 * line
    x0, y0, x1, y1 = window(box, width=width, height=height)
    left, top = max(0, frame - x0), max(0, frame - y0)
    right, bottom = max(0, x1 + frame - width), max(0, y1 + frame - height)
    room: Pixels = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="edge")
    for colour, beyond in ((_WHITE, frame), (_RED, 3 * line), (_WHITE, line)):
        room[top + y0 - beyond : top + y1 + beyond, left + x0 - beyond : left + x1 + beyond] = colour
    room[top + y0 : top + y1, left + x0 : left + x1] = pixels[y0:y1, x0:x1]
    return room


def dimmed(pixels: Pixels, box: Box, mask: str | None) -> Pixels:
    """Return the tight crop of `box` with the pixels outside of `mask`, its holes too, dimmed to near grey.

    `mask` is of the whole image, in COCO's compressed run lengths. Raises MaskError where it is none of that size, or
    has no pixel in the box.
    """
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = window(box, width=width, height=height)
    inside = _mask(mask, width=width, height=height)[y0:y1, x0:x1, None]
    if not inside.any():
        raise MaskError("no pixel of the region's mask lies in its box")
    crop = pixels[y0:y1, x0:x1]
    grey = np.rint(crop * _KEPT + _GREY * (1 - _KEPT)).astype(np.uint8)
    return np.where(inside, crop, grey)


def _mask(counts: str | None, *, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Return `[height, width]` of run lengths that go down the columns, outside first. Raises MaskError."""
    if counts is None:
        raise MaskError("the region has no mask")
    runs = decompress_runs(counts)
    if not runs or min(runs) < 0 or sum(runs) != width * height:
        raise MaskError(f"the region's mask is not one of an image of {width} x {height} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
