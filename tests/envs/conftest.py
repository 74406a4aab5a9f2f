"""Environments beside the main one, each made anew: what a user has who installs the wheel."""

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
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], check=True
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
