"""What a person sees at the end: the tables of `annotate` and of `plan` with its probe."""

import math
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli import progress
from pipeline.cli.counts import dead_line, print_counts, size_of
from pipeline.cli.options import Options
from pipeline.models.batches import BatchReport
from pipeline.plan.plan import Plan
from pipeline.read.exclusions import GIVEN
from pipeline.run.job import JobResult
from pipeline.run.probe import Forecast, Measurement, Range
from schemas.paths import is_url, printable
from schemas.reasons import Reason, Stage
from schemas.text import counted

_NOTABLE = 0.1
"""Share of the time from which on a stage is worth a remark."""


def closing(console: Console, result: JobResult, options: Options) -> None:
    """Print what `annotate` came to: counts by status and reason, rates, where the time went, what to do next."""
    print_counts(console, result.totals)
    if result.num_units_run == 0:
        console.print(f"Nothing to do: {counted(result.plan.num_units, 'unit')}, all done.", highlight=False)
    else:
        print_times(console, result)
    if result.totals.images.ok and not result.totals.regions.ok:
        console.print(
            "Warning: no region came out. The reasons above tell why; without one, the proposer found nothing.",
            style="yellow",
            highlight=False,
        )
    for why in result.mended:
        console.print(f"Made again: {why}.", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if result.first_dead:
        all_of_them = f"fineclip status {printable(options.output)} --dead"
        console.print(f"The first that are dead (all: {all_of_them}):", markup=False, soft_wrap=True)
    for item in result.first_dead:
        console.print(f"  {dead_line(item)}".expandtabs(2), highlight=False, markup=False, soft_wrap=True)
    _tell_of_lists(console, result, options)
    for entry in result.plan.inputs:
        if entry.summary and entry.summary.box_doubt:
            doubt = f"{printable(entry.spec)}: {entry.summary.box_doubt}"
            console.print(f"Warning: {doubt}", style="yellow", highlight=False, markup=False)
    _warn_of_repeated_keys(console, result)
    _warn_of_versions(console, result)
    # soft_wrap leaves a path in one piece, to be copied
    console.print(f"Data set: {printable(options.output)}", highlight=False, markup=False, soft_wrap=True)


def plan(console: Console, planned: Plan, todo: list[int]) -> None:
    """Print the inputs of a plan and the work in it."""
    table = Table("input", "kind", "prefix", "files", "size", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    for entry in planned.inputs:
        table.add_row(
            Text(printable(entry.spec)), entry.kind, entry.prefix or "-", f"{entry.num_files:,}", size_of(entry.bytes)
        )
    console.print(table)
    progress.inputs(console, planned)
    images = "unknown until read" if planned.num_images is None else f"{planned.num_images:,}"
    shards = planned.num_units * len(planned.splits)
    work = f"{len(todo):,} of {counted(planned.num_units, 'unit')} to do"
    console.print(f"{counted(shards, 'shard')}, images: {images}; {work}.", highlight=False)


def forecast(console: Console, predicted: Forecast, measured: Measurement, options: Options) -> None:
    """Print what a probe came to: what the job would yield, take and cost, what holds it up, and what to keep in mind.

    The time is that of one worker process, whatever `--workers` says: how much workers of a machine slow each other
    was not measured.
    """
    console.print()
    console.print(_forecast_table(predicted, measured, options.probe.price_per_hour))
    console.print()
    (stage, share), *others = predicted.shares
    then = ", ".join(f"{name} {part:.0%}" for name, part in others if part >= 0.01)
    console.print(
        f"Bottleneck: {stage}, {share:.0%} of the time" + (f"; then {then}." if then else "."), highlight=False
    )
    console.print(
        f"Measured here: {measured.images:,} images in {len(measured.units)} stretches throughout the inputs, after "
        f"one to warm up (models loaded in {measured.load_s:.1f} s). The ranges go from the lowest to the highest.",
        highlight=False,
    )
    for note in _notes(predicted, measured, options):
        console.print(f"Note: {note}", style="yellow", highlight=False, markup=False)


def _forecast_table(predicted: Forecast, measured: Measurement, price: float | None) -> Table:
    table = Table("", "expected", "lowest - highest", "", box=None, pad_edge=False)
    for column in table.columns[1:3]:
        column.justify = "right"
    work = predicted.work
    per_image = 1 / max(work.images, 1)

    def add(name: str, amount: Range, show: Callable[[float], str], note: str) -> None:
        table.add_row(name, show(amount.value), f"{show(amount.low)} - {show(amount.high)}", note)

    about = "estimated" if work.is_estimated else ""
    table.add_row("images", _rough(work.images) if work.is_estimated else f"{work.images:,}", "", about)
    for name, amount in (("regions", predicted.regions), ("captions", predicted.captions)):
        add(name, amount, _rough, f"{amount.value * per_image:.2f} per image")
    add("output", predicted.num_bytes, size_of, f"{size_of(predicted.num_bytes.value * per_image)} per image")
    table.add_row("shards", f"{work.shards:,}", "", "")
    hours = "GPU-hours" if measured.uses_gpu else "machine-hours"
    add(hours, predicted.seconds.times(1 / 3600), _rough, f"{_duration(predicted.per_image_s.value)} per image")
    if price is not None:
        add("cost", predicted.seconds.times(price / 3600), _money, f"at {_money(price)} an hour")
    add("ETA", predicted.seconds, _duration, "with one worker process")
    return table


def _notes(predicted: Forecast, measured: Measurement, options: Options) -> Iterator[str]:
    """Yield what makes the forecast worse than its ranges."""
    if predicted.dead_fraction > options.run.max_dead:
        yield (
            f"{predicted.dead_fraction:.1%} of the probe are dead, more than --max-dead {options.run.max_dead:.2%}; "
            f"annotate with --limit {measured.images} shows the reasons."
        )
    if predicted.work.is_estimated:
        yield "the number of images is estimated; it moves all else, and no range knows of it."
    rest = len(options.inputs) - len(measured.inputs)
    if rest > 0:
        yield f"the probe saw {', '.join(measured.inputs)} alone; {rest} other inputs are taken to be like them."
    a_unit = sum(unit.regions for unit in measured.units) / len(measured.units)
    wanted = math.ceil(measured.images * measured.batch_size / max(a_unit, 1e-9) / 10) * 10
    captions_count = dict(predicted.shares).get("caption", 0.0) > _NOTABLE
    if a_unit < measured.batch_size and wanted <= predicted.work.images and captions_count:
        yield (
            f"a unit of the probe had {a_unit:.0f} regions, and a captioner's batch has {measured.batch_size}: whole "
            f"shards may be quicker; --probe {wanted} would tell."
        )
    if options.run.workers > 1:
        yield (
            f"--workers {options.run.workers} at best divides the time by {options.run.workers}: they share this "
            "machine, and the probe ran one."
        )
    if is_url(options.output):
        yield f"the probe wrote to this machine's disk: the time to upload to {options.output} is not in."


def _rough(number: float) -> str:
    """Return three significant digits, in full; a whole number stays one."""
    if number == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(number)))
    decimals = 0 if isinstance(number, int) else max(digits, 0)
    return f"{round(number, digits):,.{decimals}f}"


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1 else _rough(amount)


