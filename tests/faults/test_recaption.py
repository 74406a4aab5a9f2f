"""Killed at any moment or shared by two drivers, `recaption` and `materialize` end with the same files."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.builders import digests
from tests.faults import jobs
from tests.faults.fault_points import Fault

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

_SHARD = "train-000001.wide"
_DECISION = r"_commit/wide/train-000001\.[0-9a-f]{16}\.json"


def _fault(when: str, operation: str, target: str) -> Fault:
    return Fault(operation=operation, target=target, when=when)  # type: ignore[arg-type]


POINTS = {
    "before the plan": _fault("before", "decide", r"_overlays/wide/plan\.json"),
    "after the plan": _fault("after", "decide", r"_overlays/wide/plan\.json"),
    "lease taken": _fault("after", "decide", r"_leases/wide/train-000001\.json"),
    "table finished": _fault("after", "finish", rf"{_SHARD}\.parquet\.[0-9a-z-]+"),
    "table settled": _fault("after", "settle", rf"_attempts/{_SHARD}\.parquet\.[0-9a-f]{{16}}"),
    "before the decision": _fault("before", "create", _DECISION),
    "after the decision": _fault("after", "create", _DECISION),
    "before the table is published": _fault("before", "publish", rf"{_SHARD}\.parquet"),
    "after the table is published": _fault("after", "publish", rf"{_SHARD}\.parquet"),
    "after the marker is published": _fault("after", "decide", rf"{_SHARD}\.json"),
    "before attempts are removed": _fault("before", "remove_folder", "_attempts"),
}
SEEDS = range(20)
"""Of times: even ones from the start of the job, odd ones from its first lease, while captions are written."""


def recaption(data: Path, *flags: str, fault: Fault | None = None) -> subprocess.Popen[str]:
    own = ("--as", "wide", "--captioner", "rule", "--caption.view", "context")
    return jobs.launch("recaption", data, *own, *flags, fault=fault)


def finished(process: subprocess.Popen[str]) -> None:
    ended = jobs.finish(process)
    assert ended.code == 0, ended.text


@pytest.fixture(scope="module")
def annotated(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("annotated") / "data"
    finished(jobs.start(source, data))
    return data


@pytest.fixture(scope="module")
def undisturbed_overlay(annotated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """The files of DATA with its overlay, and how many seconds the job took from its first lease on."""
    data = tmp_path_factory.mktemp("undisturbed_overlay") / "data"
    shutil.copytree(annotated, data)
    process = recaption(data)
    jobs.wait_until(lambda: (data / "_leases").exists(), process)
    leased = time.monotonic()
    finished(process)
    return digests(data), time.monotonic() - leased


@pytest.fixture
def data(annotated: Path, tmp_path: Path) -> Path:
    shutil.copytree(annotated, tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("moment", POINTS)
def test_kill_at_a_point(moment: str, data: Path, undisturbed_overlay: tuple[dict[str, str], float]) -> None:
    assert jobs.finish(recaption(data, fault=POINTS[moment])).code == -signal.SIGKILL, "the point was never reached"
    finished(recaption(data))
    assert digests(data) == undisturbed_overlay[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_kill_at_a_time(seed: int, data: Path, undisturbed_overlay: tuple[dict[str, str], float]) -> None:
    files, duration = undisturbed_overlay
    share = (seed + random.Random(seed).random()) / len(SEEDS)
    process = recaption(data)
    if seed % 2:
        jobs.wait_until(lambda: (data / "_leases").exists() or process.poll() is not None)
    time.sleep(share * duration)
    process.send_signal(signal.SIGKILL)
    jobs.finish(process)
    finished(recaption(data))
    assert digests(data) == files


@pytest.mark.parametrize("flags", [(), ("--workers", "2")])
def test_two_drivers_at_once(
    data: Path, undisturbed_overlay: tuple[dict[str, str], float], flags: tuple[str, ...]
) -> None:
    for process in [recaption(data, *flags) for _ in range(2)]:
        finished(process)
    assert digests(data) == undisturbed_overlay[0]


def test_a_drained_job_goes_on(data: Path, undisturbed_overlay: tuple[dict[str, str], float]) -> None:
    process = recaption(data)
    jobs.wait_until(lambda: jobs.catches(process, signal.SIGTERM), process)
    process.send_signal(signal.SIGTERM)
    assert jobs.finish(process).code in (0, 4)
    finished(recaption(data))
    assert digests(data) == undisturbed_overlay[0]


def materialize(data: Path, output: Path, fault: Fault | None = None) -> subprocess.Popen[str]:
    return jobs.launch("materialize", data, output, "--overlay", "wide", fault=fault)


@pytest.fixture(scope="module")
def overlaid(annotated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """DATA with its overlay, and the files of an undisturbed `materialize` of it."""
    folder = tmp_path_factory.mktemp("overlaid")
    shutil.copytree(annotated, folder / "data")
    finished(recaption(folder / "data"))
    finished(materialize(folder / "data", folder / "out"))
    return folder / "data", digests(folder / "out")


MATERIALIZE_POINTS = {
    "plan decided": _fault("after", "create", r"_commit/plan\.json"),
    "tar half written": _fault("before", "write", r"train-000001\.tar\.[0-9a-z-]+"),
    "shard decided": _fault("after", "create", r"_commit/train-000001\.json"),
    "tar published": _fault("after", "publish", r"train-000001\.tar"),
    "before dataset.json": _fault("before", "replace", r"dataset\.json"),
}


@pytest.mark.parametrize("moment", MATERIALIZE_POINTS)
def test_materialize_killed_at_a_point(moment: str, overlaid: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    data, files = overlaid
    killed = jobs.finish(materialize(data, tmp_path / "out", MATERIALIZE_POINTS[moment]))
    assert killed.code == -signal.SIGKILL, "the point was never reached"
    finished(materialize(data, tmp_path / "out"))
    assert digests(tmp_path / "out") == files


def test_two_drivers_materialize_at_once(overlaid: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    data, files = overlaid
    for process in [materialize(data, tmp_path / "out") for _ in range(2)]:
        finished(process)
    assert digests(tmp_path / "out") == files
