"""The subcommand `materialize`: a data set with its overlays as a data set of its own."""

from collections.abc import Sequence

from rich.console import Console

from pipeline.cli import progress
from pipeline.cli.counts import print_counts
from pipeline.cli.options import check_output
from pipeline.errors import EXIT_CODES
from pipeline.run.materialize import materialize
from schemas.plain_flags import PlainParser

_DESCRIPTION = """\
Write a data set as its overlays show it into shards of their own: the same keys, the images' very bytes, records and
tables with the overlays' columns. The same command goes on where it was stopped."""


def materialize_main(arguments: Sequence[str]) -> int:
    """Run `fineclip materialize` and return its exit code. Raises errors that carry theirs."""
    parser = PlainParser("fineclip materialize", _DESCRIPTION, epilog=EXIT_CODES)
    parser.add_argument("data", metavar="DATA", help="a data set made by fineclip annotate: a folder, or a URL")
    parser.add_argument("output", metavar="OUTPUT", help="the folder or URL to write")
    parser.add_argument(
        "--overlay", action="append", required=True, metavar="NAME", help="may be given several times; the later wins"
    )
    options = parser.parse_args(arguments)
    try:
        check_output([options.data], options.output)
    except ValueError as error:
        parser.error(str(error))
    with progress.working(Console(emoji=False, stderr=True)) as show:
        totals, num_units_run = materialize(options.data, options.overlay, options.output, watch=show)
    console = Console(emoji=False)
    print_counts(console, totals)
    if num_units_run == 0:
        console.print("Nothing to do: all shards were done.", highlight=False)
    console.print(f"Data set: {options.output}", highlight=False, markup=False, soft_wrap=True)
    return 0
