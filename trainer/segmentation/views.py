"""Views of an image, and one mask from the masks of all.

An image is squashed to a square. Windows of it, and the whole of it, each at the side of a training crop, are views;
where windows overlap their probabilities are averaged, and the result again with those of the whole, half and half.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainer.errors import TrainingError
from trainer.segmentation.settings import ViewSettings

SHORT_SIDE_MOST_PX = 2560
"""An image's longer side is no longer than this before it is squashed."""


def resized(image: Tensor, size: tuple[int, int], *, antialias: bool = False) -> Tensor:
    """Return `[N, C, H, W]` of `[N, C, h, w]`, bilinear."""
    return interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=antialias)


def corners(settings: ViewSettings, window: int) -> list[tuple[int, int]]:
    """Return (y, x) of the windows, row by row. Raises TrainingError where they do not cover the square exactly."""
    if not settings.canvas_px:
        return []
    rest = settings.canvas_px - window
    if rest < 0 or rest % settings.stride_px or (rest and settings.stride_px > window):
        raise TrainingError(
            f"--canvas-px {settings.canvas_px} --stride-px {settings.stride_px}: windows of {window} pixels do not "
            f"cover it; {window} plus a multiple of the stride, which is {window} at most, or 0 for the whole alone"
        )
    starts = range(0, rest + 1, settings.stride_px)
    return [(y, x) for y in starts for x in starts]


def cut(image: Tensor, settings: ViewSettings, window: int) -> Tensor:
    """Return views `[V, 3, window, window]` of an image `[3, h, w]` float: the windows, then the whole."""
    whole = resized(image[None], (window, window), antialias=True)
    if not settings.canvas_px:
        return whole
    height, width = image.shape[1:]
    scale = min(settings.canvas_px / min(height, width), SHORT_SIDE_MOST_PX / max(height, width))
    near = resized(image[None], (max(round(height * scale), 1), max(round(width * scale), 1)), antialias=True)
    square = resized(near, (settings.canvas_px, settings.canvas_px))
    windows = [square[:, :, y : y + window, x : x + window] for y, x in corners(settings, window)]
    return torch.cat([*windows, resized(near, (window, window))])


def merge(probabilities: Tensor, settings: ViewSettings) -> Tensor:
    """Return `[T, S, S]` of the views' probabilities `[V, T, window, window]`, in the order of `cut`."""
    if not settings.canvas_px:
        return probabilities[0]
    window, side = probabilities.shape[2], settings.canvas_px
    total = probabilities.new_zeros(probabilities.shape[1], side, side)
    counts = probabilities.new_zeros(side, side)
    for (y, x), view in zip(corners(settings, window), probabilities[:-1], strict=True):
        total[:, y : y + window, x : x + window] += view
        counts[y : y + window, x : x + window] += 1
    whole = resized(probabilities[-1:], (side, side))[0]
    return (total / counts + whole) / 2
