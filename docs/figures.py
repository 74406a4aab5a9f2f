"""Makes the README's picture from an annotated data set: `python docs/figures.py DATA docs/annotated.jpg KEY ...`."""

import io
import sys
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from schemas.dataset import Dataset, Sample

_COLOURS = ("#e6194b", "#0a7d32", "#1f5fd6", "#c25a00")
_PANEL_PX = 420
_LINE_PX = 17
_MARGIN_PX = 12


def panel(sample: Sample, num_regions: int = 3) -> Image.Image:
    """Return a sample's image with its best regions drawn, and their captions below."""
    image = Image.open(io.BytesIO(sample.image)).convert("RGB")
    scale = _PANEL_PX / image.width
    image = image.resize((_PANEL_PX, round(image.height * scale)), Image.Resampling.LANCZOS)
    font = ImageFont.load_default(size=13)
    draw = ImageDraw.Draw(image)
    lines: list[tuple[str, str]] = []
    for colour, region in zip(_COLOURS[:num_regions], sample.record.regions, strict=False):
        box = [edge * scale for edge in region.box]
        draw.rectangle(box, outline="white", width=5)
        draw.rectangle(box, outline=colour, width=3)
        lines += [(colour, line) for line in _wrapped(draw, region.caption, font)]
    canvas = Image.new("RGB", (_PANEL_PX, image.height + _LINE_PX * len(lines) + _MARGIN_PX), "white")
    canvas.paste(image)
    text = ImageDraw.Draw(canvas)
    for number, (colour, line) in enumerate(lines):
        text.text((2, image.height + 6 + number * _LINE_PX), line, fill=colour, font=font)
    return canvas


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) > _PANEL_PX - 4:
            lines.append(f"   {word}")
        else:
            lines[-1] = longer if lines[-1] else word
    return lines


def main(arguments: Sequence[str]) -> None:
    """Draw the samples named by key side by side into one file."""
    data, out, *keys = arguments
    dataset = Dataset.open(data)
    panels = [panel(dataset.read_sample(key)) for key in keys]
    width = sum(one.width for one in panels) + _MARGIN_PX * (len(panels) - 1)
    sheet = Image.new("RGB", (width, max(one.height for one in panels)), "white")
    for number, one in enumerate(panels):
        sheet.paste(one, (number * (_PANEL_PX + _MARGIN_PX), 0))
    sheet.save(out, quality=88)


if __name__ == "__main__":
    main(sys.argv[1:])
