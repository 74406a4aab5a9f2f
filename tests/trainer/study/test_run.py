"""Studies through the real command: what is there is kept, what is missing is run, whatever happened before."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fineclip
from tests.trainer.runs import write_data

OURS = '''
from trainer.study.cell import OUT, Cell, Metric, Step, Study

def shares(ground):
    """Filter lists that leave a share of the data."""
    cells = []
    for percent in range(10, 100, 10):
        given = ("study", "subset", *ground.train_data, "--share", str(percent / 100), "--out", OUT)
        step = Step(kind="subset", arguments=given, suffix=".jsonl")
        cells.append(Cell(row=f"{percent} %", seed=None, steps=(step,)))
    return Study(title="Shares", cells=cells, metrics=[Metric(name="cost.subset.cpu_s", title="cost", unit="s")])
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path / "data")
    (tmp_path / "ours.py").write_text(OURS)
    return tmp_path


def arguments(folder: Path, function: str = "shares") -> list[str]:
    return ["study", f"{folder / 'ours.py'}:{function}", "--data", str(folder / "data"), "--out", str(folder / "out")]


def started(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, fineclip.__file__, *arguments(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def cells(folder: Path) -> dict[str, int]:
    """Return when each finished cell was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "out/cells").glob("*.json")}


def commands_run(folder: Path) -> int:
    logs = (folder / "out/work/logs").glob("*.log")
    return sum(line.startswith("$ fineclip") for log in logs for line in log.read_text().splitlines())


def wait_for(number: int, folder: Path) -> None:
    deadline = time.monotonic() + 100
    while len(cells(folder)) < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_after_a_kill_only_what_was_missing_is_run(folder, capfd):
    study = started(folder)
    wait_for(2, folder)
    study.kill()
    study.communicate()
    kept = cells(folder)
    assert 2 <= len(kept) < 9
    while True:  # the command that the killed study left behind may be at work yet
        code = fineclip.main(arguments(folder))
        if code != 3:
            break
        assert "a killed one left behind" in capfd.readouterr().err
        time.sleep(0.1)
    assert code == 0
    assert len(cells(folder)) == 9
    assert {name: cells(folder)[name] for name in kept} == kept
    # The one that was cut may have run twice, no other.
    assert commands_run(folder) in (9, 10)
    assert "9 of 9 cells are there" not in capfd.readouterr().err
    assert fineclip.main(arguments(folder)) == 0
    assert "9 of 9 cells are there" in capfd.readouterr().err
    assert commands_run(folder) in (9, 10)


def test_a_signal_ends_the_command_too_and_the_table_of_what_is_there_is_written(folder):
    study = started(folder)
    wait_for(1, folder)
    study.send_signal(signal.SIGTERM)
    _, said = study.communicate(timeout=60)
    assert study.returncode == 4, said
    assert " of 9 cells; the table is " in said.decode()
    assert "| 10 % |" in (folder / "out/shares.md").read_text()
    assert fineclip.main(arguments(folder)) == 0


def test_cells_say_what_was_run_and_what_it_cost(folder):
    assert fineclip.main(arguments(folder)) == 0
    cell = json.loads(next((folder / "out/cells").glob("10-*.json")).read_text())
    (step,) = cell["steps"]
    assert step["command"][:3] == ["fineclip", "study", "subset"]
    assert step["attempts"] == 1 and step["cpu_s"] > 0 and step["peak_memory_mb"] > 10
    assert cell["machine"]["cores"] >= 1
    assert str(folder) not in json.dumps(cell), "a path of this machine"


def test_work_that_was_deleted_is_not_made_again_for_cells_that_are_there(folder):
    assert fineclip.main(arguments(folder)) == 0
    for file in (folder / "out/work/subset").iterdir():
        file.unlink()
    assert fineclip.main(arguments(folder)) == 0
    assert not list((folder / "out/work/subset").iterdir())


