"""Where the minis that ship lie, and the files beside their weights. Needs no torch."""

from pathlib import Path

MINIS = ("detector", "captioner", "clip")
_CHECKPOINTS = Path(__file__).with_name("checkpoints")

CARD = "README.md"
RECIPE = "recipe.json"
FIGURES = "figures.json"
REPEATS = "repeats.json"
"""Figures of the same recipe with other seeds, by seed."""


class MiniError(ValueError):
    """A mini is unknown or not installed; the message says what there is."""

    exit_code = 2


def mini_folder(name: str) -> Path:
    """Return the folder of a shipped mini (`detector`, `captioner` or `clip`). Raises MiniError."""
    if name not in MINIS:
        raise MiniError(f"no mini is called {name!r}; there are {', '.join(MINIS)}")
    folder = _CHECKPOINTS / name
    if not (folder / CARD).is_file():
        raise MiniError(f"{folder} has no {CARD}: train the mini with `fineclip train-mini {name}`")
    return folder
