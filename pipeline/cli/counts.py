"""Counts by status and reason, as `annotate` and `status` show them."""

from rich.console import Console
from rich.table import Table

from pipeline.run.dead import DeadItem
from pipeline.run.status import Totals
from schemas.paths import printable
from schemas.reasons import MEANING_OF, Reason
from schemas.text import counted


def print_counts(console: Console, totals: Totals) -> None:
    """Print a row for images and one for regions, then a line a reason."""
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
    if totals.num_noted:
        noted = f"{counted(totals.num_noted, 'ok image')}: something was mended or left out"
        console.print(f"{noted}; `message` in the tables says what.\n", style="yellow", highlight=False, soft_wrap=True)


def dead_line(item: DeadItem) -> str:
    """Return a dead image or region as one line: key and region, reason, stage, source, message."""
    name = item.key if item.region_id is None else f"{item.key}/{item.region_id}"
    times = f" x {item.count:,}" if item.count > 1 else ""
    columns = (f"{name}{times}", item.reason, item.stage, item.source, item.message)
    return "\t".join(printable(column).replace("\n", "\\n") for column in columns)


def size_of(num_bytes: float) -> str:
    """Return a size with its unit, three significant digits."""
    for unit in ("B", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
