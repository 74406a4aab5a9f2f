"""Timing side by side and reporting: the part that all benchmarks share.

Two ways of doing the same are run in turn, round after round, so that what else the machine does hits both; a ratio is
the median of the rounds' own ratios. Every report ends in one JSON line with the raw times, for later comparison.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_LIBRARIES = ("apache-beam", "webdataset", "pyarrow", "numpy", "pillow", "msgspec")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured thing, compared with another if `against` names one."""

    name: str
    seconds: list[float]
    """One time a round."""
    against: list[float] | None = None
    """The alternative's times, of the same rounds."""
    goal: float | None = None
    """Largest ratio to `against` that is good enough."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Median over the rounds of our time to the alternative's; None without an alternative."""
        if self.against is None:
            return None
        return statistics.median(ours / theirs for ours, theirs in zip(self.seconds, self.against, strict=True))


def measure(
    ways: Mapping[str, Callable[[], object]], runs: int, *, before: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Time each of `ways` once a round, `runs` rounds, each round beginning with the next one.

    `before` runs ahead of each call and is not timed (remove files, `os.sync`). Returns seconds by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(runs):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            before()
            started = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def report(title: str, rows: Sequence[Row], extra: Mapping[str, Any]) -> None:
    """Print a table of `rows`, `extra` (JSON values) and where this ran, then all of it as one JSON line."""
    console = Console(width=120, highlight=False)
    table = Table("", "median s", "min - max s", "ratio", "goal", "met", title=title, title_justify="left", box=None)
    for row in rows:
        spread = f"{min(row.seconds):.3f} - {max(row.seconds):.3f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        goal, met = ("", "") if row.goal is None or row.ratio is None else (f"<= {row.goal}", _yes(row))
        name = f"{row.name} ({row.note})" if row.note else row.name
        table.add_row(name, f"{statistics.median(row.seconds):.3f}", spread, ratio, goal, met)
    console.print(table)
    for name, value in extra.items():
        console.print(f"{name}: {value}", soft_wrap=True, markup=False)
    setting = _setting()
    console.print(", ".join(f"{name} {value}" for name, value in setting.items()), soft_wrap=True, markup=False)
    result = {"title": title, "rows": [asdict(row) | {"ratio": row.ratio} for row in rows], **extra, **setting}
    console.print(json.dumps(result), soft_wrap=True, markup=False)


def _yes(row: Row) -> str:
    assert row.ratio is not None and row.goal is not None
    return "yes" if row.ratio <= row.goal else "no"


def _setting() -> dict[str, Any]:
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_gib),
        "load_average_1min": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **versions,
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
