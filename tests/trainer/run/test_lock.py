"""Two trainings do not work in one folder, and a dead one holds nothing."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from trainer.errors import RefusedError
from trainer.run.lock import held


def _hold(out: Path) -> None:
    with held(out):
        (out / "holding").touch()
        time.sleep(60)


def test_a_folder_is_held_by_one_training_and_by_no_dead_one(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path,))
    process.start()
    while not (tmp_path / "holding").exists():
        assert process.is_alive()
        time.sleep(0.01)
    with pytest.raises(RefusedError, match="another training is at work there"), held(tmp_path):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with held(tmp_path):
        pass


def test_within_a_process_too_and_whatever_else_is_closed(tmp_path):
    with held(tmp_path):
        (tmp_path / "lock").open("a").close()
        with pytest.raises(RefusedError, match="another training is at work there"), held(tmp_path):
            pass


def _check_no_lock(out: Path) -> None:
    files = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert out / "lock" not in files


def test_a_worker_that_outlives_its_run_holds_nothing(tmp_path):
    with held(tmp_path):
        worker = multiprocessing.get_context("fork").Process(target=_check_no_lock, args=(tmp_path,))
        worker.start()
        worker.join(30)
    assert worker.exitcode == 0
