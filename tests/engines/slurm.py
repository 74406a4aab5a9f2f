"""A real Slurm of two nodes on this machine: Debian's, started without systemd."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engines.services import free_port
from tests.faults import jobs

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")


def install() -> None:
    """Have Slurm's programs, installed from Debian where that is possible and CI does not forbid it."""
    if shutil.which("slurmctld") and shutil.which("munged"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get") or os.environ.get("FINECLIP_INSTALL") == "0":
        pytest.skip(f"NOT TESTED: Slurm. As root on Debian it is installed; else install {', '.join(PACKAGES)}")
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES]
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


@contextlib.contextmanager
def cluster(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a controller and two nodes, which keep their files in `folder`."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: Slurm, whose daemons are started as root")
    for name in ("state", "spool.n0", "spool.n1"):
        (folder / name).mkdir(parents=True)
    os.chmod(folder, 0o755)  # noqa: PTH101
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    ports = dict(zip(("port", "port0", "port1"), (free_port() for _ in range(3)), strict=True))
    configuration.write_text(_CONFIGURATION.format(host=socket.gethostname(), folder=folder, **ports))
    patch.setenv("SLURM_CONF", str(configuration))
    munge = {name: f"{folder}/munge.{name}" for name in ("socket", "pid", "log", "seed")}
    try:
        run(
            "munged", "--force", f"--key-file={key}", f"--socket={munge['socket']}", f"--pid-file={munge['pid']}",
            f"--log-file={munge['log']}", f"--seed-file={munge['seed']}",
        )  # fmt: skip
        run("slurmctld", "-c", "-f", str(configuration))
        for node in ("n0", "n1"):
            run("slurmd", "-N", node, "-f", str(configuration))
        wait(lambda: run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2", folder)
        yield
    finally:
        subprocess.run(["scancel", "--full", "--user=root"], capture_output=True)  # of a test that has failed
        for name in ("slurmd.n0", "slurmd.n1", "slurmctld", "munge"):
            _end(folder / f"{name}.pid")


def run(*command: str) -> str:
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


def wait(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))
        assert time.monotonic() < deadline, f"waited in vain:\n{logs}"
        time.sleep(0.5)
