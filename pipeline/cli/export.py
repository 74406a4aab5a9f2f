"""The subcommand `export`: a data set in the formats that other tools read."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from pipeline.errors import OUT_EXIT_CODES
from pipeline.export.class_embeddings import find_clip
from pipeline.export.crops import Crops
from pipeline.export.export import export
from pipeline.export.formats import FORMATS, Format
from pipeline.export.grounding import BOX_STYLES, Grounding
from pipeline.export.nouns import read_nouns
from pipeline.export.official import Official
from pipeline.export.part import Counts
from schemas.plain_flags import PlainParser
from schemas.store_errors import check_here, storage_errors
from schemas.text import counted

_DESCRIPTION = """\
Write a data set in a format that other tools read, as its overlays show it, less what filter lists drop. The same
command goes on where it was stopped.

  official   the files of FineCLIP's own training code
  coco       images, instances and captions as COCO's JSON (FiftyOne, Label Studio, supervision)
  yolo       data.yaml, images and labels (Ultralytics)
  crops      each region an image-text sample in tars, for any CLIP trainer
  hf         Parquet for Hugging Face's datasets, with a column of objects
  grounding  JSON lines with boxes in the text, for vision-language models"""


def export_main(arguments: Sequence[str]) -> int:
    """Run `fineclip export` and return its exit code. Raises errors that carry theirs."""
    parser = PlainParser("fineclip export", _DESCRIPTION, epilog=OUT_EXIT_CODES)
    parser.add_argument("data", metavar="DATA", help="a data set made by fineclip annotate: a folder, or a URL")
    parser.add_argument("out", metavar="OUT", help="the folder to write")
    parser.add_argument(
        "--to", required=True, choices=list(FORMATS), metavar="FORMAT", help=f"the format: {', '.join(FORMATS)}"
    )
    parser.add_repeated("--overlay", "NAME", "overlay whose columns replace DATA's own")
    parser.add_repeated("--filter", "FILE", "filter list of what to leave out")
    parser.add_argument(
        "--crop-scale", type=_at_least_one, metavar="S", help="for crops: enlarge boxes by this factor (default: 1)"
    )
    styles = f"for grounding: how boxes stand in the text: {', '.join(BOX_STYLES)} (default: {BOX_STYLES[0]})"
    parser.add_argument("--box-style", choices=BOX_STYLES, metavar="STYLE", help=styles)
    embeddings = (
        "for official: also embed the categories' names for RegionCLIP, by this CLIP (a hub id, a folder, or mini)"
    )
    parser.add_argument("--embeddings", metavar="MODEL", help=embeddings)
    nouns = (
        "for official: file of nouns, one per line; a region without a label gets the noun that its caption names first"
    )
    parser.add_argument("--nouns", metavar="FILE", help=nouns)
    options = parser.parse_args(arguments)
    check_here(options.out, "OUT")
    to = _format(parser, options)
    console = Console(stderr=True, emoji=False)
    with (
        storage_errors(options.out),
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("export", total=None)
        totals, num_written = export(
            options.data,
            Path(options.out),
            to,
            overlays=options.overlay,
            filters=options.filter,
            watch=lambda done, shards: bar.update(task, completed=done, total=shards),
        )
    _show(totals, options.out, nothing_to_do=num_written == 0)
    return 0


def _format(parser: PlainParser, options: argparse.Namespace) -> Format:
    """Return the format with its options; ends the command where one is given that it does not have."""
    for flag, given, owner in (
        ("--crop-scale", options.crop_scale, "crops"),
        ("--box-style", options.box_style, "grounding"),
        ("--embeddings", options.embeddings, "official"),
        ("--nouns", options.nouns, "official"),
    ):
        if given is not None and options.to != owner:
            parser.error(f"{flag} is of --to {owner}; leave it out for {options.to}")
    if options.crop_scale is not None:
        return Crops(scale=options.crop_scale)
    if options.box_style is not None:
        return Grounding(box_style=options.box_style)
    if options.embeddings is not None:
        find_clip(options.embeddings)  # before hours of writing
    if options.to == "official":
        nouns = () if options.nouns is None else read_nouns(options.nouns)
        return Official(embeddings=options.embeddings, nouns=nouns)
    return FORMATS[options.to]()


def _show(totals: Counts, out: str, *, nothing_to_do: bool) -> None:
    console = Console(emoji=False, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{counted(totals.images, 'image')}, {counted(totals.regions, 'region')}")
    for what, count in sorted(totals.left_out.items()):
        console.print(f"  left out: {count:,} {what}")
    if nothing_to_do:
        console.print("Nothing to do: all shards were done.")
    console.print(f"Export: {out}")


def _at_least_one(text: str) -> float:
    scale = float(text)
    if not 1 <= scale < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 1")
    return scale


_at_least_one.__name__ = "float"
