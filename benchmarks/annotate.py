"""What Beam costs: `job.annotate` on the in-memory runner against a plain loop over the same units, same models.

    python -m benchmarks.annotate [--shards 20] [--images 500] [--runs 7]

Both plan, annotate every shard and finalise the data set, which comes out the same, as is checked. The job adds what
Beam and the driver add: the pipeline's start, leases, the run's log, progress. Importing Beam is left out (it takes
seconds, once a process, whatever the size of the job); worker processes import it in the row that has them.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pipeline.run.beam_engine  # noqa: F401 - imports Beam, ahead of the clock
from benchmarks.report import Row, measure, report
from benchmarks.tars import make_tars
from pipeline.annotate import Annotator
from pipeline.caption.rule import Rule, RuleConfig
from pipeline.plan.make import make_plan
from pipeline.propose.manual import Manual, ManualConfig
from pipeline.run import job
from pipeline.run.finalise import finalise
from pipeline.run.status import Markers
from pipeline.settings import Configuration, PlanSettings, RunSettings
from pipeline.store.storage import open_storage

_GOAL = 1.05
_RECIPE = Configuration(proposer="manual", propose=ManualConfig(), captioner="rule", caption=RuleConfig())


@dataclass
class _Ways:
    """The ways to annotate `source` into `output`, and what they left behind."""

    source: str
    output: str
    shards_sha256: set[str] = field(default_factory=set)
    """Of all outputs: one value, or they differ."""
    stage_s: dict[str, float] = field(default_factory=dict)
    """Of the last job."""
    cpu_s: dict[str, list[float]] = field(default_factory=dict)
    """Of this process, by way."""

    def loop(self) -> None:
        """Annotate shard after shard, without Beam, leases or log."""
        storage = open_storage(self.output)
        plan = make_plan(storage, [self.source], _RECIPE, PlanSettings())
        annotator = Annotator(
            plan=plan,
            configuration=_RECIPE,
            run=RunSettings(),
            proposer=Manual(ManualConfig()),
            captioner=Rule(RuleConfig()),
        )
        for unit in range(plan.num_units):
            annotator.annotate(unit)
        self.shards_sha256.add(finalise(plan, Markers(storage).refresh())["shards_sha256"])

    def beam(self) -> None:
        """Annotate by a job on the in-memory runner."""
        self.stage_s = self._job(workers=1).seconds

    def processes(self) -> None:
        """Annotate by a job with two worker processes."""
        self._job(workers=2)

    def _job(self, workers: int) -> job.JobResult:
        result = job.annotate([self.source], self.output, configuration=_RECIPE, run=RunSettings(workers=workers))
        self.shards_sha256.add(result.dataset["shards_sha256"])
        return result

    def counting_cpu(self, name: str, way: Callable[[], None]) -> Callable[[], None]:
        """Return `way`, noting the CPU time that each call costs this process: less noisy than the wall's."""

        def run() -> None:
            started = time.process_time()
            way()
            self.cpu_s.setdefault(name, []).append(time.process_time() - started)

        return run


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--images", type=int, default=500, help="a shard")
    parser.add_argument("--runs", type=int, default=7, help="rounds, after one of a single shard to warm up")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fineclip-bench-") as folder:
        _warm_up(Path(folder))
        source, output = Path(folder) / "source", Path(folder) / "output"
        make_tars(source, arguments.shards * arguments.images, arguments.images)
        ways = _Ways(str(source), str(output))
        by_name = {"plain loop": ways.loop, "Beam, in memory": ways.beam, "Beam, 2 processes": ways.processes}
        seconds = measure(
            {name: ways.counting_cpu(name, way) for name, way in by_name.items()},
            arguments.runs,
            before=lambda: shutil.rmtree(output, ignore_errors=True),
        )
    if len(ways.shards_sha256) != 1:
        raise SystemExit(f"the outputs differ: {sorted(ways.shards_sha256)}")
    _report(seconds, ways, arguments.shards, arguments.images)


def _warm_up(folder: Path) -> None:
    make_tars(folder / "warm-source", 100, 100)
    ways = _Ways(str(folder / "warm-source"), str(folder / "warm-output"))
    ways.beam()


def _report(seconds: dict[str, list[float]], ways: _Ways, shards: int, images: int) -> None:
    loop = seconds["plain loop"]
    loop_cpu, beam_cpu = ways.cpu_s["plain loop"], ways.cpu_s["Beam, in memory"]
    rows = [
        Row(name="plain loop", seconds=loop),
        Row(name="Beam, in memory", seconds=seconds["Beam, in memory"], against=loop, goal=_GOAL),
        Row(name="Beam, 2 processes", seconds=seconds["Beam, 2 processes"], against=loop, note="Beam's import in each"),
        Row(name="plain loop: CPU", seconds=loop_cpu),
        Row(name="Beam, in memory: CPU", seconds=beam_cpu, against=loop_cpu, goal=_GOAL),
    ]
    total = sum(ways.stage_s.values())
    stages = {stage: round(s / total, 3) for stage, s in sorted(ways.stage_s.items(), key=lambda pair: -pair[1])}
    images_per_s = round(shards * images / min(seconds["Beam, in memory"]), 1)
    extra = {"images": shards * images, "best_images_per_s": images_per_s, "share_of_time_by_stage": stages}
    report(f"Beam's cost: {shards} shards of {images} images, manual + rule", rows, extra)


if __name__ == "__main__":
    main()
