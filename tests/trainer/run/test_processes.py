"""What launchers leave in the environment, and what becomes of worker processes."""

import pytest

from trainer.errors import StoppedError, TrainingError
from trainer.run.processes import joined_processes


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"LOCAL_RANK": "0"}, "has LOCAL_RANK without RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "4", "RANK": "1"}, "has RANK, WORLD_SIZE without LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
    ],
)
def test_a_launcher_s_variables_in_part_are_told(variables, told, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=told), joined_processes("cpu"):
        pass


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1"}, {"LOCAL_RANK": "-1"}])
def test_one_process_needs_none_of_them(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with joined_processes("cpu") as device:
        assert device.type == "cpu"


def test_other_errors_of_torch_stay_what_they_are():
    with pytest.raises(RuntimeError, match=r"^a shape$"), joined_processes("cpu"):
        raise RuntimeError("a shape")
    with pytest.raises(StoppedError, match=r"exited unexpectedly. Most often .*--workers"), joined_processes("cpu"):
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
