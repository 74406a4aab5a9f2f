"""The subcommand `status`: what a data set holds, and how far those at work on it are. Needs neither Beam nor torch."""

import sys
import time
from collections.abc import Iterator, Sequence

from rich.console import Console

from pipeline.cli import progress
from pipeline.cli.counts import dead_line, print_counts, size_of
from pipeline.errors import STATUS_EXIT_CODES
from pipeline.overlay.markers import OverlayMarkers
from pipeline.overlay.plan import BaseShard
from pipeline.plan.plan import Plan, load_plan
from pipeline.read.base import SourceError
from pipeline.run.dead import DeadItem, dead_items
from pipeline.run.log import Event, failures
from pipeline.run.status import Markers, units_to_do
from pipeline.run.watch import Watch
from pipeline.store.storage import Storage, StorageError, open_storage, storage_errors
from schemas.names import overlay_of_file
from schemas.plain_flags import PlainParser
from schemas.reasons import STATUS_OF, Status
from schemas.text import counted

_DESCRIPTION = (
    "Count the images and regions of a data set by status and reason, and list the units that failed, by host."
)
_DEAD_REASONS = [reason.value for reason, status in STATUS_OF.items() if status is Status.DEAD]


def status_main(arguments: Sequence[str]) -> int:
    """Run `fineclip status OUTPUT` and return its exit code. Raises errors that carry theirs."""
    parser = PlainParser("fineclip status", _DESCRIPTION, epilog=STATUS_EXIT_CODES)
    parser.add_argument("output", metavar="OUTPUT", help="the folder or URL that annotate writes")
    parser.add_argument("--dead", action="store_true", help="list the dead images and regions instead, one per line")
    parser.add_argument(
        "--reason", metavar="R", choices=_DEAD_REASONS, help="list only those that died for this reason, such as decode"
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show how far all drivers on OUTPUT are, until it is complete; works from any machine that reads it",
    )
    options = parser.parse_args(arguments)
    if not options.output:
        parser.error("OUTPUT is empty; name a folder ('.' for the current one)")
    if options.watch and (options.dead or options.reason):
        parser.error("--watch counts and --dead lists: give one of them")
    storage = open_storage(options.output)
    with storage_errors(storage.url):
        plan = load_plan(storage)
        if plan is None:
            raise SourceError(
                f"{options.output}: no data set is here (there is no _plan/plan.json); see fineclip annotate --help"
            )
        markers = Markers(storage).refresh()
    if options.dead or options.reason:
        _tell_of_repairs(plan, markers)
        _list_dead(_read(storage, dead_items(plan, markers, options.reason)), options.reason)
        return 0
    if options.watch:
        with storage_errors(storage.url):
            _watch(plan, markers)
    return _show(plan, markers)


def _show(plan: Plan, markers: Markers) -> int:
    """Print what the data set holds and what is wrong with it; return the exit code."""
    storage = plan.storage
    with storage_errors(storage.url):
        missing = (shard for unit in units_to_do(plan, markers) for shard in plan.shards(unit))
        repairing = markers.add_repairing(missing)
        damage = {shard: why for shard, why in markers.damage(plan).items() if shard not in repairing}
        todo = units_to_do(plan, markers)
        failed = failures(storage, todo)
    console, totals = Console(emoji=False), markers.totals
    print_counts(console, totals)
    state = "complete" if not todo else f"{len(todo):,} of {counted(plan.num_units, 'unit')} still to do"
    if repairing:
        state += f", {counted(len(repairing), 'shard')} being repaired"
    state = f"damaged: {counted(len(damage), 'shard')}" if damage else state
    held = f"{counted(totals.num_shards, 'shard')}, {size_of(totals.num_bytes)}; {state}."
    console.print(f"{plan.storage.url}: {held}", highlight=False, markup=False, soft_wrap=True)
    _print_failures(console, failed)
    _tell_of_overlays(console, storage, markers)
    if repairing:
        told = f"{', '.join(map(str, repairing[:3]))}: being repaired; if no `fineclip retry` is at work, run it again."
        console.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)
    for why in damage.values():
        remedy = "the same annotate command makes this shard again"
        console.print(f"{why}; {remedy}", style="bold red", highlight=False, markup=False, soft_wrap=True)
    if damage:
        return StorageError.exit_code
    if not totals.balanced:
        console.print("The totals do not balance: this is a bug, please report it.", style="bold red")
        return 6
    return 0


def _read(storage: Storage, items: Iterator[DeadItem]) -> Iterator[DeadItem]:
    """Yield items that are read from OUTPUT: its errors are told apart from those of whoever takes them."""
    while True:
        with storage_errors(storage.url):
            item = next(items, None)
        if item is None:
            return
        yield item


def _tell_of_repairs(plan: Plan, markers: Markers) -> None:
    """Say of which shards what died is not listed, unmade ones and those being repaired: where no program reads."""
    with storage_errors(plan.storage.url):
        missing = [shard for unit in units_to_do(plan, markers) for shard in plan.shards(unit) if shard not in markers]
        repairing = Markers(plan.storage).add_repairing(missing)
    num_unmade = len(missing) - len(repairing)
    if num_unmade:
        shards = counted(num_unmade, "shard")
        sys.stderr.write(f"not made yet, so not listed: what dies in {shards}\n")
    if repairing:
        sys.stderr.write(f"being repaired, so not listed: {', '.join(map(str, repairing))}\n")


def _list_dead(items: Iterator[DeadItem], reason: str | None) -> None:
    """Write a line for each; where there is none, that goes where no program reads."""
    none = True
    for item in items:
        none = False
        sys.stdout.write(f"{dead_line(item)}\n")
    if none:
        sys.stderr.write(f"no image and no region is dead{f' of {reason}' if reason else ''}\n")


def _watch(plan: Plan, markers: Markers) -> None:
    """Show a bar until every unit is done, whoever does them."""
    with progress.working(Console(emoji=False, stderr=True), names_workers=True) as show:
        watch = Watch(plan, markers, show)
        watch.show()
        while units_to_do(plan, markers):
            time.sleep(plan.storage.poll_s)
            watch.show()


def _print_failures(console: Console, failed: Sequence[Event]) -> None:
    """Print at how many of the units to do workers failed, by host, with the last message of each."""
    by_host: dict[str, list[Event]] = {}
    for event in failed:
        by_host.setdefault(event.host, []).append(event)
    for host, events in sorted(by_host.items()):
        last = max(events, key=lambda event: event.ended_at)
        told = f"Failed on {host}: {len(events):,} units, the last was unit {last.unit}: {last.message}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)


def _tell_of_overlays(console: Console, storage: Storage, markers: Markers) -> None:
    """Print a line for each overlay: which part of the shards it was made for as they are, and its regions."""
    bases = [BaseShard.of(shard, marker) for shard, marker in markers]
    with storage_errors(storage.url):
        found = (overlay_of_file(name) for name in storage.names(""))
        for overlay in sorted({name for _, name in filter(None, found)}):
            made = OverlayMarkers(storage, overlay, bases).refresh().totals
            dead = f", {made.regions.num_dead:,} dead" if made.regions.num_dead else ""
            shards = f"{made.num_shards:,} of {counted(len(bases), 'shard')}"
            told = f"overlay {overlay}: {shards}, {counted(made.regions.inputs, 'region')}{dead}."
            console.print(told, highlight=False, markup=False, soft_wrap=True)
