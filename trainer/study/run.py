"""Running what is missing of a study, a command at a time, each in a process of its own.

    OUT/cells/CELL.json         a finished cell: its figures, its commands, what they cost. Kept; never run again
    OUT/work/KIND/KEY           what a command made;  OUT/work/logs: what it said;  OUT/work/steps: what it cost

`work` may be deleted once the cells are there: what a missing cell needs of it is made again.
"""

import contextlib
import datetime
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

import fineclip
from trainer.errors import InterruptedRunError, RefusedError, TrainingError
from trainer.study.cell import CODE, WORK, Cell, Step, Study
from trainer.study.scores import scores_by_image

CELLS = "cells"
_COMMAND = Path(fineclip.__file__).resolve()


class StudyRun:
    """A study in a folder; only one at a time works there."""

    def __init__(self, out: Path, console: Console) -> None:
        """Work in `out`, telling `console` what is done and what is left."""
        self._out, self._work, self._console = out, out / WORK, console
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._seconds: dict[str, list[float]] = {}
        """Wall time by kind of step, of those that this process ran."""

    def run(self, study: Study) -> list[str]:
        """Run the cells that are missing; return a sentence for each that failed.

        Raises RefusedError as `locked`, InterruptedRunError after a signal, once the command at work has ended.
        """
        for folder in (self._out / CELLS, self._work / "logs", self._work / "steps"):
            folder.mkdir(parents=True, exist_ok=True)
        with self.locked() as lock, self._passing_signals_on():
            failures = []
            missing = [cell for cell in study.cells if self.read(cell) is None]
            done = len(study.cells) - len(missing)
            self._console.print(f"{study.title}: {done} of {len(study.cells)} cells are there", highlight=False)
            for number, cell in enumerate(missing):
                place = f"cell {done + number + 1} of {len(study.cells)}, {_called(cell)}"
                problem = None
                for step in cell.steps:
                    if self._record(step) is None:
                        if self._stopping:
                            raise InterruptedRunError("interrupted; the same command goes on")
                        self._console.print(f"{place}: {step.kind}{self._left(missing[number:])}", highlight=False)
                        problem = self._run(step, lock)
                    if problem is not None:
                        failures.append(f"{_called(cell)}: {problem}")
                        self._console.print(failures[-1], style="red", highlight=False)
                        break
                else:
                    _write(self._out / CELLS / f"{cell.name}.json", self._finished(study, cell))
            return failures

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """Return what a cell found, None where it is missing. Another study may have run it, under another name."""
        there = sorted((self._out / CELLS).glob(f"*-{cell.key}.json"))
        return _read(there[0]) if there else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the folder, and yield the lock's file descriptor. Raises RefusedError where another process holds it.

        Commands inherit the lock: one that outlives a killed study keeps it, so none is run beside itself.
        """
        with (self._work / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RefusedError(
                    f"{self._out}: another study is at work here, or a command that a killed one left behind: wait for "
                    "it, or end it"
                ) from error
            yield file.fileno()

    @contextlib.contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the command at work, and the study after it."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._stopping = True
            self._interrupt()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self) -> None:
        """Ask the command at work to end; not by `Popen`, which would take its exit code away from who waits."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGINT)

    def _step_file(self, step: Step) -> Path:
        return self._work / "steps" / f"{step.kind}-{step.key}.json"

    def _record(self, step: Step) -> dict[str, Any] | None:
        """Return what a step cost, None where it is to run: it has not ended, or what it made is gone."""
        return _read(self._step_file(step)) if (self._work / step.out).exists() else None

    def _run(self, step: Step, lock: int) -> str | None:
        """Run a command to its end; return why it failed, or None. It goes on where an earlier attempt stopped."""
        log = self._work / "logs" / f"{step.kind}-{step.key}.log"
        attempts = self._step_file(step).with_suffix(".attempts")
        number = int(attempts.read_text() or 0) + 1 if attempts.exists() else 1
        attempts.write_text(str(number))
        (self._work / step.out).parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as said:
            said.write(f"$ fineclip {' '.join(step.command)}\n".encode())
            said.flush()
            code, cost = self._wait(step, said.fileno(), lock)
        if code:
            last = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()][
                -3:
            ]
            return f"`fineclip {step.kind}` ended with exit code {code}; {log}: {' | '.join(last)}"
        _write(self._step_file(step), {"command": ["fineclip", *step.command], "attempts": number, **cost})
        return None

    def _wait(self, step: Step, output: int, lock: int) -> tuple[int, dict[str, Any]]:
        """Run a command; return its exit code and what it cost. Raises InterruptedRunError after a signal."""
        started = time.monotonic()
        process = subprocess.Popen(  # noqa: S603  # our own command, by its list of arguments
            [sys.executable, str(_COMMAND), *(part.replace(CODE, str(_COMMAND.parent)) for part in step.command)],
            cwd=self._work,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[lock],
        )
        self._process = process
        if self._stopping:  # the signal came while the command was being started
            self._interrupt()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode, self._process = os.waitstatus_to_exitcode(status), None
        if self._stopping and process.returncode:
            raise InterruptedRunError("interrupted; the same command goes on")
        wall_s = time.monotonic() - started
        self._seconds.setdefault(step.kind, []).append(wall_s)
        return process.returncode, {
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
            "wall_s": round(wall_s, 1),
            "peak_memory_mb": round(usage.ru_maxrss / 1024),
        }

    def _finished(self, study: Study, cell: Cell) -> dict[str, Any]:
        """Return all that is kept of a cell."""
        figures: dict[str, float] = {}
        by_image: dict[str, dict[str, str]] = {}
        records = []
        for step in cell.steps:
            record = self._record(step)
            assert record is not None
            records.append({"kind": step.kind, "key": step.key, **record})
            if step.suffix == ".json":
                figures |= _figures(_read(self._work / step.out) or {})
            if (self._work / step.scores).exists():
                by_image |= scores_by_image(self._work / step.scores, {metric.name for metric in study.metrics})
        return {
            "row": cell.row,
            "seed": cell.seed,
            "figures": figures,
            "by_image": by_image,
            "steps": records,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": _machine(),
        }

    def _left(self, cells: list[Cell]) -> str:
        """Return about how long the steps of these cells will take, by those that were run; "" where none was."""
        left = {step for cell in cells for step in cell.steps if self._record(step) is None}
        known = [self._seconds[step.kind] for step in left if step.kind in self._seconds]
        if not known:
            return f" ({len(left)} commands left)"
        seconds = sum(sum(times) / len(times) for times in known)
        more = "" if len(known) == len(left) else "at least "
        return f" ({len(left)} commands left, {more}{seconds / 60:.0f} min)"


def _figures(found: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a command's JSON as `TASK.METRIC`."""
    return {
        f"{task}.{name}": value
        for task, metrics in found.items()
        if isinstance(metrics, dict)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _called(cell: Cell) -> str:
    return cell.row if cell.seed is None else f"{cell.row}, seed {cell.seed}"


def _machine() -> dict[str, Any]:
    """Return what the figures' costs depend on."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu, "cores": cores, "torch": metadata.version("torch"), "python": platform.python_version()}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise TrainingError(f"{path}: {error}: take the file away, and what it told of is run again") from error
    return found


def _write(path: Path, value: dict[str, Any]) -> None:
    """Write a file that is there whole or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
