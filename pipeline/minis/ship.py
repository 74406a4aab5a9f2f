"""`fineclip train-mini`: train one mini, measure it, and lay it out as it is shipped.

RUN/resume.pt, curve.jsonl   while it trains; started again, it continues
RUN/checkpoint/              weights and configuration, recipe.json, figures.json, curve.jsonl, README.md
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.minis.cards import card
from pipeline.minis.evaluate import fresh_scenes, measure
from pipeline.minis.loop import CURVE, Recipe
from pipeline.models.minis import CARD, FIGURES, MINIS, RECIPE, REPEATS, MiniError
from pipeline.scenes.layout import VERSION

NUM_TEST_SCENES = 500
TEST_SEED = 1

_LIBRARIES = {
    "detector": ("torch", "libreyolo"),
    "captioner": ("torch", "transformers", "tokenizers"),
    "clip": ("torch", "open_clip_torch", "tokenizers"),
}


def train_mini(name: str, run: Path, *, seed: int = 0, steps: int | None = None) -> Path:
    """Train a mini in the folder `run`, measure it on test scenes, and return the folder to ship, `run/checkpoint`.

    Continues a run that was stopped. `steps` replaces the recipe's, for a quick look. Raises MiniError for an unknown
    name, and ResumeError where `run` holds an unfinished run of another recipe.
    """
    default, train = _training(name)
    recipe = dataclasses.replace(default, seed=seed, steps=default.steps if steps is None else steps)
    train(recipe, run)
    checkpoint = run / "checkpoint"
    shutil.copyfile(run / CURVE, checkpoint / CURVE)
    describe(name, recipe, checkpoint)
    return checkpoint


def describe(name: str, recipe: Recipe, checkpoint: Path, *, num_scenes: int = NUM_TEST_SCENES) -> Mapping[str, float]:
    """Measure the mini in `checkpoint` and write recipe, figures and card beside the weights; return the figures."""
    figures = measure(name, checkpoint, fresh_scenes(num_scenes, seed=TEST_SEED))
    last = json.loads((checkpoint / CURVE).read_text(encoding="utf-8").splitlines()[-1])
    versions = {library: version(library) for library in _LIBRARIES[name]}
    recorded = dataclasses.asdict(recipe) | {
        "mini": name,
        "scenes_version": VERSION,
        "test_seed": TEST_SEED,
        "training_seconds": last["seconds"],
        "libraries": versions,
    }
    _write_json(checkpoint / RECIPE, recorded)
    _write_json(checkpoint / FIGURES, figures)
    repeats = _read_json(checkpoint / REPEATS) if (checkpoint / REPEATS).exists() else {}
    text = card(name, recipe=recorded, figures=figures, versions=versions, repeats=repeats)
    (checkpoint / CARD).write_text(text, encoding="utf-8")
    for file in checkpoint.iterdir():
        # safetensors writes files that only their owner may read; these are to be shared.
        file.chmod(0o644)
    return figures


def _training(name: str) -> tuple[Recipe, Callable[[Any, Path], None]]:
    """Return a mini's recipe and its trainer. Imported here, so that no mini needs the libraries of another."""
    if name == "detector":
        from pipeline.minis import detector

        return detector.DetectorRecipe(), detector.train
    if name == "captioner":
        from pipeline.minis import captioner

        return captioner.CaptionerRecipe(), captioner.train
    if name == "clip":
        from pipeline.minis import clip

        return clip.ClipRecipe(), clip.train
    raise MiniError(f"no mini is called {name!r}; there are {', '.join(MINIS)}")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
