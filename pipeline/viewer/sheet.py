"""A contact sheet: images with their boxes and captions in one HTML file that needs nothing else, and no script.

For a data set card or a pull request. The same data, selection and seed give the same bytes.
"""

import base64
import dataclasses
import html
from collections.abc import Sequence
from importlib.resources import files

from pipeline.html_page import lone_page
from pipeline.viewer.gallery import ShownImage, ShownRegion, find_images, load_images
from pipeline.viewer.pixels import smaller
from pipeline.viewer.selection import Selection
from pipeline.viewer.table import DamagedTableError, RegionTable
from schemas.folder import DatasetError
from schemas.text import counted

_SIDE_PX = 480
_MAX_REGIONS = 12
"""Regions shown of an image; the sheet says how many more there are."""
_NUM_COLOURS = 8


def make_sheet(table: RegionTable, selection: Selection, *, limit: int, seed: int) -> tuple[bytes, list[str]]:
    """Return the sheet of the first `limit` images of the selection: a random sample, unless the selection sorts.

    Also returned is what the data set's files could not be read for: such an image has its place and says why, as one
    does that the job found dead. Raises DatasetError when nothing is selected.
    """
    if selection.sort is None:
        selection = dataclasses.replace(selection, sort="random", seed=seed)
    try:
        images = _select(table, selection, limit)
    except DamagedTableError:
        images = _select(table, selection, limit)  # without the damaged shard
    if not images:
        raise DatasetError(
            f"{table.source.folder.url}: nothing is selected; the page of `fineclip view` shows what is there"
        )
    unread: list[str] = []
    cards = "\n".join(_card(table, image, unread) for image in images)
    title = f"{table.source.title}: {counted(len(images), 'image')}"
    markers = table.source.dataset.markers.values()
    of_images = counted(sum(marker.images.ok for marker in markers), "image")
    facts = f"of {of_images} with {counted(sum(marker.regions.ok for marker in markers), 'region')}"
    if selection.sort == "random":
        facts += f", a random sample with seed {selection.seed}"
    style = files("pipeline.viewer").joinpath("assets", "sheet.css").read_text(encoding="utf-8")
    head = f"<header><h1>{html.escape(title)}</h1><p>{facts}</p></header>"
    return lone_page(title, style, f"{head}\n<main>\n{cards}\n</main>"), unread


def _select(table: RegionTable, selection: Selection, limit: int) -> list[ShownImage]:
    ids, _ = find_images(table, selection, limit=limit)
    return load_images(table, ids, selection)


def _card(table: RegionTable, image: ShownImage, unread: list[str]) -> str:
    regions = [region for region in image.regions if region.hit]
    # Where only the image's own row was selected, its ok regions are what there is to see.
    regions = regions or [region for region in image.regions if region.fields["status"] == "ok"]
    shown, hidden = regions[:_MAX_REGIONS], len(regions[_MAX_REGIONS:])
    lines = [_line(number, region) for number, region in enumerate(shown)]
    lines += [f'<li class="more">and {hidden} more</li>'] if hidden else []
    caption = image.fields.get("image_caption")
    return (
        f"<article><figure>{_picture(table, image, shown, unread)}</figure><h2>{html.escape(image.key)}</h2>"
        + (f'<p class="caption">{html.escape(caption)}</p>' if caption else "")
        + f"<ol>{''.join(lines)}</ol></article>"
    )


def _picture(table: RegionTable, image: ShownImage, regions: Sequence[ShownRegion], unread: list[str]) -> str:
    width, height = image.fields.get("width"), image.fields.get("height")
    try:
        offset, size = table.place(image.shard, image.key)
        data = table.source.dataset.read_image(image.shard, tar_offset=offset, tar_size=size)
        where = f"{table.source.folder.where(image.shard)}.tar: key {image.key!r}"
        uri = "data:image/jpeg;base64," + base64.b64encode(smaller(data, where, max_side=_SIDE_PX)).decode()
    except (DatasetError, OSError) as error:
        message = image.fields.get("message")
        unread += [] if message else [str(error)]
        return f'<p class="error">{html.escape(message or str(error))}</p>'
    boxes = ""
    for number, region in enumerate(regions):
        if region.box is not None:
            x0, y0, x1, y1 = region.box
            place = f'x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}"'
            boxes += f'<rect class="halo" {place}/><rect class="c{number % _NUM_COLOURS}" {place}/>'
    return f'<svg viewBox="0 0 {width} {height}"><image href="{uri}" width="{width}" height="{height}"/>{boxes}</svg>'


def _line(number: int, region: ShownRegion) -> str:
    fields = region.fields
    text = fields["caption"] or f"{fields['status']}: {fields['reason']}"
    label = f"<b>{html.escape(fields['label'])}</b> " if fields["label"] else ""
    return f'<li class="c{number % _NUM_COLOURS}">{label}{html.escape(text)}</li>'
