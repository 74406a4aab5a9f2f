import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders import digests, write_tars
from tests.faults import jobs
from tests.faults.fault_points import Control


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tars, for three shards."""
    return write_tars(tmp_path_factory.mktemp("source"), num_tars=3, num_images=12)


@pytest.fixture(scope="session")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every file of a data set made from `source` without a disturbance, by sha256."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    ended = jobs.run(source, output)
    assert ended.code == 0, ended.text
    return digests(output)


@pytest.fixture
def control(tmp_path: Path) -> Control:
    """How the test talks to processes that it holds or stops."""
    folder = tmp_path / "control"
    folder.mkdir()
    return Control(folder)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An OUTPUT that does not exist yet."""
    return tmp_path / "out"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`jobs.start`, for jobs that must not outlive the test when it fails."""
    started: list[subprocess.Popen[str]] = []

    def start_one(*arguments: Any, **named: Any) -> subprocess.Popen[str]:
        started.append(jobs.start(*arguments, **named))
        return started[-1]

    yield start_one
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout is not None and not process.stdout.closed:
            process.communicate()
