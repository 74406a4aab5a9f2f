"""The subcommand `status`: what a data set holds now. Needs neither Beam nor torch."""

import argparse
from collections.abc import Sequence

from rich.console import Console

from pipeline.cli.counts import print_counts, size_of
from pipeline.errors import EXIT_CODES
from pipeline.plan.plan import load_plan
from pipeline.read.base import SourceError
from pipeline.run.status import Markers, units_to_do
from pipeline.store.storage import open_storage, storage_errors

_DESCRIPTION = "Counts images and regions by status and reason, from the shards' markers."


def status_main(arguments: Sequence[str]) -> int:
    """Run `fineclip status OUTPUT` and return its exit code. Raises errors that carry theirs."""
    parser = argparse.ArgumentParser(
        prog="fineclip status",
        description=_DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("output", metavar="OUTPUT", help="the folder or URL that annotate writes")
    options = parser.parse_args(arguments)
    storage = open_storage(options.output)
    with storage_errors(storage.url):
        plan = load_plan(storage)
        if plan is None:
            raise SourceError(
                f"{options.output}: no data set is here (there is no _plan/plan.json); see fineclip annotate --help"
            )
        markers = Markers(storage).refresh()
        todo = units_to_do(plan, markers)
    console, totals = Console(emoji=False), markers.totals
    print_counts(console, totals)
    state = "complete" if not todo else f"{len(todo):,} of {plan.num_units:,} units are still to do"
    held = f"{totals.num_shards:,} shards, {size_of(totals.num_bytes)}; {state}."
    console.print(f"{plan.storage.url}: {held}", highlight=False, markup=False, soft_wrap=True)
    if not totals.balanced:
        console.print("The totals do not balance: this is a bug, please report it.", style="bold red")
        return 6
    return 0
