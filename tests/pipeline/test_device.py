"""One GPU a worker process. There is none here: the number of GPUs is feigned, the lock files are real."""

import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from pipeline import device
from pipeline.device import Device, DeviceError, leased_gpu


def _lease(count: int, folder: str, answer: Connection, end: Event) -> None:
    """Lease one of `count` GPUs, answer which, and hold it until `end`."""
    device.num_gpus = lambda: count
    device.tempfile.tempdir = folder
    try:
        answer.send(leased_gpu())
    except DeviceError as error:
        answer.send(str(error))
    end.wait(30)


def _leases(processes: int, count: int, folder: Path) -> list[int | str]:
    context = multiprocessing.get_context("spawn")
    end = context.Event()
    answers, started = [], []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        process = context.Process(target=_lease, args=(count, str(folder), theirs, end))
        process.start()
        started.append(process)
        answers.append(ours.recv())
    end.set()
    for process in started:
        process.join()
    return answers


def test_each_process_leases_a_gpu_of_its_own_and_gives_it_back_at_its_end(tmp_path: Path):
    first, second, third = _leases(3, 2, tmp_path)
    assert {first, second} == {0, 1}
    assert str(third).startswith("all 2 GPUs of this machine are held")
    assert _leases(1, 2, tmp_path) == [0]


def test_a_gpu_has_the_same_name_whoever_may_see_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-abc")
    assert device._gpu_names(2) == ["3", "GPU-abc"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert device._gpu_names(2) == ["0", "1"]


def test_a_missing_cuda_device_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert Device(name="auto").resolve() == "cpu"
    with pytest.raises(DeviceError, match=r"--device cuda: torch finds no CUDA device here; give --device cpu"):
        Device(name="cuda").resolve()
