"""A figure of panels: an image a row; its k-means by each model, and where each model sees a prompt.

Only Pillow draws, with its own font: the same input gives the same picture wherever it is made.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from trainer.data.decode import Pixels

PANEL_PX = 240
"""Width of a panel."""
_GAP_PX, _LINE_PX, _FONT_PX = 10, 22, 16
COLOURS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (86, 180, 233),
    (120, 120, 120),
    (100, 60, 160),
    (150, 200, 80),
    (120, 60, 20),
    (250, 190, 200),
)
"""Of clusters; the first eight are told apart by the colour-blind too."""
_SCALE = np.array([(30, 10, 80), (50, 90, 160), (30, 150, 140), (130, 205, 80), (253, 231, 37)], dtype=np.float64)
"""From the least similar patch to the most."""
_OPACITY = 0.65


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A picture with a line of text below it."""

    picture: Image.Image
    below: str = ""


def image_panel(pixels: Pixels) -> Panel:
    """Return an image `[h, w, 3]` at the panels' width."""
    return Panel(picture=_fit(pixels))


def cluster_panel(pixels: Pixels, clusters: npt.NDArray[np.int64]) -> Panel:
    """Return an image with the colours of its patches' clusters, `[rows, columns]`, laid over it."""
    colours = np.array(COLOURS, dtype=np.uint8)[clusters]
    return Panel(picture=_over(pixels, Image.fromarray(colours), Image.Resampling.NEAREST))


def similarity_panel(pixels: Pixels, similarities: npt.NDArray[np.float32]) -> Panel:
    """Return an image with its patches' similarities, `[rows, columns]`, laid over it; its own range stands below."""
    low, high = float(similarities.min()), float(similarities.max())
    place = (similarities - low) / max(high - low, 1e-12) * (len(_SCALE) - 1)
    stops = np.arange(len(_SCALE))
    colours = np.stack([np.interp(place, stops, channel) for channel in _SCALE.T], axis=2).round().astype(np.uint8)
    picture = _over(pixels, Image.fromarray(colours), Image.Resampling.BICUBIC)
    return Panel(picture=picture, below=f"{low:.2f} to {high:.2f}")


def draw(titles: Sequence[Sequence[str]], rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """Return panels in rows, each column under its title, which may have several lines."""
    font = ImageFont.load_default(size=_FONT_PX)
    head = _GAP_PX + _LINE_PX * max(len(title) for title in titles)
    heights = [max(p.picture.height for p in row) + (_LINE_PX if any(p.below for p in row) else 0) for row in rows]
    width = _GAP_PX + len(titles) * (PANEL_PX + _GAP_PX)
    canvas = Image.new("RGB", (width, head + sum(heights) + _GAP_PX * len(rows)), "white")
    pen = ImageDraw.Draw(canvas)
    places = [_GAP_PX + column * (PANEL_PX + _GAP_PX) for column in range(len(titles))]
    for x, title in zip(places, titles, strict=True):
        for number, line in enumerate(title):
            y = head - _LINE_PX * (len(title) - number) - 2
            pen.text((x + PANEL_PX / 2, y), shortened(line, pen, font), fill="black", font=font, anchor="ma")
    top = head
    for row, height in zip(rows, heights, strict=True):
        for x, panel in zip(places, row, strict=True):
            canvas.paste(panel.picture, (x, top))
            below = (x + PANEL_PX / 2, top + panel.picture.height + 2)
            pen.text(below, panel.below, fill="#444444", font=font, anchor="ma")
        top += height + _GAP_PX
    return canvas


def colour_of(kind: int) -> tuple[int, int, int]:
    """Return the colour of a class, by its place: `COLOURS` first, then hues far from those just before."""
    if kind < len(COLOURS):
        return COLOURS[kind]
    red, green, blue = colorsys.hsv_to_rgb(kind * 0.618034 % 1, 0.7, (1.0, 0.75, 0.5)[kind % 3])
    return round(255 * red), round(255 * green), round(255 * blue)


def shortened(
    text: str,
    pen: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    width_px: float = PANEL_PX,
) -> str:
    """Return text in one line that fits over a panel, or so many pixels, its middle left out where it is too long."""
    text = " ".join(text.split())
    kept = len(text)
    shown = text
    while pen.textlength(shown, font=font) > width_px and kept > 2:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[-(kept // 2) :]}"
    return shown


def _fit(pixels: Pixels) -> Image.Image:
    height, width = pixels.shape[:2]
    size = (PANEL_PX, max(round(height * PANEL_PX / width), 1))
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)


def _over(pixels: Pixels, colours: Image.Image, how: Image.Resampling) -> Image.Image:
    picture = _fit(pixels)
    grey = picture.convert("L").convert("RGB")
    return Image.blend(grey, colours.resize(picture.size, how), _OPACITY)
