"""An image with what was found in it: boxes with their names, or a mask of classes with a legend.

Only Pillow draws, with its own font: the same input gives the same picture wherever it is made.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from schemas.boxes import Boxes
from trainer.data.decode import Pixels
from trainer.evaluate.figure import colour_of, shortened

_FONT_SHARE, _MIN_FONT_PX, _MAX_FONT_PX = 0.03, 11, 32
_OPACITY = 0.55
_MIN_LEGEND_SHARE = 0.001
"""Of the picture: classes of fewer pixels are painted, and not named."""


def draw_boxes(pixels: Pixels, boxes: Boxes, classes: Sequence[int], labels: Sequence[str]) -> Image.Image:
    """Return an image `[h, w, 3]` with boxes (`[n, 4]` xyxy, pixels of the image) and their labels drawn on it.

    `classes` `[n]` say which boxes share a colour. The first box is drawn last, over the others.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    pen, font = ImageDraw.Draw(picture), _font(picture)
    width_px = max(round(_font_px(picture) / 6), 1)
    for box, kind, label in reversed(list(zip(boxes.tolist(), classes, labels, strict=True))):
        colour = colour_of(kind)
        x0, y0, x1, y1 = box
        pen.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=colour, width=width_px)
        _tag(pen, picture, (x0, y0), label, colour, font)
    return picture


def draw_masks(pixels: Pixels, classes: npt.NDArray[np.integer], names: Sequence[str]) -> Image.Image:
    """Return an image `[h, w, 3]` with the colours of classes over it and, below it, which colour is which name.

    `classes` `[h, w]` are places in `names`; a pixel of -1 is none, and stays as it is.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    palette = np.array([colour_of(kind) for kind in range(len(names))], dtype=np.uint8)
    painted = palette[np.maximum(classes, 0)]
    mixed = Image.blend(picture, Image.fromarray(painted), _OPACITY)
    mixed.paste(picture, mask=Image.fromarray(((classes < 0) * 255).astype(np.uint8)))
    kinds, counts = np.unique(classes[classes >= 0], return_counts=True)
    seen = [int(kind) for kind, count in zip(kinds, counts, strict=True) if count >= _MIN_LEGEND_SHARE * classes.size]
    return _with_legend(mixed, [(names[kind], colour_of(kind)) for kind in seen])


def _with_legend(picture: Image.Image, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> Image.Image:
    """Return a picture with names on their colours below it, as many a line as fit."""
    font, pen = _font(picture), ImageDraw.Draw(picture)
    line_px = round(_font_px(picture) * 1.6)
    places, x, line = [], 0, 0
    entries = [(shortened(name, pen, font, picture.width - 8), colour) for name, colour in entries]
    for name, _ in entries:
        wide = round(pen.textlength(name, font=font)) + 8
        if x and x + wide > picture.width:
            x, line = 0, line + 1
        places.append((x, line))
        x += wide
    height = picture.height + (line + 1) * line_px if entries else picture.height
    canvas = Image.new("RGB", (picture.width, height), "white")
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for (name, colour), (x, line) in zip(entries, places, strict=True):
        _tag(pen, canvas, (x, picture.height + line * line_px), name, colour, font, above=False)
    return canvas


def _tag(
    pen: ImageDraw.ImageDraw,
    picture: Image.Image,
    corner: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    *,
    above: bool = True,
) -> None:
    """Write a text on its colour, above a corner where there is room, inside the picture in any case."""
    text = shortened(text, pen, font, picture.width - 6)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    wide, high = right - left + 6, bottom - top + 6
    x = min(max(corner[0], 0), max(picture.width - wide, 0))
    y = corner[1] - high if above and corner[1] >= high else corner[1]
    pen.rectangle((x, y, x + wide, y + high), fill=colour)
    light = (299 * colour[0] + 587 * colour[1] + 114 * colour[2]) / 1000
    pen.text((x + 3 - left, y + 3 - top), text, fill="black" if light > 128 else "white", font=font)


def _font_px(picture: Image.Image) -> int:
    return min(max(round(min(picture.size) * _FONT_SHARE), _MIN_FONT_PX), _MAX_FONT_PX)


def _font(picture: Image.Image) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=_font_px(picture))
