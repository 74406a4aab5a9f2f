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

from tests.trainer.detection.pictures import data_of, write_pictures
from tests.trainer.towers import VIT
from trainer.detection.annotations import open_data
from trainer.detection.batches import TrainBatches
from trainer.detection.canvas import jitter
from trainer.detection.settings import DetectOptimSettings, DetectRecipe, DetectRunSettings
from trainer.detection.settings import scenes as small
from trainer.detection.train import learning_rate, train_detector
from trainer.errors import RefusedError, StoppedError
from trainer.evaluate.class_split import read_class_split
from trainer.hyperparameters import ModelSettings
from trainer.model.open import load_model
from trainer.run.checkpoints import load_checkpoint
from trainer.run.stop import StopRequest
from trainer.run.train_settings import TrainResult

RUN = DetectRunSettings(workers=0, log_every=1, checkpoint_every=2, threads=1, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "data")


def recipe_of(folder: Path, **optim) -> DetectRecipe:
    """Return the small recipe for a tower of three blocks, with random sizes and norms of batches."""
    base = small()
    detector = replace(base.detector, taps=(0, 1, 2), channels=16, norm="batch", sampled_regions=16, proposals=20)
    inputs = replace(base.inputs, image_size=64, split_classes=str(folder / "split.json"))
    return DetectRecipe(
        detector=detector,
        inputs=inputs,
        optim=replace(base.optim, **{"epochs": 3, "batch_size": 4, "min_scale": 0.5, "max_scale": 1.5, **optim}),
    )


def train(
    folder: Path, out: Path, recipe: DetectRecipe, run: DetectRunSettings = RUN, stop: StopRequest | None = None
) -> TrainResult:
    return train_detector(
        load_model(ModelSettings(model=VIT)),
        open_data(data_of(folder), read_class_split(recipe.inputs.split_classes), to_train=True),
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
    ours, theirs = (load_checkpoint(path / "detector.pt") for path in (found, expected))
    assert (ours.step, ours.samples_seen) == (theirs.step, theirs.samples_seen)
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


def _kill_at(folder: Path, out: Path, recipe: DetectRecipe, seen: int) -> None:
    """Run in another process until so many steps are reported, then end it as a power cut would."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(folder, out, recipe))
    process.start()
    while process.is_alive() and len(lines(out)) < seen:
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_a_signal_stops_after_the_step_and_epochs_are_kept(folder, tmp_path):
    recipe = recipe_of(folder)
    stopped = train(folder, tmp_path / "found", recipe, stop=StopRequest(requested=True))
    assert (stopped.step, stopped.finished) == (1, False)
    train(folder, tmp_path / "found", recipe, replace(RUN, stop_after=3))
    train(folder, tmp_path / "found", recipe, replace(RUN, keep_epochs=True))
    train(folder, tmp_path / "expected", recipe)
    assert_same_run(tmp_path / "found", tmp_path / "expected")
    kept = {path.name: load_checkpoint(path).step for path in (tmp_path / "found").glob("epoch-*.pt")}
    assert kept == {"epoch-2.pt": 4, "epoch-3.pt": 6}


def test_other_settings_data_and_weights_are_refused(folder, tmp_path):
    recipe = recipe_of(folder)
    train(folder, tmp_path / "run", recipe, replace(RUN, stop_after=1))
    with pytest.raises(RefusedError, match=r"lr is 0.5, where it was 0.001"):
        train(folder, tmp_path / "run", recipe_of(folder, lr=0.5))
    other = write_pictures(tmp_path / "other", 8)
    (other / "split.json").write_text((folder / "split.json").read_text())
    with pytest.raises(RefusedError, match="other data"):
        train(other, tmp_path / "run", recipe)


def test_a_loss_that_is_no_number_stops_the_run(folder, tmp_path):
    with pytest.raises(StoppedError, match=r"step \d: the loss is nan; its images were .*png"):
        train(folder, tmp_path, recipe_of(folder, lr=1e30, warmup_steps=0, clip_norm=1e30))


def test_it_learns_what_it_is_shown(folder, tmp_path):
    train(folder, tmp_path, recipe_of(folder, epochs=30, min_scale=1.0, max_scale=1.0, warmup_steps=5))
    losses = [line["loss"] for line in lines(tmp_path)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_an_epoch_shows_each_image_once_and_the_next_in_another_order(folder):
    data = open_data(data_of(folder), read_class_split(str(folder / "split.json")), to_train=True)
    batches = TrainBatches(data, side=64, optim=DetectOptimSettings(batch_size=3))
    epochs = [[key for step in range(3) for key in batches[epoch * 3 + step].keys] for epoch in (0, 1)]
    assert batches.steps_per_epoch == 3 and len(set(epochs[0])) == 9
    assert epochs[0] != epochs[1]
    first = batches[1]
    assert torch.equal(first.canvases, batches[1].canvases)
    assert all(len(boxes) == len(labels) for boxes, labels in zip(first.boxes, first.labels, strict=True))


def test_boxes_follow_their_pixels_through_size_crop_and_mirror():
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[10:20, 30:45] = 255
    boxes, labels = np.array([[30, 10, 45, 20]], dtype=np.float32), np.array([7])
    seen = set()
    for seed in range(40):
        settings = DetectOptimSettings(min_scale=0.5, max_scale=3.0)
        canvas = jitter(pixels, boxes, labels, side=32, settings=settings, generator=np.random.default_rng(seed))
        bright = canvas.pixels[..., 0] > 127
        assert not bright[canvas.size[0] :].any() and not bright[:, canvas.size[1] :].any()
        seen.add(len(canvas.boxes))
        if len(canvas.boxes) and bright.any():
            rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
            box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(canvas.boxes[0] - box).max() <= 1
    assert seen == {0, 1}, "some crops miss the box"


def test_the_learning_rate_rises_from_a_thousandth_then_stays_or_falls():
    settings = DetectOptimSettings(lr=1.0, warmup_steps=100)
    rates = [learning_rate(step, 1000, settings) for step in (0, 50, 100, 999)]
    assert rates == pytest.approx([0.001, 0.5005, 1, 1])
    cosine = replace(settings, schedule="cosine")
    assert [learning_rate(step, 1100, cosine) for step in (100, 600, 1100)] == pytest.approx([1, 0.5, 0])
