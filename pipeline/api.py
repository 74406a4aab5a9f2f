"""`fineclip annotate` for notebooks and scripts."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from pipeline.cli.counts import print_counts
from pipeline.cli.options import from_settings
from pipeline.cli.progress import Bar
from pipeline.run import job
from pipeline.run.job import JobResult


def annotate(inputs: str | Sequence[str], output: str, *, show: bool = True, **settings: Any) -> JobResult:
    """Annotate `inputs` into the data set at `output` and return how the job ended.

    `settings` are those of a config file, groups as dictionaries: `profile="weightless"`, `limit=20`,
    `select={"max_regions": 4}`. `show` tells how far it is, and what came out, in a notebook's cell or on the terminal.
    Raises ValueError for a setting that is not one, and what `job.annotate` raises.
    """
    paths = [inputs] if isinstance(inputs, str) else list(inputs)
    options = from_settings(paths, output, settings)
    console = Console(emoji=False, quiet=not show)
    with Bar(console) as bar:
        result = job.annotate(
            options.inputs,
            options.output,
            configuration=options.configuration,
            plan=options.plan,
            run=options.run,
            append=options.append,
            watch=bar.show,
        )
    print_counts(console, result.totals)
    return result
