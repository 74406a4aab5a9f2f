"""Scale: images/s and peak memory of `fineclip annotate` from 1,000 to 100,000 images, manual + rule.

    python -m benchmarks.scale [--sizes 1000 10000 100000]

Each size is one run of the real command in a process of its own, imports included, on tars of 1000 made-up images. Then
the command is given again on the largest, finished data set, where it must find nothing to do; and the middle size runs
with two worker processes. Memory is the peak resident set that the kernel reports of the ended command (`wait4`); with
worker processes, of the largest one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Row, report
from benchmarks.tars import make_tars

_BACKENDS = ("--proposer", "manual", "--captioner", "rule")
_PER_TAR = 1000
_GROWTH_GOAL = 1.1
_NOTHING_TO_DO_GOAL_S = 5.0


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run of the command."""

    wall_s: float
    cpu_s: float
    """User and system time, worker processes included."""
    peak_mib: float
    output: str
    """What it printed."""


def _annotate(source: Path, output: Path, *flags: str) -> _Run:
    """Run `fineclip annotate` to its end. Raises SystemExit, with what it printed, if it fails."""
    command: list[str | Path] = [
        Path(sys.executable).with_name("fineclip"),
        "annotate",
        source,
        output,
        *_BACKENDS,
        *flags,
    ]
    with tempfile.TemporaryFile("w+") as printed:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read()
    if process.returncode != 0:
        raise SystemExit(f"fineclip annotate ended with exit code {process.returncode}:\n{text}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return _Run(wall_s=wall_s, cpu_s=cpu_s, peak_mib=usage.ru_maxrss / 1024, output=text)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="images, ascending")
    sizes = parser.parse_args().sizes
    middle, largest = sizes[len(sizes) // 2], sizes[-1]
    with tempfile.TemporaryDirectory(prefix="fineclip-bench-") as name:
        folder = Path(name)
        for size in sizes:
            make_tars(folder / f"source-{size}", size, _PER_TAR)
        by_size = {size: _annotate(folder / f"source-{size}", folder / f"out-{size}") for size in sizes}
        again = _annotate(folder / f"source-{largest}", folder / f"out-{largest}")
        parallel = _annotate(folder / f"source-{middle}", folder / "out-parallel", "--workers", "2")
    if "Nothing to do" not in again.output:
        raise SystemExit(f"the finished data set was worked on again:\n{again.output}")
    _report(by_size, again, parallel, middle)


def _report(by_size: dict[int, _Run], again: _Run, parallel: _Run, middle: int) -> None:
    smallest, largest = min(by_size), max(by_size)
    growth = by_size[largest].peak_mib / by_size[smallest].peak_mib
    rows = [_row(f"{size:,} images", run, size) for size, run in by_size.items()]
    rows.append(_row(f"{middle:,} images, --workers 2", parallel, middle))
    rows.append(Row(name=f"{largest:,} images again", seconds=[again.wall_s], note="nothing to do"))
    extra = {
        "peak_mib": {size: round(run.peak_mib, 1) for size, run in by_size.items()},
        "peak_mib_of_largest_of_2_workers": round(parallel.peak_mib, 1),
        "peak_growth": round(growth, 3),
        "peak_growth_met": growth <= _GROWTH_GOAL,
        "nothing_to_do_met": again.wall_s < _NOTHING_TO_DO_GOAL_S,
    }
    report(f"Scale: fineclip annotate, manual + rule, {smallest:,} to {largest:,} images", rows, extra)


def _row(name: str, run: _Run, num_images: int) -> Row:
    note = f"{num_images / run.wall_s:,.0f} images/s, {run.cpu_s:.1f} s CPU, peak {run.peak_mib:.0f} MiB"
    return Row(name=name, seconds=[run.wall_s], note=note)


if __name__ == "__main__":
    main()
