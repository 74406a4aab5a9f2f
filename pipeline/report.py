"""What a person sees: the progress bar, and the tables of `annotate`, `plan` and `status`."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pipeline.job import JobResult
from pipeline.job import Progress as JobProgress
from pipeline.options import Options
from pipeline.plan import Plan
from pipeline.status import Totals
from schemas.reasons import MEANING_OF, Reason

_LOG_EVERY_S = 10.0


class Bar:
    """A progress bar in a terminal; elsewhere a line now and then, so that a log stays readable."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._logged_at = self._started
        self._images_before: int | None = None
        self._progress = Progress(
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rates]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("annotate", total=None, done="", rates="")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, progress: JobProgress) -> None:
        """Show how far the job is."""
        images = progress.totals.images.inputs + progress.num_images_in_hand
        if self._images_before is None:
            self._images_before = images
        rate = (images - self._images_before) / max(time.monotonic() - self._started, 1e-9)
        units, planned = progress.plan.num_units, progress.plan.num_images
        of_all = f"{images:,} images" if planned is None else f"{images:,} of {planned:,} images"
        done = f"{of_all}, {progress.num_units_done:,} of {units:,} shards"
        rates = f"{rate:,.1f} images/s" + (f" ({progress.note})" if progress.note else "")
        # Images are the finer measure, where their number is known.
        total, completed = (units, progress.num_units_done) if planned is None else (planned, images)
        self._progress.update(self._task, total=total, completed=completed, done=done, rates=rates)
        if self._progress.disable and time.monotonic() - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = time.monotonic()
            self._console.print(f"{done}, {rates}", highlight=False)


def closing(console: Console, result: JobResult, options: Options) -> None:
    """Print what `annotate` came to: counts by status and reason, rates, where the time went, what to do next."""
    _print_counts(console, result.totals)
    if result.num_units_run == 0:
        console.print(f"Nothing to do: all {result.plan.num_units:,} units were done.", highlight=False)
    else:
        _print_times(console, result)
    _warn_of_repeated_keys(console, result)
    _warn_of_versions(console, result)
    # soft_wrap leaves a path in one piece, to be copied
    console.print(f"Data set: {options.output}", highlight=False, markup=False, soft_wrap=True)


def status(console: Console, plan: Plan, totals: Totals, todo: list[int]) -> None:
    """Print what a data set holds now."""
    _print_counts(console, totals)
    state = "complete" if not todo else f"{len(todo):,} of {plan.num_units:,} units are still to do"
    held = f"{totals.num_shards:,} shards, {_size(totals.num_bytes)}; {state}."
    console.print(f"{plan.storage.url}: {held}", highlight=False, markup=False, soft_wrap=True)
    if not totals.balanced:
        console.print("The totals do not balance: this is a bug, please report it.", style="bold red")


def plan(console: Console, planned: Plan, todo: list[int]) -> None:
    """Print the inputs of a plan and the work in it."""
    table = Table("input", "kind", "prefix", "files", "size", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    for entry in planned.inputs:
        table.add_row(Text(entry.spec), entry.kind, entry.prefix or "-", f"{entry.num_files:,}", _size(entry.bytes))
    console.print(table)
    images = "unknown until read" if planned.num_images is None else f"{planned.num_images:,}"
    shards = planned.num_units * len(planned.splits)
    work = f"{len(todo):,} of {planned.num_units:,} units to do"
    console.print(f"{shards:,} shards, images: {images}; {work}.", highlight=False)


def _print_counts(console: Console, totals: Totals) -> None:
    table = Table("", "inputs", "ok", "filtered", "dead", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in (("images", totals.images), ("regions", totals.regions)):
        numbers = (counts.inputs, counts.ok, counts.num_filtered, counts.num_dead)
        table.add_row(name, *(f"{number:,}" for number in numbers))
    console.print(table)
    _print_reasons(console, totals)


def _print_reasons(console: Console, totals: Totals) -> None:
    """Print a line a reason, most frequent first: how many, what for, and what the reason means."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    for _ in ("reason", "meaning"):
        table.add_column()
    for name, counts in (("images", totals.images), ("regions", totals.regions)):
        for status_name, by_reason in (("filtered", counts.filtered), ("dead", counts.dead)):
            for reason, count in sorted(by_reason.items(), key=lambda pair: (-pair[1], pair[0])):
                table.add_row(f"{count:,}", f"{name} {status_name}: {reason}", MEANING_OF[Reason(reason)])
    if table.row_count:
        console.print()
        console.print(table)
    console.print()


def _print_times(console: Console, result: JobResult) -> None:
    images, regions = result.totals.images, result.totals.regions
    per_image = regions.ok / images.ok if images.ok else 0
    summary = f"{result.wall_s:.1f} s in all; {per_image:.1f} regions an image"
    if result.num_units_run == result.plan.num_units:  # the totals hold what earlier runs did too
        summary += f"; {images.inputs / result.wall_s:,.1f} images/s, {regions.ok / result.wall_s:,.1f} regions/s"
    console.print(f"{summary}.", highlight=False)
    worked = sum(result.seconds.values())
    by_share = sorted(result.seconds.items(), key=lambda pair: -pair[1])
    shares = [f"{stage} {seconds / worked:.0%}" for stage, seconds in by_share if seconds >= worked / 100]
    if shares:
        console.print(f"Workers spent {worked:.1f} s: {', '.join(shares)}.", highlight=False)


def _warn_of_repeated_keys(console: Console, result: JobResult) -> None:
    number = result.dataset["num_repeated_keys"]
    if number:
        shown = ", ".join(result.dataset["repeated_keys"][:3])
        warning = f"Warning: {number:,} keys lie in more than one shard, such as {shown}"
        console.print(f"{warning} (dataset.json names more).", style="yellow", highlight=False, markup=False)


def _warn_of_versions(console: Console, result: JobResult) -> None:
    number = len(result.dataset["provenance"])
    if number > 1:
        warning = (
            f"Warning: the shards were made by {number} different versions of libraries or models; bytes may differ"
        )
        console.print(f"{warning} (dataset.json, provenance).", style="yellow", highlight=False, markup=False)


def _size(num_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