def _duration(seconds: float) -> str:
    for limit, unit, name in ((0.9, 1e-3, "ms"), (90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 86400:,.1f} days"


def print_times(console: Console, result: JobResult) -> None:
    """Print how long a run took, where its workers' time went, and how full the models' batches were."""
    images, regions = result.totals.images, result.totals.regions
    per_image = regions.ok / images.ok if images.ok else 0
    summary = f"{result.wall_s:.1f} s in all; {per_image:.1f} regions per image"
    if result.num_units_run == result.plan.num_units:  # the totals hold what earlier runs did too
        summary += f"; {images.inputs / result.wall_s:,.1f} images/s, {regions.ok / result.wall_s:,.1f} regions/s"
    console.print(f"{summary}.", highlight=False)
    worked = sum(result.seconds.values())
    by_share = sorted(result.seconds.items(), key=lambda pair: -pair[1])
    shares = [f"{stage} {seconds / worked:.0%}" for stage, seconds in by_share if seconds >= worked / 100]
    if shares:
        console.print(f"Workers spent {worked:.1f} s: {', '.join(shares)}.", highlight=False)
    for stage in (Stage.PROPOSE, Stage.CAPTION):
        if stage in result.batches and result.batches[stage].calls:
            console.print(_describe(stage, result.batches[stage], worked), highlight=False)


def _describe(stage: str, batches: BatchReport, worked: float) -> str:
    """Return how full and how busy a model was: `worked` are the workers' seconds."""
    a_call = batches.items / batches.calls
    calls = f"{batches.calls:,} {'call' if batches.calls == 1 else 'calls'}"
    text = f"{stage}: {calls} of {a_call:.1f} on average, the model busy {batches.model_s / worked:.0%}"
    if batches.waited_s >= 0.01 * worked:
        text += f" and waiting for its inputs {batches.waited_s / worked:.0%}"
    if batches.unfinished:
        text += f"; {batches.unfinished:,} answers were cut short (--caption.max-new-tokens, --caption.unfinished)"
    if batches.restarts:
        times = "once" if batches.restarts == 1 else f"{batches.restarts:,} times"
        text += f"; the server of --caption.serve was started again {times}"
    if batches.learned_size < batches.batch_size:
        text += f"; out of memory: batches of {batches.batch_size} were cut to {batches.learned_size}"
    return f"{text}."


def _tell_of_lists(console: Console, result: JobResult, options: Options) -> None:
    """Print how much of what filter lists take away was met: a list without effect is not silent."""
    excluded, proposer = options.configuration.read.excluded, options.configuration.proposer
    named = {"images": len(excluded.images), "regions": len(excluded.regions) if proposer == GIVEN else 0}
    for kind, counts in (("images", result.totals.images), ("regions", result.totals.regions)):
        met = counts.filtered.get(Reason.EXCLUDED, 0)
        if named[kind]:
            rest = "" if met == named[kind] else "; the rest met nothing that was read"
            console.print(f"Filter lists took away {met:,} of {named[kind]:,} {kind}{rest}.", highlight=False)
    if len(excluded.regions) > named["regions"]:
        idle = f"{len(excluded.regions):,} regions of the filter lists do not matter to {proposer}"
        console.print(f"{idle}, which finds its own.", style="yellow", highlight=False)


def _warn_of_repeated_keys(console: Console, result: JobResult) -> None:
    number = result.dataset["num_repeated_keys"]
    if number:
        shown = ", ".join(result.dataset["repeated_keys"][:3])
        lies = "lies" if number == 1 else "lie"
        warning = f"Warning: {counted(number, 'key')} {lies} in more than one shard, such as {shown}"
        console.print(f"{warning} (dataset.json names more).", style="yellow", highlight=False, markup=False)


def _warn_of_versions(console: Console, result: JobResult) -> None:
    number = len(result.dataset["provenance"])
    if number > 1:
        warning = (
            f"Warning: the shards were made by {number} different versions of libraries or models; bytes may differ"
        )
        console.print(f"{warning} (dataset.json, provenance).", style="yellow", highlight=False, markup=False)
