"""Hard negatives from the command that makes them to the loss that looks at them."""

import dataclasses
from pathlib import Path

import pytest
import torch

import fineclip
from schemas.dataset import Dataset
from tests.trainer.processes import run_processes
from tests.trainer.runs import RECIPE, change, write_data
from tests.trainer.towers import random_weights
from trainer.data.batches import Batches
from trainer.data.index import build_index
from trainer.errors import TrainingError
from trainer.loss.gather import rank, world_size
from trainer.recipes import RECIPES, TrainRecipe
from trainer.run.assemble import Parts, assemble

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_data(tmp_path_factory.mktemp("data"))
    assert fineclip.main(["hard-negatives", path, "--as", "wrong"]) == 0
    return path


def test_the_overlay_holds_the_other_colours(folder, capsys):
    rows = Dataset.open(folder, overlays=["wrong"]).regions(["caption", "hard_negatives", "region_id"]).to_pylist()
    colours = {"a red shape", "a green shape", "a blue shape"}
    known = [row for row in rows if row["hard_negatives"] is not None]
    assert known and all(colours - {row["caption"]} == set(row["hard_negatives"]) for row in known)
    before = {file.name: file.read_bytes() for file in Path(folder).iterdir() if file.is_file()}
    assert fineclip.main(["hard-negatives", folder, "--as", "wrong"]) == 0
    assert {file.name: file.read_bytes() for file in Path(folder).iterdir() if file.is_file()} == before
    assert "3 of colour" in capsys.readouterr().out
    assert fineclip.main(["hard-negatives", folder, "--as", "wrong", "--per-region", "1"]) == 3
    assert "of another configuration" in capsys.readouterr().err


def parts_of(folder: str, recipe: TrainRecipe, cache: Path, *, max_images: int = 100) -> Parts:
    index = build_index(Dataset.open(folder, overlays=["wrong"]), "train")
    parts = assemble(recipe, index, device=CPU, text_cache=str(cache), max_images=max_images)
    random_weights(parts.step.student.clip)
    parts.step.optimizer = torch.optim.SGD([p for g in parts.step.optimizer.param_groups for p in g["params"]], lr=1.0)
    parts.step.clip_norm = None
    return parts


def step_of(folder: str, recipe: TrainRecipe, cache: Path, *, max_images: int = 100):
    parts = parts_of(folder, recipe, cache, max_images=max_images)
    dataset = Dataset.open(folder, overlays=["wrong"])
    index = build_index(dataset, "train")
    place = {"rank": rank(), "world_size": world_size()}
    batch = Batches(dataset, index, order=recipe.order, samples=recipe.samples, **place)[0]
    result = parts.step.run(batch, lr=0.01, seed=0)
    return result.losses, {name: tensor.clone() for name, tensor in parts.model.clip.state_dict().items()}


@pytest.mark.parametrize("train_text", [False, True])
def test_a_step_with_hard_negatives_in_pieces_equals_the_whole(folder, tmp_path, train_text):
    recipe = change(RECIPE, hard_negative_weight=0.5, train_text=train_text)
    losses, whole = step_of(folder, recipe, tmp_path)
    _, pieces = step_of(folder, recipe, tmp_path, max_images=2)
    assert all(torch.allclose(pieces[name], tensor, rtol=1e-4, atol=2e-6) for name, tensor in whole.items())
    without, others = step_of(folder, change(recipe, hard_negative_weight=0.0), tmp_path)
    assert without.hard_negative_loss is None and float(losses.hard_negative_loss) > 0
    assert float(losses.loss) == pytest.approx(float(without.loss) + 0.5 * float(losses.hard_negative_loss), rel=1e-5)
    assert any(not torch.equal(whole[name], tensor) for name, tensor in others.items())


def _step(folder: str, cache: str) -> dict[str, torch.Tensor]:
    return step_of(folder, change(RECIPE, hard_negative_weight=0.5), Path(cache))[1]


def test_processes_equal_one(folder, tmp_path):
    alone = _step(folder, str(tmp_path))
    for found in run_processes(_step, 2, folder, str(tmp_path)):
        assert all(torch.allclose(found[name], tensor, rtol=1e-4, atol=2e-6) for name, tensor in alone.items())


def test_data_without_hard_negatives_are_told(folder, tmp_path):
    index = build_index(Dataset.open(folder), "train")
    assert index.negatives is None
    with pytest.raises(TrainingError, match="make them by `fineclip hard-negatives DATA --as NAME`"):
        assemble(change(RECIPE, hard_negative_weight=1.0), index, device=CPU, text_cache=str(tmp_path), max_images=9)


def test_the_paper_s_recipes_have_none():
    assert all(recipe().loss.hard_negative_weight == 0 for recipe in RECIPES.values())
    assert all(recipe().model.context_length is None for recipe in RECIPES.values())
    for wrong in ({"region_weight": 0.0}, {"official_quirks": 8}, {"region_objective": "concepts"}):
        with pytest.raises(ValueError, match="hard"):
            dataclasses.replace(RECIPE.loss, hard_negative_weight=1.0, **wrong)
