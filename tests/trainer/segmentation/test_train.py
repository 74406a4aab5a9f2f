"""Training: resumed to the bit wherever it is killed, refused for another run, and it learns."""

import contextlib
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.trainer.segmentation.pictures import masks_of, write_pictures
from tests.trainer.towers import VIT
from trainer.errors import RefusedError, StoppedError
from trainer.evaluate.class_split import read_class_split
from trainer.hyperparameters import ModelSettings
from trainer.model.open import load_model
from trainer.run.checkpoints import load_checkpoint
from trainer.run.stop import StopRequest
from trainer.run.train_settings import TrainResult
from trainer.segmentation.batches import TrainCrops
from trainer.segmentation.crops import crop, jitter
from trainer.segmentation.data import open_data
from trainer.segmentation.settings import SegmentOptimSettings, SegmentRecipe, SegmentRunSettings
from trainer.segmentation.settings import scenes as small
from trainer.segmentation.train import train_segmenter

RUN = SegmentRunSettings(workers=0, log_every=1, checkpoint_every=2, threads=1, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "data")


def recipe_of(folder: Path, **optim) -> SegmentRecipe:
    """Return the small recipe for a tower of three blocks, the text tower trained too."""
    base = small()
    inputs = {"image_size": 64, "crop_px": 64, "split_classes": str(folder / "split.json"), "text": "tuned"}
    return SegmentRecipe(
        head=replace(base.head, window=2, dim=16, guide_kept=(8,), most_classes=4),
        inputs=replace(base.inputs, **inputs),
        optim=replace(base.optim, **{"steps": 6, "batch_size": 4, "colour_jitter": True, **optim}),
    )


def train(
    folder: Path, out: Path, recipe: SegmentRecipe, run: SegmentRunSettings = RUN, stop: StopRequest | None = None
) -> TrainResult:
    split = read_class_split(str(recipe.inputs.split_classes))
    return train_segmenter(
        load_model(ModelSettings(model=VIT)),
        open_data(masks_of(folder), split, to_train=True, background=recipe.inputs.background),
        out,
        recipe,
        run,
        device=torch.device("cpu"),
        console=Console(quiet=True),
        stop=stop or StopRequest(),
    )


def lines(out: Path) -> list[dict]:
    path = out / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def assert_same_run(found: Path, expected: Path) -> None:
    ours, theirs = (load_checkpoint(path / "segmenter.pt") for path in (found, expected))
    assert (ours.step, ours.samples_seen) == (theirs.step, theirs.samples_seen)
    assert ours.model.keys() == theirs.model.keys()
    for name, tensor in theirs.model.items():
        assert torch.equal(ours.model[name], tensor), name
    for number, state in theirs.optimizer["state"].items():
        assert all(torch.equal(ours.optimizer["state"][number][name], value) for name, value in state.items())
    kept = [[{**line, "images_per_s": 0} for line in lines(path)] for path in (found, expected)]
    assert kept[0] == kept[1]


def test_killed_anywhere_and_resumed_it_is_the_same_to_the_bit(folder, tmp_path):
    recipe = recipe_of(folder)
    expected, found = tmp_path / "expected", tmp_path / "found"
    assert train(folder, expected, recipe) == TrainResult(step=6, num_steps=6)
    for seen in (1, 3, 5):
        _kill_at(folder, found, recipe, seen)
    assert train(folder, found, replace(recipe), replace(RUN, workers=1)).finished
    assert_same_run(found, expected)


