"""The findings as a person sees them, and as a file for programs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from pipeline.doctor.examine import Diagnosis, Watcher
from pipeline.doctor.findings import Finding, Findings, Kind, Level
from schemas.text import counted

_SHOWN = 5
"""Findings of a kind that are shown."""
_STYLES = {Level.ERROR: "bold red", Level.WARNING: "yellow", Level.NOTE: "cyan"}


@contextmanager
def reading(console: Console) -> Iterator[Watcher]:
    """Show how far an examination is, as what is yielded is told: a progress bar in a terminal, elsewhere nothing."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        yield _Bar(bar)


class _Bar(Watcher):
    def __init__(self, bar: Progress) -> None:
        self._progress = bar
        self._task = bar.add_task("doctor", total=None)

    def begin(self, num_bytes: int) -> None:
        """Show how much there is to read."""
        self._progress.update(self._task, total=num_bytes)

    def advance(self, num_bytes: int) -> None:
        """Show that `num_bytes` more have been read."""
        self._progress.advance(self._task, num_bytes)


def show(console: Console, diagnosis: Diagnosis) -> None:
    """Print the findings by kind, errors first, and a line that sums them up."""
    show_findings(console, diagnosis.findings, summary(diagnosis))


def show_findings(console: Console, findings: Findings, told: str) -> None:
    """Print findings by kind, errors first, and the line `told`, which sums them up."""
    for kind, found in findings.groups():
        _show_group(console, kind, found, findings.counts[kind])
    healthy = not (findings.num(Level.ERROR) or findings.num(Level.WARNING))
    console.print(Text(_plain(told), "bold green" if healthy else "bold"), soft_wrap=True)


def summary(diagnosis: Diagnosis) -> str:
    """Return the line that ends the report."""
    shards = counted(diagnosis.num_shards, "shard")
    if diagnosis.num_examined < diagnosis.num_shards:
        shards = f"{diagnosis.num_examined:,} of {shards}"
    errors, warnings = diagnosis.findings.num(Level.ERROR), diagnosis.findings.num(Level.WARNING)
    if errors or warnings:
        return f"{counted(errors, 'error')}, {counted(warnings, 'warning')} in {shards}"
    return f"healthy: {shards}, {counted(diagnosis.num_images, 'image')}, {counted(diagnosis.num_regions, 'region')}"


def _show_group(console: Console, kind: Kind, found: list[Finding], count: int) -> None:
    level, check = kind
    heading = Text.assemble((level.value, _STYLES[level]), f"  {check}")
    if count > 1:
        heading.append(f"  ({count:,})")
    console.print(heading)
    shown = found[:_SHOWN]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(width=1)
    table.add_column(max_width=24, overflow="fold")
    table.add_column(overflow="fold", ratio=1)
    for finding in shown:
        place = "\n".join(_plain(part) for part in (finding.shard, finding.key) if part)
        table.add_row("", Text(place or "data set"), Text(_plain(finding.message)))
    if count > len(shown):
        table.add_row("", "", Text(f"... and {count - len(shown):,} more", "dim"))
    for remedy in dict.fromkeys(finding.remedy for finding in shown):
        table.add_row("", Text("-> to do", "green"), Text(remedy, "green"))
    console.print(table)
    console.print()


def _plain(text: str) -> str:
    """Return the text without what would steer the terminal: names and captions are anybody's."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def write_json(path: Path, diagnosis: Diagnosis) -> None:
    """Write the counts of all kinds and the findings kept (1000 of a kind) to `path`, as one JSON object."""
    shards = {"num_shards": diagnosis.num_shards, "num_examined": diagnosis.num_examined}
    write_findings(path, diagnosis.findings, {"summary": summary(diagnosis), **shards})


def write_findings(path: Path, findings: Findings, head: Mapping[str, object]) -> None:
    """Write findings to `path` as `write_json` does, after what is in `head`."""
    groups = findings.groups()
    counts = [
        {"level": level.value, "check": check, "count": findings.counts[level, check]} for (level, check), _ in groups
    ]
    content = {
        **head,
        "num_errors": findings.num(Level.ERROR),
        "num_warnings": findings.num(Level.WARNING),
        "counts": counts,
        "findings": [finding for _, found in groups for finding in found],
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
