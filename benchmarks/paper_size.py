"""The paper's size: 2.5 M images and 10 M regions by N drivers on one OUTPUT, interrupted five times; then its readers.

    python -m benchmarks.paper_size FOLDER [--images 2500000] [--drivers 2] [--interruptions 5]

FOLDER keeps the input and the data set (28 GB for 2.5 M images of 64 to 96 pixels), so that the script goes on where it
was ended; delete it afterwards. At equal parts of the way all drivers are ended, by SIGKILL and SIGTERM in turn, and
the same command is given again. Each run is a line of `runs.jsonl`: seconds, shards so far, exit codes, load average.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.tars import make_tars

_PER_TAR = 1000
_REGIONS = (3, 5)
_POLL_S = 1.0


def main() -> None:
    arguments = _arguments()
    folder: Path = arguments.folder
    num_units = arguments.images // _PER_TAR
    source, output = folder / "input", folder / "data"
    if not (folder / "input.made").exists():
        make_tars(source, arguments.images, _PER_TAR, _REGIONS)
        (folder / "input.made").touch()
    drive(source, output, folder, num_units, arguments.drivers, arguments.interruptions)


def drive(source: Path, output: Path, folder: Path, num_units: int, num_drivers: int, interruptions: int) -> None:
    """Annotate `source` by `num_drivers` processes, all of them ended and started again `interruptions` times."""
    stops = [num_units * (1 + index) // (interruptions + 1) for index in range(interruptions)]
    for run, stop in enumerate([*stops, None]):
        if stop is not None and _num_done(output) >= stop:
            continue
        started = time.time()
        drivers = [_driver(source, output, folder / f"run-{run}-driver-{index}.log") for index in range(num_drivers)]
        while any(driver.poll() is None for driver in drivers):
            time.sleep(_POLL_S)
            if stop is not None and _num_done(output) >= stop:
                ended_by = signal.SIGTERM if run % 2 else signal.SIGKILL
                for driver in drivers:
                    driver.send_signal(ended_by)
                break
        codes = [driver.wait() for driver in drivers]
        row = {"run": run, "wall_s": time.time() - started, "num_done": _num_done(output), "exit_codes": codes}
        with (folder / "runs.jsonl").open("a") as log:
            log.write(json.dumps({**row, "load": os.getloadavg()}) + "\n")


def _num_done(output: Path) -> int:
    commit = output / "_commit"
    return sum(1 for _ in commit.glob("train-*.json"))


def _driver(source: Path, output: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [Path(sys.executable).with_name("fineclip"), "annotate", source, output]
    with log.open("ab") as printed:
        return subprocess.Popen(
            [*command, "--proposer", "manual", "--captioner", "rule"], stdout=printed, stderr=subprocess.STDOUT
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2_500_000)
    parser.add_argument("--drivers", type=int, default=2)
    parser.add_argument("--interruptions", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
