"""A real Slurm of two nodes on this machine, and the array of examples/slurm in it: drained, and requeued."""

import os
from pathlib import Path

import pytest

from tests.builders import digests
from tests.engines.conftest import Gate
from tests.engines.services import MARK, NUM_UNITS
from tests.engines.slurm import run, wait
from tests.engines.table import Table
from tests.faults import jobs

_SBATCH = Path(__file__).parents[2] / "examples" / "slurm" / "annotate.sbatch"
pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]


def _submit(source: Path, output: Path, folder: Path, *options: str) -> None:
    """Submit the project's own script, without the GPUs and CPUs that this cluster has not."""
    script = folder / "annotate.sbatch"
    lines = _SBATCH.read_text().splitlines()
    script.write_text("\n".join(line for line in lines if "gpus" not in line and "cpus" not in line) + "\n")
    run(
        "sbatch", "--cpus-per-task=1", f"--output={folder}/task-%A_%a.log", f"--chdir={folder}", *options,
        f"--export=ALL,{MARK}={os.environ[MARK]}", str(script), str(source), str(output), *jobs.BACKENDS,
    )  # fmt: skip


def _is_over() -> bool:
    return not run("squeue", "-h").strip()


@pytest.fixture(autouse=True)
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fineclip` is on PATH."""
    monkeypatch.setenv("PATH", f"{jobs.FINECLIP.parent}{os.pathsep}{os.environ['PATH']}")


def test_an_array_and_a_second_one_of_another_size(
    slurm: Path,
    source: Path,
    output: Path,
    undisturbed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    gate: Gate,
    table: Table,
) -> None:
    (slurm / "weights").mkdir()
    (slurm / "weights" / "model.bin").write_bytes(b"weights")
    monkeypatch.setenv("WEIGHTS", str(slurm / "weights"))
    monkeypatch.setenv("LOCAL_DISK", str(slurm))
    with table.measure("Slurm, an array on 2 nodes", output):
        _submit(source, output, slurm, "--array=0-1")
        _submit(source, output, slurm, "--array=0-2")
        gate.open_for(2)
        wait(_is_over, slurm)
    assert len([*output.glob("train-*.json")]) == NUM_UNITS
    assert digests(output) == undisturbed
    assert (slurm / f"fineclip-weights-{os.geteuid()}" / "model.bin").read_bytes() == b"weights"


@pytest.mark.survives("Slurm, an array on 2 nodes", "TERM to the steps: drained, requeued")
def test_tasks_are_drained_and_requeued(
    slurm: Path, source: Path, output: Path, undisturbed: dict[str, str], gate: Gate
) -> None:
    """TERM to the steps, as before a time limit; each ends with 4 and is put back into the queue by the script."""
    gate.open_for(0)
    _submit(source, output, slurm, "--array=0-1")
    wait(lambda: len([*output.glob("train-*.json")]) > 3, slurm)
    steps = run("squeue", "-h", "-s", "-o", "%i").split()
    for step in steps:
        if not step.endswith(("batch", "extern")):
            run("scancel", "--signal=TERM", step)
    wait(lambda: "Interrupted" in "".join(path.read_text() for path in slurm.glob("task-*.log")), slurm)
    wait(_is_over, slurm)
    logs = "".join(path.read_text() for path in slurm.glob("task-*.log"))
    assert "Interrupted: the shards in hand were finished" in logs
    assert digests(output) == undisturbed
    assert len([*output.glob("train-*.json")]) == NUM_UNITS
