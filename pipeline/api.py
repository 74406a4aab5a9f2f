"""`fineclip annotate` for notebooks and scripts."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from pipeline.cli.command import check_models, run_job
from pipeline.cli.counts import print_counts
from pipeline.cli.options import from_settings
from pipeline.cli.progress import working
from pipeline.run.job import Drain, JobResult


def annotate(inputs: str | Sequence[str], output: str, *, show: bool = True, **settings: Any) -> JobResult:
    """Annotate `inputs` into the data set at `output` and return how the job ended.

    `settings` are those of a config file, groups as dictionaries: `profile="weightless"`, `limit=20`,
    `select={"max_regions": 4}`. `show` tells how far it is, and what came out, in a notebook's cell or on the terminal.
    Raises ValueError for a setting that is not one, and what `job.annotate` raises.
    """
    paths = [inputs] if isinstance(inputs, str) else list(inputs)
    options = from_settings(paths, output, settings)
    console = Console(emoji=False, quiet=not show)
    check_models(options)
    with working(console) as show_progress:
        result = run_job(options, show_progress, Drain())
    print_counts(console, result.totals)
    return result
