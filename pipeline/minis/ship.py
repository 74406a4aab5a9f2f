"""`fineclip train-mini`: train one mini, measure it, and lay it out as it is shipped.

RUN/resume.pt, curve.jsonl   while it trains; started again, it continues
RUN/checkpoint/              weights and configuration, recipe.json, figures.json, curve.jsonl

What ships has a README.md beside them, written by hand; a test holds its figures to these files.
"""

import dataclasses
import importlib
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from pipeline.minis.evaluate import fresh_scenes, measure
from pipeline.minis.loop import CURVE, MiniRecipe
from pipeline.models.shipped import FIGURES, MINIS, RECIPE, MiniError
from pipeline.scenes.layout import VERSION

NUM_TEST_SCENES = 500
TEST_SEED = 1

_LIBRARIES = {
    "detector": ("torch", "transformers"),
    "captioner": ("torch", "transformers", "tokenizers"),
    "clip": ("torch", "open_clip_torch", "tokenizers"),
}


def train_mini(name: str, run: Path, *, seed: int = 0, steps: int | None = None) -> Path:
    """Train a mini in the folder `run`, measure it on test scenes, and return the folder to ship, `run/checkpoint`.

    Continues a run that was stopped. `steps` replaces the recipe's, for a quick look. Raises MiniError for an unknown
    name, and ResumeError where `run` holds an unfinished run of another recipe.
    """
    if name not in MINIS:
        raise MiniError(f"no mini is called {name!r}; there are {', '.join(MINIS)}")
    mini = importlib.import_module(f"pipeline.minis.{name}")  # by name: no mini needs the libraries of another
    recipe: MiniRecipe = dataclasses.replace(mini.SHIPPED, seed=seed, **({} if steps is None else {"steps": steps}))
    mini.train(recipe, run)
    checkpoint = run / "checkpoint"
    shutil.copyfile(run / CURVE, checkpoint / CURVE)
    describe(name, recipe, checkpoint)
    return checkpoint


def describe(
    name: str, recipe: MiniRecipe, checkpoint: Path, *, num_scenes: int = NUM_TEST_SCENES
) -> Mapping[str, float]:
    """Measure the mini in `checkpoint` and write recipe and figures beside the weights; return the figures."""
    figures = measure(name, checkpoint, fresh_scenes(num_scenes, seed=TEST_SEED))
    last = json.loads((checkpoint / CURVE).read_text(encoding="utf-8").splitlines()[-1])
    recorded = dataclasses.asdict(recipe) | {
        "mini": name,
        "scenes_version": VERSION,
        "test_seed": TEST_SEED,
        "training_seconds": last["seconds"],
        "libraries": {library: version(library) for library in _LIBRARIES[name]},
    }
    for file, content in ((RECIPE, recorded), (FIGURES, figures)):
        (checkpoint / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for path in checkpoint.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner may read; these are to be shared
    return figures
