"""The audit: time and memory, with its steps apart, and what near-duplicates of many images cost.

    python -m benchmarks.audit [--regions 1000000] [--folder .] [--hashes 250000,1000000] [--profile FILE]

The data set is that of `benchmarks.export`, with every picture different (random, 64 to 96 pixels, 4 KB) and every
caption too, which is what costs most memory. `audit` runs in a process of its own, twice: whole, and again with all
measures there, which is the sweep, the list and the report. CPU seconds hardly change with other work on the machine.
`--hashes` are searched in this process: random ones, of which a hundredth are copies with 2 bits changed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.export import make_data
from benchmarks.processes import run
from benchmarks.report import Row, measure, report
from pipeline.audit.near import nearest_earlier

_PER_COPY = 100


def random_hashes(num: int) -> np.ndarray:
    """Return `[num]` uint64, of which a hundredth nearly equal an earlier one."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 63, size=num, dtype=np.uint64) << np.uint64(1)
    copies = np.arange(_PER_COPY, num, _PER_COPY)
    hashes[copies] = hashes[copies - _PER_COPY + 1] ^ np.uint64(0b100000000001)
    return hashes


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=1_000_000, help="0 for none")
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write: its disk is measured")
    parser.add_argument("--hashes", default="250000,1000000", help="how many images' hashes are searched, with commas")
    parser.add_argument("--profile", type=Path, help="write there a profile of the larger audit")
    arguments = parser.parse_args()
    rows, memory, cpu = [], {}, {}
    with tempfile.TemporaryDirectory(prefix="fineclip-bench-", dir=arguments.folder) as folder:
        for num_regions in filter(None, (arguments.regions // 10, arguments.regions)):
            data, out = Path(folder) / f"data-{num_regions}", Path(folder) / f"out-{num_regions}"
            make_data(data, num_regions, distinct=num_regions)
            profiled = arguments.profile is not None and num_regions == arguments.regions
            program = ["-m", "cProfile", "-o", str(arguments.profile)] if profiled else []
            for what in ("whole", "measures there"):
                flags = program if what == "whole" else []
                ended = run(sys.executable, *flags, "-m", "fineclip", "audit", data, out)
                name = f"{num_regions:,} regions, {what}"
                rows.append(Row(name=name, seconds=[ended.wall_s], items=num_regions))
                memory[name], cpu[name] = f"{ended.peak_mib:.0f} MiB", f"{ended.cpu_s:.1f} s"
                print(f"{name}: {ended.wall_s:.1f} s, CPU {cpu[name]}, {memory[name]}", file=sys.stderr, flush=True)
    for num in map(int, filter(None, arguments.hashes.split(","))):
        hashes, name = random_hashes(num), f"near-duplicates of {num:,} hashes"
        (seconds,) = measure({name: lambda found=hashes: nearest_earlier(found, np.ones(len(found), bool))}, 1).values()
        rows.append(Row(name=name, seconds=seconds, items=num))
        print(f"{name}: {seconds[0]:.1f} s", file=sys.stderr, flush=True)
    report("The audit: regions, or hashes, per second", rows, {"peak memory": memory, "CPU time": cpu})


if __name__ == "__main__":
    main()
