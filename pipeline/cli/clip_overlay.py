"""The subcommands `score-regions` and `embed`: what a CLIP says of each region, as an overlay."""

import argparse
from collections.abc import Sequence

from rich.console import Console

from pipeline.cli import progress
from pipeline.errors import OVERLAY_EXIT_CODES
from pipeline.models.device import Device
from pipeline.overlay.encoder import find_clip
from pipeline.run.clip_overlay import EMBED, SCORE, ClipSettings, make_clip_overlay
from schemas.plain_flags import PlainParser
from schemas.text import counted

_SCORE = """\
Score each region's caption by a CLIP, as the overlay NAME with three columns:

  clip_score         how well the caption fits the region: a cosine
  margin_in_image    how much better it fits than the best of the image's other captions
  margin_in_sample   how much better it fits than the best of a random sample of DATA's captions

Captions that say the same are not compared. The same command goes on where it was stopped, and may run on several
machines at once."""
_EMBED = """\
Embed each region and its caption by a CLIP, as the overlay NAME with two columns of features in float16,
region_features and text_features. `fineclip view DATA --features NAME` shows which regions are near each other. The
same command goes on where it was stopped, and may run on several machines at once."""


def score_main(arguments: Sequence[str]) -> int:
    """Run `fineclip score-regions` and return its exit code. Raises errors that carry theirs."""
    parser = _parser(SCORE, _SCORE)
    parser.add_argument(
        "--rivals",
        type=int,
        default=64,
        metavar="N",
        help="captions in the sample that margin_in_sample compares with (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of that sample (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.rivals < 0:
        parser.error("--rivals is 0 or more")
    return _run(parser, options, SCORE, num_rivals=options.rivals, seed=options.seed)


def embed_main(arguments: Sequence[str]) -> int:
    """Run `fineclip embed` and return its exit code. Raises errors that carry theirs."""
    parser = _parser(EMBED, _EMBED)
    return _run(parser, parser.parse_args(arguments), EMBED)


def _parser(tool: str, description: str) -> PlainParser:
    parser = PlainParser(f"fineclip {tool}", description, epilog=OVERLAY_EXIT_CODES)
    parser.add_argument("data", metavar="DATA", help="a data set made by fineclip annotate: a folder, or a URL")
    model_help = "mini, a folder in open_clip's layout (RUN/model), ARCHITECTURE:TAG of open_clip, or a hub id"
    parser.add_argument("--model", required=True, metavar="TAG|PATH", help=model_help)
    parser.add_argument(
        "--as", dest="overlay_name", required=True, metavar="NAME", help="name of the overlay to make, or to go on with"
    )
    parser.add_repeated("--overlay", "NAME", "overlay whose captions are taken in place of DATA's own")
    parser.add_argument("--revision", metavar="REVISION", help="the hub's branch, tag or commit (default: its newest)")
    parser.add_argument("--license", metavar="SPDX", help="licence of the weights, where you know it and we do not")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="crops per model call (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="auto", help="where the model runs: auto, cpu, cuda or cuda:N (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="CPU threads of torch (default: %(default)s)"
    )
    return parser


def _run(parser: PlainParser, options: argparse.Namespace, tool: str, *, num_rivals: int = 0, seed: int = 0) -> int:
    for flag, value in (("--batch-size", options.batch_size), ("--threads", options.threads)):
        if value < 1:
            parser.error(f"{flag} is 1 or more")
    settings = ClipSettings(
        tool=tool,
        clip=find_clip(options.model, revision=options.revision, stated_license=options.license),
        overlays=options.overlay,
        batch_size=options.batch_size,
        num_rivals=num_rivals,
        seed=seed,
    )
    device = Device(name=options.device, torch_threads=options.threads)
    with progress.working(Console(emoji=False, stderr=True)) as show:
        totals, num_made = make_clip_overlay(options.data, options.overlay_name, settings, device=device, watch=show)
    console = Console(emoji=False, highlight=False, markup=False, soft_wrap=True)
    shards, regions = counted(totals.num_shards, "shard"), counted(totals.regions.ok, "region")
    console.print(f"{regions} in {shards}, {counted(num_made, 'shard')} made now")
    console.print(f"Overlay {options.overlay_name} of {options.data}: readers take it by --overlay.")
    return 0
