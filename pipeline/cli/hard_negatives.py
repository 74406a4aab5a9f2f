"""The subcommand `hard-negatives`: wrong captions for the boxes of a data set, as an overlay to train with."""

from collections.abc import Sequence

from rich.console import Console

from pipeline.errors import OVERLAY_EXIT_CODES
from pipeline.overlay.hard_negatives import make_hard_negatives
from schemas.plain_flags import PlainParser
from schemas.text import counted

_DESCRIPTION = """\
Make wrong captions of each region: its own with one colour, size, texture, material or noun changed to another that
the data's captions hold. They are an overlay; train with --overlay NAME --hard-negative-weight 1."""


def hard_negatives_main(arguments: Sequence[str]) -> int:
    """Run `fineclip hard-negatives` and return its exit code. Raises errors that carry theirs."""
    parser = PlainParser("fineclip hard-negatives", _DESCRIPTION, epilog=OVERLAY_EXIT_CODES)
    parser.add_argument("data", metavar="DATA", help="a data set made by fineclip annotate: a folder, or a URL")
    parser.add_argument(
        "--as", dest="name", required=True, metavar="NAME", help="name of the overlay to make, or to go on with"
    )
    parser.add_repeated("--overlay", "NAME", "overlay whose captions are changed, in place of DATA's own")
    parser.add_argument(
        "--per-region", type=int, default=10, metavar="N", help="most wrong captions per region (default: 10)"
    )
    options = parser.parse_args(arguments)
    if options.per_region < 1:
        parser.error(f"--per-region {options.per_region}: give 1 or more")
    told = Console(emoji=False, stderr=True)

    def watch(done: int, total: int) -> None:
        if done == total or done % 100 == 0:
            told.print(f"{done} of {counted(total, 'shard')}", highlight=False)

    made = make_hard_negatives(
        options.data, options.name, per_region=options.per_region, overlays=options.overlay, watch=watch
    )
    words = ", ".join(f"{count} of {kind}" for kind, count in made.words.items()) or "none"
    console = Console(emoji=False)
    for line in (
        f"Words that stand for each other: {words}.",
        f"{made.num_negatives:,} hard negatives of {made.num_regions:,} regions; {made.num_without:,} have none.",
        f"Overlay {options.name} of {options.data}: readers take it by --overlay {options.name}.",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0
