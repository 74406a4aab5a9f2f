"""Timing side by side and reporting: the part that all benchmarks share.

Two ways of doing the same are run in turn, round after round, so that what else the machine does hits both; a ratio is
the median of the rounds' own ratios. Every report ends in one JSON line with the raw times, for later comparison.

Needs the standard library alone: a benchmark runs where only the libraries of what it measures are installed.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_LIBRARIES = ("apache-beam", "webdataset", "pyarrow", "numpy", "pillow", "msgspec", "torch", "transformers")
"""Whose versions are reported, where they are installed."""
_HEADER = ("", "median s", "min - max s", "per s", "ratio", "goal", "met")


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
    items: int | None = None
    """Things done in a round, for a rate."""
    rate_goal: float | None = None
    """Smallest number of things a second that is good enough."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Median over the rounds of our time to the alternative's; None without an alternative."""
        if self.against is None:
            return None
        return statistics.median(ours / theirs for ours, theirs in zip(self.seconds, self.against, strict=True))

    @property
    def per_s(self) -> float | None:
        """Things a second in the median round; None where they were not counted."""
        return None if self.items is None else self.items / statistics.median(self.seconds)

    @property
    def goals(self) -> list[tuple[str, bool]]:
        """What was aimed at, and whether it was met."""
        goals = []
        if self.goal is not None and self.ratio is not None:
            goals.append((f"<= {self.goal:.3g}", self.ratio <= self.goal))
        if self.rate_goal is not None and self.per_s is not None:
            goals.append((f">= {self.rate_goal:,.0f}/s", self.per_s >= self.rate_goal))
        return goals


def measure(
    ways: Mapping[str, Callable[[], object]],
    runs: int,
    *,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time each of `ways` once a round, `runs` rounds, each round beginning with the next one.

    `before` runs ahead of each call and is not timed (remove files, `os.sync`). `clock` gives seconds;
    `time.process_time`, of this process's CPU time alone, tells something beside other work too. Returns seconds by
    name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(runs):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            before()
            started = clock()
            ways[name]()
            seconds[name].append(clock() - started)
    return seconds


def gpu_busy(way: Callable[[], object]) -> float | None:
    """Run `way`, and return the share of its time (0 to 1) in which a kernel ran; None without nvidia-smi or samples.

    The driver's own figure, sampled: it sees the gaps that a model's call has within itself.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()  # of before: it has started
        way()
        watcher.terminate()
        samples = [float(line) for line in watcher.stdout.read().splitlines() if line.strip().isdigit()]
    return statistics.mean(samples) / 100 if samples else None


def report(title: str, rows: Sequence[Row], extra: Mapping[str, Any]) -> None:
    """Print a table of `rows`, `extra` (JSON values) and where this ran, then all of it as one JSON line."""
    print(title)
    _print_table([_HEADER, *map(_cells, rows)])
    for name, value in extra.items():
        print(f"{name}: {value}")
    setting = _setting()
    print(", ".join(f"{name} {value}" for name, value in setting.items()))
    rates = [asdict(row) | {"ratio": row.ratio, "per_s": row.per_s} for row in rows]
    print(json.dumps({"title": title, "rows": rates, **extra, **setting}), flush=True)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.name} ({row.note})" if row.note else row.name,
        f"{statistics.median(row.seconds):.3f}",
        f"{min(row.seconds):.3f} - {max(row.seconds):.3f}",
        "" if row.per_s is None else f"{row.per_s:,.1f}",
        "" if row.ratio is None else f"{row.ratio:.3f}",
        ", ".join(goal for goal, _ in row.goals),
        ", ".join("yes" if met else "no" for _, met in row.goals),
    )


def _print_table(lines: Sequence[tuple[str, ...]]) -> None:
    """Print the lines with columns as wide as their widest cell; columns without a value are left out."""
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    for cells in zip(*columns, strict=True):
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _setting() -> dict[str, Any]:
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "date": datetime.now(tz=UTC).date().isoformat(),
        **_gpu(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_gib),
        "load_average_1min": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **_versions(),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _gpu() -> dict[str, str]:
    """Return the GPU that this process used, where it did."""
    torch = sys.modules.get("torch")
    used = torch is not None and torch.cuda.is_initialized()
    return {"gpu": torch.cuda.get_device_name()} if torch is not None and used else {}


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def peak_gib(device: str) -> float:
    """Return the peak of what torch allocated on the GPU since it was reset, or of the whole process."""
    if device == "cuda":
        import torch  # most benchmarks need none

        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
