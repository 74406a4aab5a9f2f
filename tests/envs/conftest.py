"""Environments beside the main one, each made anew: what a user has who installs the wheel."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():  # a copy: a build leaves files behind, which a later one would pack
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, folder / "source"],
        check=True,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make an environment with the wheel, some extras and other packages; returns its folder of commands."""

    def make(extras: str, *packages: str) -> Path:
        folder = tmp_path_factory.mktemp("env")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        commands = folder / "bin"
        subprocess.run(
            [commands / "python", "-m", "pip", "install", "--quiet", f"{wheel}{extras}", *packages], check=True
        )
        return commands

    return make