def _kill_at(folder: Path, out: Path, recipe: SegmentRecipe, seen: int) -> None:
    """Run in another process until so many steps are reported, then end it as a power cut would."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(folder, out, recipe))
    process.start()
    while process.is_alive() and len(lines(out)) < seen:
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_a_signal_stops_after_the_step(folder, tmp_path):
    recipe = recipe_of(folder)
    stopped = train(folder, tmp_path / "found", recipe, stop=StopRequest(requested=True))
    assert (stopped.step, stopped.finished) == (1, False)
    train(folder, tmp_path / "found", recipe, replace(RUN, stop_after=3))
    train(folder, tmp_path / "found", recipe)
    train(folder, tmp_path / "expected", recipe)
    assert_same_run(tmp_path / "found", tmp_path / "expected")


def test_the_clip_that_training_started_from_is_kept_beside_the_checkpoint(folder, tmp_path):
    from trainer.segmentation.run import open_segmenter

    train(folder, tmp_path / "run", recipe_of(folder, clip_lr_scale=1.0))
    opened = open_segmenter(tmp_path / "run" / "segmenter.pt")
    start = {name: tensor.clone() for name, tensor in opened.clip.clip.state_dict().items()}
    name = "visual.transformer.resblocks.0.attn.in_proj_weight"
    segmenter = opened.segmenter(device=torch.device("cpu"))
    assert not torch.equal(segmenter.clip.clip.state_dict()[name], start[name])
    assert torch.equal(segmenter.clip.clip.state_dict()["visual.conv1.weight"], start["visual.conv1.weight"])


def test_other_settings_data_and_weights_are_refused(folder, tmp_path):
    recipe = recipe_of(folder)
    train(folder, tmp_path / "run", recipe, replace(RUN, stop_after=1))
    with pytest.raises(RefusedError, match=r"lr is 0.5, where it was 0.004"):
        train(folder, tmp_path / "run", recipe_of(folder, lr=0.5))
    other = write_pictures(tmp_path / "other", 7)
    with pytest.raises(RefusedError, match="other data"):
        train(other, tmp_path / "run", recipe)


def test_a_loss_that_is_no_number_stops_the_run(folder, tmp_path):
    with pytest.raises(StoppedError, match=r"step \d: the loss is nan; its images were .*png"):
        train(folder, tmp_path, recipe_of(folder, lr=1e30, clip_norm=1e30))


def test_it_learns_what_it_is_shown(folder, tmp_path):
    train(folder, tmp_path, recipe_of(folder, steps=40, colour_jitter=False))
    losses = [line["loss"] for line in lines(tmp_path)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_an_epoch_shows_each_image_once_and_the_next_in_another_order(folder):
    data = open_data(masks_of(folder), None, to_train=True, background=None)
    batches = TrainCrops(data, side=32, optim=SegmentOptimSettings(batch_size=2))
    epochs = [[key for step in range(4) for key in batches[epoch * 4 + step].keys] for epoch in (0, 1)]
    assert len(set(epochs[0])) == 8 and sorted(epochs[0]) == sorted(epochs[1]) and epochs[0] != epochs[1]
    first, again = batches[1], batches[1]
    assert torch.equal(first.pixels, again.pixels) and torch.equal(first.labels, again.labels)


def test_labels_follow_their_pixels_through_size_crop_and_mirror():
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[10:20, 30:45] = 255
    labels = np.where(pixels[..., 0] > 0, 3, -1)
    mirrored = set()
    for seed in range(20):
        settings = SegmentOptimSettings(colour_jitter=False)
        cut, known = crop(pixels, labels, side=80, settings=settings, generator=np.random.default_rng(seed))
        assert cut.shape == (80, 80, 3) and known.shape == (80, 80)
        assert ((cut[..., 0] > 127) != (known == 3)).mean() < 0.02
        mirrored.add(bool(known[:, :40].astype(bool).sum() > 0))
    assert set(np.unique(known)) <= {-1, 3} and mirrored


def test_colours_change_and_stay_colours():
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    found = [jitter(pixels, np.random.default_rng(seed)) for seed in range(12)]
    assert all(one.shape == pixels.shape and one.dtype == np.uint8 for one in found)
    assert sum(not np.array_equal(one, pixels) for one in found) > 6
    assert np.array_equal(found[0], jitter(pixels, np.random.default_rng(0)))
