"""What killed attempts leave is swept; what live ones write is not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.store import scratch
from pipeline.store.scratch import scratch_token, sweep_scratch

_PRINT_TOKEN = "from pipeline.store.scratch import scratch_token; print(scratch_token())"


def token_of_a_dead_process() -> str:
    run = subprocess.run([sys.executable, "-c", _PRINT_TOKEN], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def put(folder: Path, name: str, age_s: float = 0) -> None:
    path = folder / name
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age_s,) * 2)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_tokens_differ_and_hold_no_dot() -> None:
    first, second = scratch_token(), scratch_token()
    assert first != second
    assert "." not in first


def test_files_of_a_process_that_is_gone_are_swept(tmp_path: Path) -> None:
    mine = f"train-000001.tar.{scratch_token()}"
    put(tmp_path, mine, age_s=1e6)
    put(tmp_path, f"train-000001.tar.{token_of_a_dead_process()}")
    put(tmp_path, f"small.{token_of_a_dead_process()}")
    sweep_scratch(tmp_path)
    assert names(tmp_path) == [mine], "however old, it is being written"


def test_settled_attempts_and_foreign_files_stay(tmp_path: Path) -> None:
    for name in ("train-000001.tar.0123456789abcdef", "notes.txt", "README"):
        put(tmp_path, name, age_s=1e6)
    sweep_scratch(tmp_path)
    assert len(names(tmp_path)) == 3


def test_files_of_another_host_are_judged_by_their_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(scratch, "host", lambda: "elsewhere")
        young, old = (f"train-000001.tar.{token_of_a_dead_process_there()}" for _ in range(2))
    put(tmp_path, young, age_s=3600)
    put(tmp_path, old, age_s=25 * 3600)
    sweep_scratch(tmp_path)
    assert names(tmp_path) == [young], "there may be such a process there"


def token_of_a_dead_process_there() -> str:
    host, _, start, end = scratch_token().split("-")
    return f"{host}-{2**22 + 1}-{start}-{end}"


def test_no_folder_is_no_error(tmp_path: Path) -> None:
    sweep_scratch(tmp_path / "none")
