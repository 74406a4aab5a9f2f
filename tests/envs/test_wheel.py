"""The wheel in clean environments: light commands need neither torch nor Beam."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.builders import CHEAP, run, write_photos

pytestmark = pytest.mark.envs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four photographs."""
    folder = tmp_path_factory.mktemp("data")
    assert run("annotate", write_photos(folder / "photos", 4), folder / "out", *CHEAP).code == 0
    return folder / "out"


@pytest.fixture(scope="module")
def plain(environment: Callable[..., Path]) -> Path:
    return environment("")


@pytest.fixture(scope="module")
def viewer(environment: Callable[..., Path]) -> Path:
    return environment("[viewer]")


def ask(commands: Path, tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [commands / "fineclip", *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )


def test_a_plain_installation_counts(plain: Path, data: Path, tmp_path: Path) -> None:
    assert ask(plain, tmp_path, "--version").stdout.startswith("fineclip 0.")
    counted = ask(plain, tmp_path, "status", data)
    assert counted.returncode == 0, counted.stderr
    assert "complete" in counted.stdout
    assert ask(plain, tmp_path, "doctor", data).stdout.startswith("healthy: 1 shard")


@pytest.mark.parametrize(
    ("command", "extra"),
    [("annotate", "pipeline"), ("train --recipe mini --out RUN", "trainer"), ("view", "viewer")],
)
def test_a_missing_extra_is_named_once(plain: Path, data: Path, tmp_path: Path, command: str, extra: str) -> None:
    ended = ask(plain, tmp_path, *command.split(), data)
    assert ended.returncode == 2
    assert f"pip install 'fineclip-regions[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [("doctor",), ("sheet", "sheet.html"), ("view", "--help")])
def test_the_viewer_s_extra_is_enough_to_look(
    viewer: Path, data: Path, tmp_path: Path, arguments: Sequence[str]
) -> None:
    ended = ask(viewer, tmp_path, arguments[0], data, *arguments[1:])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    installed = subprocess.run([viewer / "python", "-m", "pip", "list"], capture_output=True, text=True).stdout
    assert "torch" not in installed and "apache-beam" not in installed
