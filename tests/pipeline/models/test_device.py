"""One GPU a worker process. There is none here: the GPUs are feigned, their leases are real."""

import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

import pytest
import torch

from pipeline.models import device
from pipeline.models.device import Device, DeviceError, leased_gpu, named_gpu, same_threads


def _lease(ids: list[str], name: str, answer: Connection, end: Event) -> None:
    """Lease the GPU called `name` of those with these ids, answer which, and hold it until `end`."""
    device.num_gpus = lambda: len(ids)
    device.gpu_id = lambda index: ids[index]
    try:
        answer.send(leased_gpu() if name == "cuda" else named_gpu(name))
    except DeviceError as error:
        answer.send(str(error))
    end.wait(30)


def _leases(ids: list[str], *names: str) -> list[int | str]:
    context = multiprocessing.get_context("spawn")
    end = context.Event()
    answers, started = [], []
    for name in names:
        ours, theirs = context.Pipe()
        process = context.Process(target=_lease, args=(ids, name, theirs, end))
        process.start()
        theirs.close()  # so that a process that dies ends the wait
        started.append(process)
        answers.append(ours.recv())
    end.set()
    for process in started:
        process.join()
    return answers


@pytest.fixture
def ids(request: pytest.FixtureRequest) -> list[str]:
    """Two GPUs that no other test has."""
    return [f"{request.node.name}-{index}" for index in range(2)]


def test_each_process_leases_a_gpu_of_its_own_and_gives_it_back_at_its_end(ids: list[str]):
    first, second, third = _leases(ids, "cuda", "cuda", "cuda")
    assert (first, second) == (0, 1)
    assert str(third).startswith("all 2 GPUs of this machine are held")
    assert _leases(ids, "cuda") == [0]


def test_a_gpu_that_somebody_named_is_passed_by(ids: list[str]):
    assert _leases(ids, "cuda:0", "cuda", "cuda:0") == [0, 1, 0]


def test_a_device_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert Device(name="auto").resolve() == "cpu"
    with pytest.raises(DeviceError, match=r"--device cuda: torch finds no CUDA device here; give --device cpu"):
        Device(name="cuda").resolve()
    monkeypatch.setattr("pipeline.models.device.num_gpus", lambda: 2)
    with pytest.raises(DeviceError, match=r"--device cuda:2: this machine has 2 CUDA devices"):
        named_gpu("cuda:2")


def test_what_libraries_do_to_the_threads_is_undone():
    before = torch.get_num_threads()
    with same_threads():
        torch.set_num_threads(before + 3)
    assert torch.get_num_threads() == before
