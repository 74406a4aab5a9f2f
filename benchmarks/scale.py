"""Scale: images/s and peak memory of `fineclip annotate` from 1,000 to 100,000 images, manual + rule.

    python -m benchmarks.scale [--sizes 1000 10000 100000]

Each size is one run of the real command in a process of its own, imports included, on tars of 1000 made-up images. Then
the command is given again on the largest, finished data set, where it must find nothing to do; and the middle size runs
with two worker processes. Memory is the peak resident set that the kernel reports of the ended command (`wait4`); with
worker processes, of the largest one.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.processes import Ended, run
from benchmarks.report import Row, report
from benchmarks.tars import make_tars

_BACKENDS = ("--proposer", "manual", "--captioner", "rule")
_PER_TAR = 1000
_GROWTH_GOAL = 1.1
_NOTHING_TO_DO_GOAL_S = 5.0


def _annotate(source: Path, output: Path, *flags: str) -> Ended:
    """Run `fineclip annotate` to its end. Raises SystemExit, with what it printed, if it fails."""
    return run(Path(sys.executable).with_name("fineclip"), "annotate", source, output, *_BACKENDS, *flags)


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


def _report(by_size: dict[int, Ended], again: Ended, parallel: Ended, middle: int) -> None:
    smallest, largest = min(by_size), max(by_size)
    growth = by_size[largest].peak_mib / by_size[smallest].peak_mib
    rows = [_row(f"{size:,} images", ended, size) for size, ended in by_size.items()]
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


def _row(name: str, ended: Ended, num_images: int) -> Row:
    note = f"{num_images / ended.wall_s:,.0f} images/s, {ended.cpu_s:.1f} s CPU, peak {ended.peak_mib:.0f} MiB"
    return Row(name=name, seconds=[ended.wall_s], note=note)


if __name__ == "__main__":
    main()
