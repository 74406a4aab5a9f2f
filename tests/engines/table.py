"""The table of engines: what a job costs on each, who did how much, whether the bytes are the same, what it survives.

Every job here works on the same tars, of which each takes half a second and more, and all workers begin together: what
differs is what the engine costs. Memory is that of all the job's and the engine's processes together.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import watching_memory
from tests.builders import digests
from tests.engines.services import MARK, marked, spread, units_by

LOCAL = "Beam, local, 2 workers"
"""With which the others are compared."""
_HEADER = ("engine", "time", "units by worker", "spread", "peak memory", "sha256", "survived")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A whole job on an engine."""

    seconds: float
    counts: Sequence[int]
    """Units by worker, the most first."""
    peak_mib: float
    sha256: str
    """Of the names and bytes of all files of the data set."""


@dataclass
class Table:
    """What the tests of this session measured."""

    jobs: dict[str, Measured] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)

    @contextlib.contextmanager
    def measure(self, engine: str, output: Path) -> Iterator[None]:
        """Measure the job that the body runs to its end."""
        started = time.monotonic()
        with watching_memory(lambda: marked(os.environ[MARK])) as memory:
            yield
            seconds = time.monotonic() - started
        self.jobs[engine] = Measured(
            seconds=seconds,
            counts=sorted(units_by(output).values(), reverse=True),
            peak_mib=max(memory),
            sha256=hashlib.sha256(json.dumps(sorted(digests(output).items())).encode()).hexdigest(),
        )

    def lines(self) -> Iterator[str]:
        """Yield the table as Markdown."""
        yield f"| {' | '.join(_HEADER)} |"
        yield "|---" * len(_HEADER) + "|"
        for engine in dict.fromkeys([*self.jobs, *self.faults]):
            faults = ", ".join(dict.fromkeys(self.faults.get(engine, ()))) or "-"
            cells = _cells(self.jobs[engine], self.jobs) if engine in self.jobs else ["-"] * 5
            yield f"| {' | '.join([engine, *cells, faults])} |"


def _cells(job: Measured, jobs: Mapping[str, Measured]) -> list[str]:
    ratio = f" ({job.seconds / jobs[LOCAL].seconds:.2f})" if LOCAL in jobs else ""
    return [
        f"{job.seconds:.1f} s{ratio}",
        ", ".join(map(str, job.counts)),
        f"{spread(job.counts):.2f}" if len(job.counts) > 1 else "-",
        f"{job.peak_mib:,.0f} MiB",
        f"`{job.sha256[:16]}`",
    ]
