"""Training on two nodes of a real Slurm by examples/slurm: stopped, requeued, and gone on with to the same weights."""

import os
from pathlib import Path

import pytest
import torch

from tests.engines.services import MARK
from tests.engines.slurm import run, wait
from tests.faults import jobs
from tests.trainer.runs import write_data
from trainer.run.checkpoints import load_checkpoint

_SBATCH = Path(__file__).parents[2] / "examples" / "slurm" / "train.sbatch"
_SMALL = ("--recipe", "mini", "--image-size", "32", "--crop-size", "16", "--global-batch-size", "8", "--epochs", "8")
_ON_CPUS = ("--device", "cpu", "--workers", "0", "--threads", "1", "--log-every", "1")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two shards."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_data(folder, (18, 14))
    return folder


def submit(folder: Path, data: Path, out: Path) -> str:
    """Submit the project's own script, without the GPUs and CPUs that this cluster has not; return the job's id."""
    script = folder / "train.sbatch"
    lines = _SBATCH.read_text().splitlines()
    script.write_text("\n".join(line for line in lines if "gpus-per" not in line and "cpus-per" not in line) + "\n")
    return run(
        "sbatch", "--parsable", "--nodes=2", "--cpus-per-task=1", f"--output={folder}/{out.name}.log",
        f"--chdir={folder}", f"--export=ALL,{MARK}={os.environ[MARK]},GLOO_SOCKET_IFNAME=lo,HEAD=127.0.0.1",
        str(script), str(data), str(out), *_SMALL, *_ON_CPUS,
    ).strip()  # fmt: skip


@pytest.mark.survives("Slurm, training on 2 nodes", "TERM to the steps: requeued, the same weights")
def test_a_training_that_is_told_to_stop_is_requeued_and_ends_with_the_same_weights(
    slurm: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TERM to the steps, as before a time limit: a checkpoint is written, and the script puts the job back."""
    monkeypatch.setenv("PATH", f"{jobs.FINECLIP.parent}{os.pathsep}{os.environ['PATH']}")
    outs = tmp_path / "undisturbed", tmp_path / "disturbed"
    for out in outs:
        job = submit(slurm, data, out)
        if out.name == "disturbed":
            wait(lambda: _num_steps(outs[1]) >= 3, slurm)
            run("scancel", "--signal=TERM", f"{job}.0")  # the one step, of both nodes
        wait(lambda: not run("squeue", "-h").strip(), slurm)
        told = (slurm / f"{out.name}.log").read_text()
        assert "Done: " in told, told
        assert ("goes on from there" in told) == (out.name == "disturbed"), told
    one, two = (load_checkpoint(out / "last.pt") for out in outs)
    assert one.step == two.step == 32
    for name, weight in one.model.items():
        assert torch.equal(weight, two.model[name]), name


def _num_steps(out: Path) -> int:
    log = out / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0
