"""What a person sees while a job or a probe is at work."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.plan.plan import Plan
from pipeline.read.summary import lines
from pipeline.run.watch import Progress as JobProgress
from schemas.text import counted

_LOG_EVERY_S = 10.0


@contextmanager
def working(
    console: Console, *, names_workers: bool = False, repairs: bool = False
) -> Iterator[Callable[[JobProgress], None]]:
    """Show how far a job is, as what is yielded was told last.

    A progress bar in a terminal; elsewhere a line now and then, so that a log stays readable. With `names_workers`, say
    how many are at work even where it is one driver's workers alone. A job that `repairs` is counted by its shards.
    """
    columns = (
        BarColumn(),
        TextColumn("{task.fields[done]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rates]}"),
    )
    is_bar = console.is_terminal or console.is_jupyter
    with Progress(*columns, console=console, disable=not is_bar, transient=True) as bar:
        yield _Shown(console, bar, names_workers=names_workers, repairs=repairs).show


class _Shown:
    """What of a job was shown last, and when."""

    def __init__(self, console: Console, bar: Progress, *, names_workers: bool, repairs: bool) -> None:
        self._console, self._progress = console, bar
        self._names_workers, self._repairs = names_workers, repairs
        self._whole: int | None = None
        """The shards that were not to be repaired, when a repair was shown first."""
        self._started = time.monotonic()
        self._logged_at = self._started
        self._images_before: int | None = None
        self._task = bar.add_task("annotate", total=None, done="", rates="")

    def show(self, progress: JobProgress) -> None:
        """Show how far the job is."""
        images = progress.totals.images.inputs + progress.num_images_in_hand
        if self._images_before is None:
            self._images_before = images
            if not progress.totals.num_shards and not self._names_workers:
                inputs(self._console, progress.plan)
        rate = (images - self._images_before) / max(time.monotonic() - self._started, 1e-9)
        units, units_done, planned = progress.plan.num_units, progress.num_units_done, progress.plan.num_images
        if self._repairs:
            self._whole = units_done if self._whole is None else self._whole
            units, units_done, planned = units - self._whole, units_done - self._whole, None
        of_all = counted(images, "image") if planned is None else f"{images:,} of {counted(planned, 'image')}"
        done = f"{units_done:,} of {counted(units, 'shard')}"
        done = f"{done} repaired" if self._repairs else f"{of_all}, {done}"
        others = ""
        if progress.num_drivers > 1 or self._names_workers:
            others = f"{counted(progress.num_drivers, 'driver')}, {counted(progress.num_workers, 'worker')}"
        notes = "; ".join(filter(None, (others, progress.note)))
        rates = ("at work" if self._repairs else f"{rate:,.1f} images/s") + (f" ({notes})" if notes else "")
        # Images are the finer measure, where their number is known.
        total, completed = (units, units_done) if planned is None else (planned, images)
        self._progress.update(self._task, total=total, completed=completed, done=done, rates=rates)
        if self._progress.disable and time.monotonic() - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = time.monotonic()
            seconds_left = self._progress.tasks[0].time_remaining
            left = "" if seconds_left is None else f", {timedelta(seconds=seconds_left)} left"
            self._console.print(f"{done}, {rates}{left}", highlight=False)


def inputs(console: Console, planned: Plan) -> None:
    """Print what each input of a plan gives, and what of it is not read."""
    for entry in planned.inputs:
        for line in lines(entry.summary) if entry.summary else ():
            console.print(f"{entry.prefix or 'input'}: {line}", highlight=False, markup=False)


@contextmanager
def probing(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show that a probe is under way, and how far what is yielded was told it is."""
    with console.status("Probing: loading the models", spinner="line") as shown:

        def watch(done: int, planned: int) -> None:
            shown.update(f"Probing: {done:,} of {planned:,} images")

        yield watch
