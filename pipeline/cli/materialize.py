"""The subcommand `materialize`: a data set with its overlays as a data set of its own."""

from collections.abc import Sequence

from rich.console import Console

from pipeline.cli import progress
from pipeline.cli.counts import print_counts
from pipeline.cli.options import check_output
from pipeline.errors import OUT_EXIT_CODES
from pipeline.overlay.drop import Dropped
from pipeline.overlay.drop_list import DropList, load_drop_list
from pipeline.run.materialize import materialize
from schemas.paths import printable
from schemas.plain_flags import PlainParser
from schemas.text import counted

_DESCRIPTION = """\
Write a data set of its own from DATA with its overlays: the same keys, the same bytes of the images, and the overlays'
captions in records and tables. Images that --drop names are left out. The same command goes on where it was stopped."""
_DROP_HELP = (
    "list of images to leave out with all their regions: on each line a key, a web address or a sha256 (of the stored "
    "or the source's bytes); or CSV, Parquet or JSON lines with a column key, url, sha256 or image_sha256"
)
_NUM_NAMED = 100
"""Lines without an image that are printed."""


def materialize_main(arguments: Sequence[str]) -> int:
    """Run `fineclip materialize` and return its exit code. Raises errors that carry theirs."""
    parser = PlainParser("fineclip materialize", _DESCRIPTION, epilog=OUT_EXIT_CODES)
    parser.add_argument("data", metavar="DATA", help="a data set made by fineclip annotate: a folder, or a URL")
    parser.add_argument("output", metavar="OUT", help="the folder or URL to write")
    parser.add_argument(
        "--overlay",
        action="append",
        default=[],
        metavar="NAME",
        help="overlay whose columns replace DATA's own; may be given several times, the later one wins",
    )
    parser.add_argument("--drop", metavar="FILE", help=_DROP_HELP)
    options = parser.parse_args(arguments)
    if not options.overlay and options.drop is None:
        parser.error("say how OUT is to differ: --overlay NAME, or --drop FILE")
    try:
        check_output([options.data], options.output)
    except ValueError as error:
        parser.error(str(error))
    drop = None if options.drop is None else load_drop_list(options.drop)
    with progress.working(Console(emoji=False, stderr=True)) as show:
        made = materialize(options.data, options.overlay, options.output, drop=drop, watch=show)
    console = Console(emoji=False)
    print_counts(console, made.totals)
    if drop is not None and made.dropped is not None:
        _tell_of_dropped(console, drop, made.dropped, options.output)
    if made.num_units_run == 0:
        console.print("Nothing to do: all shards were done.", highlight=False)
    console.print(f"Data set: {options.output}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _tell_of_dropped(console: Console, drop: DropList, dropped: Dropped, output: str) -> None:
    """Print how many images were left out, and the lines that mean none."""

    def tell(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    tell(f"Left out: {counted(dropped.num_images, 'image')}, by {counted(len(drop.lines), 'line')} of {drop.path}.")
    if dropped.unmet:
        verb = "means" if len(dropped.unmet) == 1 else "mean"
        tell(f"{counted(len(dropped.unmet), 'line')} of it {verb} no image of the data set:")
        for line in dropped.unmet[:_NUM_NAMED]:
            tell(f"  {printable(line)}")
        if len(dropped.unmet) > _NUM_NAMED:
            tell(f"  ... and {len(dropped.unmet) - _NUM_NAMED:,} more")
    if dropped.not_read is not None:
        tell(
            "Images that are not stored as their source has them (dead, filtered, encoded anew) were looked for by key "
            f"alone, since the source cannot be read: {printable(dropped.not_read)}"
        )
    tell(f"`fineclip doctor {output} --absent {drop.path}` looks for them in every file.")
