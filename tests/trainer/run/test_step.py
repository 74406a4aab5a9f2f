"""A step in pieces equals a step at once, in one process and in several, and changes what it should."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from schemas.dataset import Dataset
from tests.trainer.processes import run_processes
from tests.trainer.runs import RECIPE, change, write_data
from tests.trainer.towers import EVA, VIT, random_weights
from trainer.data.batches import Batches
from trainer.data.index import build_index
from trainer.loss.gather import rank, world_size
from trainer.recipes import TrainRecipe
from trainer.run.assemble import Parts, assemble

CPU = torch.device("cpu")
RECIPES = {
    "paper": RECIPE,
    "frozen text": change(RECIPE, train_text=False),
    "detached": change(RECIPE, teacher="detached", duplicate_text="mask"),
    "ema": change(RECIPE, teacher="ema", ema_decay=0.5),
    "official": change(RECIPE, official_quirks=2),
    "clipself": change(
        RECIPE, global_weight=0.0, region_weight=0.0, teacher="frozen", trainable="blocks", train_text=False
    ),
    "regionclip": change(RECIPE, global_weight=0.0, distill_weight=0.0, region_objective="concepts", train_text=False),
    "clip": change(RECIPE, region_weight=0.0, distill_weight=0.0),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("data"))


def parts_of(folder: str, recipe: TrainRecipe, max_images: int, cache: str) -> Parts:
    """Return a run whose weights show and whose steps subtract the gradient itself."""
    index = build_index(Dataset.open(folder), "train")
    parts = assemble(recipe, index, device=CPU, text_cache=cache, max_images=max_images)
    random_weights(parts.step.student.clip)
    groups = [group["params"] for group in parts.step.optimizer.param_groups]
    parts.step.optimizer = torch.optim.SGD([p for group in groups for p in group], lr=1.0)
    parts.step.clip_norm = None
    return parts


def weights_after_a_step(folder: str, recipe: TrainRecipe, max_images: int, cache: str) -> dict[str, Tensor]:
    parts = parts_of(folder, recipe, max_images, cache)
    dataset = Dataset.open(folder)
    batches = Batches(
        dataset,
        build_index(dataset, "train"),
        order=recipe.order,
        samples=recipe.samples,
        rank=rank(),
        world_size=world_size(),
    )
    # The last step of the epoch: 1 image of 13, so of three processes two have none; then a whole one.
    results = [parts.step.run(batches[step], lr=0.01, seed=step) for step in (2, 0)]
    state = {name: tensor.clone() for name, tensor in parts.model.clip.state_dict().items()}
    loss = torch.stack([result.losses.loss for result in results])
    if world_size() > 1:
        torch.distributed.all_reduce(loss)
    return state | {"loss": loss}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], what: object) -> None:
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=2e-6), (what, name)


@pytest.mark.parametrize("name", RECIPES)
def test_pieces_equal_the_whole(folder, tmp_path, name):
    whole, pieces = (weights_after_a_step(folder, RECIPES[name], size, str(tmp_path)) for size in (100, 2))
    assert_same(pieces, whole, name)
    assert float(whole["loss"].max()) > 0


def _steps(folder: str, cache: str, max_images: int) -> list[dict[str, Tensor]]:
    return [weights_after_a_step(folder, recipe, max_images, cache) for recipe in RECIPES.values()]


@pytest.mark.parametrize(("num_processes", "max_images"), [(2, 2), (3, 100)])
def test_processes_equal_one(folder, tmp_path, num_processes, max_images):
    found_by_rank = run_processes(_steps, num_processes, folder, str(tmp_path), max_images)
    for at, (name, recipe) in enumerate(RECIPES.items()):
        expected = weights_after_a_step(folder, recipe, 100, str(tmp_path))
        for process, found in enumerate(found_by_rank):
            assert_same(found[at], expected, (name, process))


def test_processes_with_different_numbers_of_pieces_do_not_wait_for_each_other(folder, tmp_path):
    recipe = change(RECIPE, global_batch_size=13)  # 7 images and 6, so two pieces and one
    found = run_processes(weights_after_a_step, 2, folder, recipe, 6, str(tmp_path))
    expected = weights_after_a_step(folder, recipe, 100, str(tmp_path))
    for process in found:
        assert_same(process, expected, "pieces")


def test_pieces_draw_the_same_random_numbers_twice(folder, tmp_path, monkeypatch):
    parts = parts_of(folder, RECIPE, 2, str(tmp_path))
    for block in parts.model.clip.visual.transformer.resblocks[:-1]:
        block.attn.dropout = 0.5
    step, embedded, inputs_of_pieces = parts.step, [], []
    embed = type(step)._features

    def recorded(self, inputs):
        features = embed(self, inputs)
        embedded.append(features.image.detach())
        inputs_of_pieces.append(inputs)
        return features

    monkeypatch.setattr(type(step), "_features", recorded)
    dataset = Dataset.open(folder)
    batch = Batches(dataset, build_index(dataset, "train"), order=RECIPE.order, samples=RECIPE.samples)[0]
    step.run(batch, lr=0.01, seed=0)
    first, second = embedded[:3], embedded[3:]
    assert len(second) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], embed(step, inputs_of_pieces[0]).image)


def changed_by(folder: str, cache: Path, recipe: TrainRecipe) -> set[str]:
    parts = parts_of(folder, recipe, 100, str(cache))
    before = {name: tensor.clone() for name, tensor in parts.model.clip.state_dict().items()}
    dataset = Dataset.open(folder)
    batch = Batches(dataset, build_index(dataset, "train"), order=recipe.order, samples=recipe.samples)[0]
    parts.step.run(batch, lr=0.5, seed=0)
    return {name for name, tensor in parts.model.clip.state_dict().items() if not torch.equal(tensor, before[name])}


def test_what_is_trained(folder, tmp_path):
    everything = changed_by(folder, tmp_path, RECIPE)
    frozen_text = changed_by(folder, tmp_path, RECIPES["frozen text"])
    blocks = changed_by(folder, tmp_path, RECIPES["clipself"])
    assert {"logit_scale", "visual.conv1.weight", "visual.proj", "transformer.resblocks.0.ln_1.weight"} <= everything
    assert {"logit_scale", "visual.conv1.weight"} <= frozen_text
    assert all(name.startswith("visual.") for name in frozen_text - {"logit_scale"})
    assert blocks
    assert all(name.startswith("visual.transformer.resblocks.") for name in blocks)


QUERY_AND_KEY = {
    # The last block's, which the class token alone reads: parameters of their own in EVA02, rows of one in OpenAI's.
    EVA: {"visual.trunk.blocks.2.attn.q_proj.weight", "visual.trunk.blocks.2.attn.k_proj.weight"},
    VIT: {"visual.transformer.resblocks.2.attn.in_proj_weight"},
}


@pytest.mark.parametrize("model", [EVA, VIT])
@pytest.mark.parametrize(
    ("name", "reached"), [("clipself", False), ("regionclip", False), ("frozen text", True), ("clip", True)]
)
def test_weights_that_no_loss_reaches_do_not_decay(folder, tmp_path, model, name, reached):
    recipe = change(RECIPES[name], model=model, weight_decay=0.5)
    index = build_index(Dataset.open(folder), "train")
    parts = assemble(recipe, index, device=CPU, text_cache=str(tmp_path), max_images=2)
    before = {name: tensor.clone() for name, tensor in parts.model.clip.state_dict().items()}
    batches = Batches(Dataset.open(folder), index, order=recipe.order, samples=recipe.samples)
    for step in range(2):
        parts.step.run(batches[step], lr=0.1, seed=step)
    after = parts.model.clip.state_dict()
    for parameter in QUERY_AND_KEY[model]:
        rows = slice(0, 2 * len(before[parameter]) // 3) if model == VIT else slice(None)
        assert torch.equal(after[parameter][rows], before[parameter][rows]) != reached
        if model == VIT:
            assert not torch.equal(after[parameter][rows.stop :], before[parameter][rows.stop :])


def test_an_average_follows_the_student_and_a_frozen_teacher_does_not(folder, tmp_path):
    for teacher, moves in (("ema", True), ("frozen", False)):
        parts = parts_of(folder, change(RECIPE, teacher=teacher, ema_decay=0.75), 100, str(tmp_path))
        dataset = Dataset.open(folder)
        batch = Batches(dataset, build_index(dataset, "train"), order=RECIPE.order, samples=RECIPE.samples)[0]
        before = parts.step.teacher.backbone.visual.proj.clone()
        parts.step.run(batch, lr=0.5, seed=0)
        expected = before.lerp(parts.step.student.backbone.visual.proj, 0.25) if moves else before
        assert torch.equal(parts.step.teacher.backbone.visual.proj, expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close_to_full(folder, tmp_path, precision):
    full = weights_after_a_step(folder, RECIPE, 100, str(tmp_path))
    half = weights_after_a_step(folder, change(RECIPE, precision=precision), 2, str(tmp_path))
    # The first loss is 1 - cos, near 0: eight bits of a feature are an absolute error there.
    assert torch.allclose(half["loss"], full["loss"], rtol=0.05, atol=5e-4)
    assert half["visual.proj"].dtype == torch.float32


def test_the_temperature_stays_in_its_range(folder, tmp_path):
    parts = parts_of(folder, RECIPE, 100, str(tmp_path))
    parts.step.logit_scale.data.fill_(9.0)
    dataset = Dataset.open(folder)
    batch = Batches(dataset, build_index(dataset, "train"), order=RECIPE.order, samples=RECIPE.samples)[0]
    parts.step.run(batch, lr=0.0, seed=0)
    assert float(parts.model.clip.logit_scale) == pytest.approx(4.60517, abs=1e-5)