def test_a_cell_that_another_study_has_run_is_not_run_again(folder, capfd):
    assert fineclip.main(arguments(folder)) == 0
    for file in (folder / "out/work/subset").iterdir():
        file.unlink()
    (folder / "ours.py").write_text(
        OURS.replace("{percent} %", "so many: {percent}").replace("def shares", "def others")
    )
    assert fineclip.main(arguments(folder, "others")) == 0
    assert commands_run(folder) == len(cells(folder)) == 9
    assert "| so many: 10 |" in (folder / "out/others.md").read_text()


def test_a_failed_cell_is_named_and_the_others_go_on(folder, capfd):
    (folder / "ours.py").write_text(OURS.replace("range(10, 100, 10)", "(0, 50)"))
    assert fineclip.main(arguments(folder)) == 1
    said = " ".join(capfd.readouterr().err.split())
    assert "0 %: `fineclip subset` ended with exit code 2" in said and "give a number above 0" in said
    assert len(cells(folder)) == 1
    table = (folder / "out/shares.md").read_text()
    assert "| 0 % | - | not run of 1 |" in table


def test_two_studies_do_not_work_in_one_folder(folder, capfd):
    study = started(folder)
    wait_for(1, folder)
    os.kill(study.pid, signal.SIGSTOP)
    try:
        assert fineclip.main(arguments(folder)) == 3
        assert "another study is at work here" in capfd.readouterr().err
    finally:
        os.kill(study.pid, signal.SIGCONT)
        study.kill()
        study.communicate()


def test_a_study_that_is_not_there_is_wrong_usage(folder, capfd):
    assert fineclip.main(arguments(folder, "nothing")) == 2
    assert "has no function 'nothing'" in capfd.readouterr().err
    assert fineclip.main(["study", "method", "--data", "scenes", "--out", str(folder / "out")]) == 2
    assert "there is no study 'method'; there are methods, losses" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def shares(ground):\n    return 1 / 0\n", "ours.py, line 2: ZeroDivisionError: division by zero"),
        ("def shares(ground:\n", "ours.py, line 1: SyntaxError"),
        ("import nothing_of_this_name\n", "ours.py, line 1: ModuleNotFoundError: No module named"),
        (
            "def shares(ground):\n    return None\n",
            "ours.py:shares: it returns NoneType, not a trainer.study.cell.Study",
        ),
        (OURS.replace("cells=cells", "cells=[]"), "ours.py:shares: it has no cell"),
        (
            OURS.replace("Metric,", "Contrast, Metric,").replace(
                "cells=cells", 'cells=cells, contrasts=[Contrast(row="10 %", against="15 %", metric="cost")]'
            ),
            "a contrast names the row '15 %'; there are 10 %",
        ),
        (
            OURS.replace("Metric,", "Contrast, Metric,").replace(
                "cells=cells", 'cells=cells, contrasts=[Contrast(row="10 %", against="20 %", metric="price")]'
            ),
            "a contrast names the metric 'price'; there are cost",
        ),
    ],
)
def test_an_error_in_a_study_of_ones_own_is_told_before_anything_runs(folder, capfd, source, said):
    (folder / "ours.py").write_text(source)
    assert fineclip.main(arguments(folder)) == 2
    assert said in capfd.readouterr().err
    assert not cells(folder)


def test_wrong_data_and_recipes_are_told_before_anything_runs(folder, capfd):
    given = arguments(folder)
    assert fineclip.main([*given[:3], str(folder / "nowhere"), *given[4:]]) == 2
    assert "nowhere" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        fineclip.main([*given, "--recipe", "vitb17"])
    assert "there is no such recipe; there are" in capfd.readouterr().err
    assert not cells(folder)


def test_a_cell_that_is_no_json_is_named(folder, capfd):
    assert fineclip.main(arguments(folder)) == 0
    spoilt = next((folder / "out/cells").glob("10-*.json"))
    spoilt.write_text("{")
    capfd.readouterr()
    assert fineclip.main(arguments(folder)) == 2
    said = capfd.readouterr().err
    assert spoilt.name in said and "take the file away" in said
