"""A real Slurm of two nodes on this machine, and the array of examples/slurm in it: drained, and requeued."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builders import digests
from tests.engines.conftest import NUM_UNITS, Gate
from tests.engines.services import MARK, free_port
from tests.faults import jobs

_SBATCH = Path(__file__).parents[2] / "examples" / "slurm" / "annotate.sbatch"
_PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def programs() -> None:
    """Slurm's programs, installed from Debian where that is possible and CI does not forbid it."""
    if shutil.which("slurmctld") and shutil.which("munged"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get") or os.environ.get("FINECLIP_INSTALL") == "0":
        pytest.skip(f"NOT TESTED: Slurm. As root on Debian it is installed; else install {', '.join(_PACKAGES)}")
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *_PACKAGES]
    subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, check=True, capture_output=True)


_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
KillWait=10
JobRequeue=1
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdSpoolDir={folder}/spool.%n
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={port0} CPUs=1 RealMemory=1000
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs=1 RealMemory=1000
PartitionName=main Nodes=n0,n1 Default=YES MaxTime=INFINITE
"""


@pytest.fixture
def slurm(programs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A controller and two nodes, and the folder in which they keep their files."""
    del programs
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: Slurm, whose daemons are started as root")
    folder = tmp_path / "slurm"
    for name in ("state", "spool.n0", "spool.n1"):
        (folder / name).mkdir(parents=True)
    os.chmod(folder, 0o755)  # noqa: PTH101
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    ports = dict(zip(("port", "port0", "port1"), (free_port() for _ in range(3)), strict=True))
    configuration.write_text(_CONFIGURATION.format(host=socket.gethostname(), folder=folder, **ports))
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    munge = {name: f"{folder}/munge.{name}" for name in ("socket", "pid", "log", "seed")}
    try:
        _run(
            "munged", "--force", f"--key-file={key}", f"--socket={munge['socket']}", f"--pid-file={munge['pid']}",
            f"--log-file={munge['log']}", f"--seed-file={munge['seed']}",
        )  # fmt: skip
        _run("slurmctld", "-c", "-f", str(configuration))
        for node in ("n0", "n1"):
            _run("slurmd", "-N", node, "-f", str(configuration))
        _wait(lambda: _run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2", folder)
        yield folder
    finally:
        for name in ("slurmd.n0", "slurmd.n1", "slurmctld", "munge"):
            _end(folder / f"{name}.pid")


def _run(*command: str) -> str:
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}"
    return done.stdout


def _end(pid_file: Path) -> None:
    """End the daemon that a file names, and wait for its end."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    os.kill(pid, signal.SIGTERM)
    jobs.wait_until(lambda: not jobs.is_alive(pid))


def _wait(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))
        assert time.monotonic() < deadline, f"waited in vain:\n{logs}"
        time.sleep(0.5)


def _submit(source: Path, output: Path, folder: Path, *options: str) -> None:
    """Submit the project's own script, without the GPUs and CPUs that this cluster has not."""
    script = folder / "annotate.sbatch"
    lines = _SBATCH.read_text().splitlines()
    script.write_text("\n".join(line for line in lines if "gpus" not in line and "cpus" not in line) + "\n")
    _run(
        "sbatch", "--cpus-per-task=1", f"--output={folder}/task-%A_%a.log", f"--chdir={folder}", *options,
        f"--export=ALL,{MARK}={os.environ[MARK]}", str(script), str(source), str(output), *jobs.BACKENDS,
    )  # fmt: skip


def _is_over() -> bool:
    return not _run("squeue", "-h").strip()


@pytest.fixture(autouse=True)
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fineclip` is on PATH."""
    monkeypatch.setenv("PATH", f"{jobs.FINECLIP.parent}{os.pathsep}{os.environ['PATH']}")


def test_an_array_and_a_second_one_of_another_size(
    slurm: Path, source: Path, output: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (slurm / "weights").mkdir()
    (slurm / "weights" / "model.bin").write_bytes(b"weights")
    monkeypatch.setenv("WEIGHTS", str(slurm / "weights"))
    monkeypatch.setenv("LOCAL_DISK", str(slurm))
    _submit(source, output, slurm, "--array=0-1")
    _submit(source, output, slurm, "--array=0-2")
    _wait(_is_over, slurm)
    assert digests(output) == undisturbed
    assert (slurm / f"fineclip-weights-{os.geteuid()}" / "model.bin").read_bytes() == b"weights"


def test_tasks_are_drained_and_requeued(
    slurm: Path, source: Path, output: Path, undisturbed: dict[str, str], gate: Gate
) -> None:
    """TERM to the steps, as before a time limit; each ends with 4 and is put back into the queue by the script."""
    gate.open_for(0)
    _submit(source, output, slurm, "--array=0-1")
    _wait(lambda: len([*output.glob("train-*.json")]) > 3, slurm)
    steps = _run("squeue", "-h", "-s", "-o", "%i").split()
    for step in steps:
        if not step.endswith(("batch", "extern")):
            _run("scancel", "--signal=TERM", step)
    _wait(lambda: "Interrupted" in "".join(path.read_text() for path in slurm.glob("task-*.log")), slurm)
    _wait(_is_over, slurm)
    logs = "".join(path.read_text() for path in slurm.glob("task-*.log"))
    assert "Interrupted: the shards in hand were finished" in logs
    assert digests(output) == undisturbed
    assert len([*output.glob("train-*.json")]) == NUM_UNITS
