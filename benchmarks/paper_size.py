"""The paper's size: 2.5 M images and 10 M regions by N drivers on one OUTPUT, interrupted five times; then its readers.

    python -m benchmarks.paper_size FOLDER [--images 2500000] [--drivers 2] [--interruptions 5]

FOLDER keeps the input and the data set, so that the script goes on where it was ended: 28 GB for 2.5 M images of 64 to
96 pixels. Delete it afterwards. At equal parts of the way all drivers are ended, by SIGKILL and SIGTERM in turn, and
the same command is given again. Each run is a line of `runs.jsonl`: seconds, shards so far, exit codes, load average.

Then it is checked that every image is there once, and measured, each in a process of its own: `status`, `doctor
--sample`, the viewer, and how two processes of the trainer come to their first step (`--recipe mini`, whose text tower
is trained: a frozen one would embed every text before).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import children_of, peak_mib, run
from benchmarks.report import Row, report
from benchmarks.tars import make_tars
from benchmarks.viewer import TEN_MILLION, measure_viewer, met, rows_of, words_of
from schemas.dataset import Dataset

_PER_TAR = 1000
_REGIONS = (3, 5)
_POLL_S = 1.0
_FINECLIP = Path(sys.executable).with_name("fineclip")
_BACKENDS = ("--proposer", "manual", "--captioner", "rule")


def main() -> None:
    """Make the data set, unless it is there, and measure its readers."""
    arguments = _arguments()
    folder: Path = arguments.folder
    num_units = arguments.images // _PER_TAR
    source, output = folder / "input", folder / "data"
    if not (folder / "input.made").exists():
        make_tars(source, arguments.images, _PER_TAR, _REGIONS)
        (folder / "input.made").touch()
    drive(source, output, folder, num_units, arguments.drivers, arguments.interruptions)
    totals = check_complete(output, arguments.images)
    rows, extra = measure_readers(output, sample=arguments.sample)
    report(f"The paper's size: {arguments.images:,} images", rows, {"totals": totals, **extra})


def drive(source: Path, output: Path, folder: Path, num_units: int, num_drivers: int, interruptions: int) -> None:
    """Annotate `source` by `num_drivers` processes, all of them ended and started again `interruptions` times."""
    stops = [num_units * (1 + index) // (interruptions + 1) for index in range(interruptions)]
    for number, stop in enumerate([*stops, None]):
        if _is_complete(output) or (stop is not None and _num_done(output) >= stop):
            continue
        started = time.time()
        drivers = [_driver(source, output, folder / f"run-{number}-driver-{index}.log") for index in range(num_drivers)]
        while any(driver.poll() is None for driver in drivers):
            time.sleep(_POLL_S)
            if stop is not None and _num_done(output) >= stop:
                ended_by = signal.SIGTERM if number % 2 else signal.SIGKILL
                for driver in drivers:
                    driver.send_signal(ended_by)
                break
        codes = [driver.wait() for driver in drivers]
        row = {"run": number, "wall_s": time.time() - started, "num_done": _num_done(output), "exit_codes": codes}
        with (folder / "runs.jsonl").open("a") as log:
            log.write(json.dumps({**row, "load": os.getloadavg()}) + "\n")


def _is_complete(output: Path) -> bool:
    index = output / "dataset.json"
    return index.exists() and bool(json.loads(index.read_bytes())["complete"])


def _num_done(output: Path) -> int:
    commit = output / "_commit"
    return sum(1 for _ in commit.glob("train-*.json"))


def _driver(source: Path, output: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [_FINECLIP, "annotate", source, output, *_BACKENDS]
    with log.open("ab") as printed:
        return subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)


def check_complete(output: Path, num_images: int) -> dict[str, Any]:
    """Return the totals of `dataset.json`. Raises SystemExit unless every image made is in the tables exactly once."""
    totals: dict[str, Any] = json.loads((output / "dataset.json").read_bytes())
    dataset = Dataset.open(output)
    of_images = []
    for batch in dataset.region_batches(["key", "region_id"]):
        of_images.append(batch.filter(batch["region_id"].is_null())["key"].cast("int64").to_numpy())
    keys = np.sort(np.concatenate(of_images))
    different = len(np.unique(keys))
    if not np.array_equal(keys, np.arange(num_images)) or totals["images"]["inputs"] != num_images:
        raise SystemExit(f"{num_images:,} images were made; {len(keys):,} rows, {different:,} different keys")
    if not len(dataset.shards) == len(totals["shards"]) == -(-num_images // _PER_TAR):
        raise SystemExit(f"{len(dataset.shards)} shards, {len(totals['shards'])} of them in dataset.json")
    return {name: totals[name] for name in ("images", "regions", "num_repeated_keys") if name in totals} | {
        "num_shards": len(totals["shards"])
    }


def measure_readers(output: Path, *, sample: int) -> tuple[list[Row], dict[str, Any]]:
    """Return times, and memory, of what reads the data set."""
    rows, extra = [], {}
    ways: dict[str, list[str | Path]] = {
        "status": ["status", output],
        f"doctor --sample {sample}": ["doctor", output, "--sample", str(sample)],
        "annotate again": ["annotate", output.parent / "input", output, *_BACKENDS],
    }
    for name, command in ways.items():
        ended = run(_FINECLIP, *command)
        rows.append(Row(name=name, seconds=[ended.wall_s], note=f"peak {ended.peak_mib:.0f} MiB"))
    rng = np.random.default_rng(0)
    viewer = measure_viewer(output, words_of(output, rng, 40), rng, opens=5, queries=40)
    rows += rows_of(viewer, TEN_MILLION)
    seconds, peaks = start_of_training(output)
    note = "peak of each " + ", ".join(f"{peak:.0f}" for peak in peaks) + " MiB"
    rows.append(Row(name="two trainers, to the first step", seconds=[seconds], note=note))
    return rows, {**extra, **met(viewer, TEN_MILLION)}


def start_of_training(data: Path, num_processes: int = 2) -> tuple[float, list[float]]:
    """Return seconds from `torchrun` to the first step's line in the log, and the peak in MiB of each process."""
    with tempfile.TemporaryDirectory(prefix="fineclip-bench-") as out:
        command = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc-per-node", str(num_processes)]
        command += [_FINECLIP, "train", data, "--recipe", "mini", "--out", f"{out}/run"]
        command += ["--device", "cpu", "--workers", "0", "--threads", "1", "--log-every", "1", "--stop-after", "1"]
        started, log, first = time.monotonic(), Path(out) / "run" / "metrics.jsonl", None
        with (Path(out) / "printed").open("wb") as printed:
            launcher = subprocess.Popen(command, stdout=printed, stderr=printed)
        peaks: dict[int, float] = {}
        while launcher.poll() is None:
            for pid in children_of(launcher.pid):
                peaks[pid] = max(peaks.get(pid, 0.0), peak_mib(pid))
            if first is None and log.exists() and log.stat().st_size:
                first = time.monotonic() - started
            time.sleep(0.1)
        if launcher.returncode != 0 or first is None:
            raise SystemExit((Path(out) / "printed").read_text())
    return first, sorted(peaks.values())[-num_processes:]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2_500_000)
    parser.add_argument("--drivers", type=int, default=2)
    parser.add_argument("--interruptions", type=int, default=5)
    parser.add_argument("--sample", type=int, default=50, help="shards that doctor reads")
    return parser.parse_args()


if __name__ == "__main__":
    main()
