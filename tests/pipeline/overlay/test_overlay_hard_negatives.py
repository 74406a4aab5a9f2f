"""The command `hard-negatives`, where it is refused: what it makes is tested where it is trained with."""

from pathlib import Path

from tests.builders import run


def test_a_refused_command_leaves_no_folder(tmp_path: Path) -> None:
    outcome = run("hard-negatives", tmp_path / "new" / "data", "--as", "wrong")
    assert outcome.code == 2
    assert "no such folder" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_flag_that_is_none_is_told_with_what_was_meant(tmp_path: Path) -> None:
    outcome = run("hard-negatives", tmp_path, "--as", "wrong", "--per-regoin", "3")
    assert outcome.code == 2
    assert "did you mean --per-region?" in outcome.err
