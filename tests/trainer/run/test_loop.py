"""Whole runs: killed and resumed to the same bits, refused, stopped with a reason, and what they leave behind."""

import contextlib
import io
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from rich.console import Console

import trainer.run.checkpoints
import trainer.run.loop
from schemas.dataset import Dataset
from schemas.store_errors import StorageError
from tests.shards import tiny_sample, write_shard
from tests.trainer.processes import run_processes
from tests.trainer.runs import RECIPE, change, coloured, write_data
from trainer.errors import RefusedError, StoppedError, TrainingError
from trainer.model.saved_file import save_tensors
from trainer.recipes import TrainRecipe
from trainer.run.checkpoints import Checkpoint, check_same_run, load_checkpoint, save_checkpoint, with_contents
from trainer.run.lock import held
from trainer.run.loop import train
from trainer.run.stop import StopRequest
from trainer.run.train_settings import TrainResult, TrainSettings

RUN = TrainSettings(workers=0, log_every=1, checkpoint_every=2, device="cpu", threads=1)
LOSSES = ["global_loss", "region_loss", "distill_loss", "hard_negative_loss", "loss"]
KEYS = ["step", "samples_seen", *LOSSES, "lr", "images_per_s", "duplicate_rate"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("data"), val=5)


def run_training(
    folder: str, out: Path, recipe: TrainRecipe = RECIPE, run: TrainSettings = RUN, **options: Any
) -> TrainResult:
    console = Console(file=io.StringIO())
    return train(Dataset.open(folder), out, recipe, run, device=torch.device("cpu"), console=console, **options)


def lines(out: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def assert_same_run(found: Path, expected: Path) -> None:
    """Compare all but how fast it went, to the bit."""
    assert [line | {"images_per_s": 0} for line in lines(found)] == [
        line | {"images_per_s": 0} for line in lines(expected)
    ]
    ours, theirs = (load_checkpoint(folder / "last.pt") for folder in (found, expected))
    assert (ours.step, ours.samples_seen, ours.best) == (theirs.step, theirs.samples_seen, theirs.best)
    for name, tensor in theirs.model.items():
        assert torch.equal(ours.model[name], tensor), name
    for number, state in theirs.optimizer["state"].items():
        assert all(torch.equal(ours.optimizer["state"][number][name], value) for name, value in state.items())
    weights = Path("model") / "open_clip_model.safetensors"
    assert (found / weights).read_bytes() == (expected / weights).read_bytes()


def test_a_run_reports_and_exports(folder, tmp_path):
    result = run_training(folder, tmp_path)
    assert result.finished
    assert result.step == 6
    reported = lines(tmp_path)
    assert [list(line) for line in reported] == [KEYS] * 6
    assert [line["step"] for line in reported] == [1, 2, 3, 4, 5, 6]
    assert [line["samples_seen"] for line in reported] == [6, 12, 13, 19, 25, 26]
    assert all(line["loss"] > 0 and 0 < line["duplicate_rate"] <= 1 for line in reported if line["step"] % 3)
    parts = [line["global_loss"] + line["region_loss"] + line["distill_loss"] for line in reported]
    assert parts == pytest.approx([line["loss"] for line in reported], rel=1e-5)
    assert reported[0]["lr"] == pytest.approx(RECIPE.optim.lr / 2)
    model = open_clip.create_model(f"local-dir:{tmp_path / 'model'}")
    assert torch.equal(model.logit_scale, load_checkpoint(tmp_path / "last.pt").model["logit_scale"])


def test_an_absent_loss_is_null(folder, tmp_path):
    run_training(folder, tmp_path, change(RECIPE, distill_weight=0.0, epochs=1))
    assert {line["distill_loss"] for line in lines(tmp_path)} == {None}


def kill_at(
    folder: str, out: Path, recipe: TrainRecipe, run: TrainSettings, *, when: Callable[[], bool] | None
) -> None:
    """Run in another process until `when` says so, then end it as a power cut would."""
    process = multiprocessing.get_context("fork").Process(target=run_training, args=(folder, out, recipe, run))
    process.start()
    while process.is_alive() and not (when and when()):
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.join()


@pytest.mark.parametrize("changes", [{}, {"train_text": False, "teacher": "ema"}], ids=["trained text", "frozen text"])
def test_killed_anywhere_and_resumed_it_is_the_same_to_the_bit(folder, tmp_path, monkeypatch, changes):
    recipe = change(RECIPE, epochs=3, **changes)
    run = replace(RUN, eval_every=5)
    expected, found = tmp_path / "expected", tmp_path / "found"
    run_training(folder, expected, recipe, run)
    for seen in (1, 4, 7):
        kill_at(folder, found, recipe, run, when=lambda seen=seen: _num_lines(found) >= seen)
    _kill_in_a_write(monkeypatch, 1)
    kill_at(folder, found, recipe, run, when=None)
    monkeypatch.undo()
    assert list(found.glob("*.partial"))
    assert not (found / "model").exists()
    assert run_training(folder, found, recipe, run).finished
    assert_same_run(found, expected)
    assert lines(found, "evaluation.jsonl") == lines(expected, "evaluation.jsonl")


def _num_lines(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def _kill_in_a_write(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the process end itself half-way through its n-th checkpoint."""
    save, calls = save_tensors, []

    def cut(content: Any, file: Any) -> None:
        calls.append(1)
        save(content, file)
        if len(calls) == number:
            file.truncate(1000)
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(trainer.run.checkpoints, "save_tensors", cut)


def test_the_time_left_is_shown_once_it_is_known(folder, tmp_path):
    said = io.StringIO()
    console = Console(file=said, width=500)
    train(Dataset.open(folder), tmp_path, RECIPE, RUN, device=torch.device("cpu"), console=console)
    first, *others = [line for line in said.getvalue().splitlines() if "regions/s" in line]
    assert first.endswith("regions/s") and len(others) == 5
    assert all(line.endswith(" left") for line in others)


def test_stopping_writes_a_checkpoint_and_goes_on(folder, tmp_path):
    stop = StopRequest(requested=True)
    stopped = run_training(folder, tmp_path / "found", stop=stop)
    assert (stopped.step, stopped.finished) == (1, False)
    assert run_training(folder, tmp_path / "found", run=replace(RUN, stop_after=4)).step == 4
    run_training(folder, tmp_path / "found", run=replace(RUN, workers=2))
    run_training(folder, tmp_path / "expected")
    assert_same_run(tmp_path / "found", tmp_path / "expected")


def test_a_finished_run_stays_as_it_is(folder, tmp_path):
    run_training(folder, tmp_path)
    before = lines(tmp_path)
    assert run_training(folder, tmp_path).finished
    assert lines(tmp_path) == before


def test_other_settings_and_data_are_refused(folder, tmp_path):
    out = tmp_path / "run"
    run_training(folder, out, run=replace(RUN, stop_after=1))
    with pytest.raises(RefusedError, match=r"lr is 0.5, where it was 0.001"):
        run_training(folder, out, change(RECIPE, lr=0.5))
    other = write_data(_made(tmp_path / "other"), (9, 5))
    with pytest.raises(RefusedError, match="other data"):
        run_training(other, out)


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_damaged_checkpoint_is_named(folder, tmp_path):
    run_training(folder, tmp_path, run=replace(RUN, stop_after=1))
    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:2000])
    with pytest.raises(TrainingError, match=r"last.pt: not a checkpoint"):
        run_training(folder, tmp_path)


def test_a_disk_without_room_for_a_checkpoint_is_told_and_the_one_before_is_kept(folder, tmp_path, monkeypatch):
    run_training(folder, tmp_path, run=replace(RUN, stop_after=2))
    before = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.partial").symlink_to("/dev/full")
    with pytest.raises(
        StorageError, match=r"last.pt: No space left on device: free space.* goes on from the one befor"
    ):
        run_training(folder, tmp_path)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert not os.path.lexists(tmp_path / "last.partial")
    assert run_training(folder, tmp_path).finished


def test_a_loss_that_is_not_finite_stops_the_run(folder, tmp_path):
    recipe = change(RECIPE, lr=1e30, clip_norm=None)
    with pytest.raises(StoppedError, match=r"step [23]: the loss is nan; this process's images were key-\d+"):
        run_training(folder, tmp_path, recipe, replace(RUN, checkpoint_every=1))
    assert load_checkpoint(tmp_path / "last.pt").step < 3


def test_unusable_samples_are_counted_and_too_many_stop(tmp_path):
    samples = [coloured(tiny_sample(f"key-{i}"), i) for i in range(30)]
    few = [replace(s, image=s.image[:50]) if i < 2 else s for i, s in enumerate(samples)]
    write_shard(str(_made(tmp_path / "few")), few)
    run_training(str(tmp_path / "few"), tmp_path / "run", change(RECIPE, epochs=1))
    skipped = lines(tmp_path / "run", "skipped.jsonl")
    assert {line["key"] for line in skipped} == {"key-0", "key-1"}
    assert lines(tmp_path / "run")[-1]["samples_seen"] == 28
    many = [replace(s, image=s.image[:50]) if i < 20 else s for i, s in enumerate(samples)]
    write_shard(str(_made(tmp_path / "many")), many)
    with pytest.raises(StoppedError, match=r"11 of \d+ samples cannot be used; the first: key-\d+: cannot be decoded"):
        run_training(str(tmp_path / "many"), tmp_path / "run2", change(RECIPE, global_batch_size=1))
    write_shard(str(_made(tmp_path / "all")), [replace(s, image=b"no image") for s in samples])
    with pytest.raises(StoppedError, match=r"12 of 12 samples cannot be used; the first: key-\d+: cannot be decoded"):
        run_training(str(tmp_path / "all"), tmp_path / "run3")


def test_evaluation_while_training(folder, tmp_path):
    result = run_training(folder, tmp_path, run=replace(RUN, eval_every=3))
    reported = lines(tmp_path, "evaluation.jsonl")
    assert [line["step"] for line in reported] == [0, 3, 6]
    assert {"region_to_text_recall@1", "text_to_image_recall@5"} <= result.metrics.keys()
    best = max(line["region_to_text_recall@1"] for line in reported)
    assert load_checkpoint(tmp_path / "best.pt").best == best
    with pytest.raises(TrainingError, match="no val shards"):
        run_training(write_data(_made(tmp_path / "x")), tmp_path / "y", run=replace(RUN, eval_every=3))


def test_tensorboard_files(folder, tmp_path):
    run_training(folder, tmp_path, run=replace(RUN, tensorboard=True, stop_after=1))
    assert list((tmp_path / "tensorboard").glob("events*"))


def _losses(folder: str, out: Path, recipe: TrainRecipe) -> list[float]:
    run_training(folder, out, recipe, replace(RUN, workers=1, eval_every=4, micro_batch_size=2))
    return [line["loss"] for line in lines(out)]


def test_two_processes_train_as_one(folder, tmp_path):
    recipe = change(RECIPE, train_text=False)
    first, second = run_processes(_losses, 2, folder, tmp_path / "two", recipe)
    run_training(folder, tmp_path / "one", recipe, replace(RUN, eval_every=4))
    assert first == second
    assert first == pytest.approx([line["loss"] for line in lines(tmp_path / "one")], rel=1e-3)
    two, one = (lines(tmp_path / name, "evaluation.jsonl") for name in ("two", "one"))
    assert two[0] == one[0]


def test_the_three_losses_fall(folder, tmp_path):
    run_training(folder, tmp_path, change(RECIPE, epochs=15, lr=3e-3))
    reported = [line for line in lines(tmp_path) if line["step"] % 3]
    for name in ("global_loss", "region_loss", "distill_loss"):
        first, last = (sum(line[name] for line in part) for part in (reported[:5], reported[-5:]))
        assert last < 0.9 * first, name


def write_photographs(folder: Path, *, regions: Sequence[int], captioned: bool) -> str:
    """Write images that have so many regions each, with captions or without."""
    caption = "a photograph" if captioned else None
    samples = [tiny_sample(f"photo-{i}", num_regions=n, image_caption=caption) for i, n in enumerate(regions)]
    write_shard(str(_made(folder)), samples)
    return str(folder)


def _train_quietly(folder: str, out: Path, recipe: TrainRecipe) -> list[dict[str, Any]]:
    run_training(folder, out, recipe)
    return lines(out)


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("teacher", ["live", "frozen"])
def test_photographs_without_captions_train_on_their_regions(tmp_path, num_processes, teacher):
    folder = write_photographs(tmp_path / "data", regions=[2, 1, 0, 3, 0, 2], captioned=False)
    recipe = change(RECIPE, global_batch_size=2, teacher=teacher, epochs=1)
    for reported in run_processes(_train_quietly, num_processes, folder, tmp_path / "run", recipe)[:1]:
        assert {line["global_loss"] for line in reported} == {None}
        assert any(line["region_loss"] for line in reported)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_images_without_regions_train_on_their_captions(tmp_path, num_processes):
    folder = write_photographs(tmp_path / "data", regions=[0] * 4, captioned=True)
    recipe = change(RECIPE, global_batch_size=2, epochs=1)
    (reported, *_) = run_processes(_train_quietly, num_processes, folder, tmp_path / "run", recipe)
    assert {(line["region_loss"], line["distill_loss"]) for line in reported} == {(None, None)}


def test_data_with_neither_is_refused(tmp_path):
    folder = write_photographs(tmp_path / "data", regions=[0, 0], captioned=False)
    with pytest.raises(TrainingError, match="no image has a caption and none has a region"):
        run_training(folder, tmp_path / "run")


def test_texts_that_no_loss_looks_at_are_not_trained(folder, tmp_path):
    with pytest.raises(ValueError, match="--train-text: no loss of this recipe looks at texts"):
        change(RECIPE, global_weight=0.0, region_weight=0.0)
    # Nor where the data has none.
    photographs = write_photographs(tmp_path / "data", regions=[2, 2], captioned=False)
    with pytest.raises(TrainingError, match="--train-text"):
        run_training(photographs, tmp_path / "run", change(RECIPE, region_weight=0.0))


def test_skip_counts_survive_a_resume(tmp_path):
    samples = [tiny_sample(f"key-{i}") for i in range(30)]
    broken = [replace(s, image=s.image[:50]) if i < 14 else s for i, s in enumerate(samples)]
    write_shard(str(_made(tmp_path / "data")), broken)
    recipe = change(RECIPE, global_batch_size=1)
    skipped = 0
    with pytest.raises(StoppedError, match=r"11 of \d+ samples cannot be used; the first: key-\d+"):
        for step in range(1, 31):  # as on a machine that is taken away after every step
            run_training(str(tmp_path / "data"), tmp_path / "run", recipe, replace(RUN, stop_after=step))
            skipped = len(lines(tmp_path / "run", "skipped.jsonl"))
    assert skipped == 10


def _stop_after(folder: str, out: Path, recipe: TrainRecipe, step: int) -> None:
    run_training(folder, out, recipe, replace(RUN, stop_after=step, checkpoint_every=100))


def test_fewer_processes_forget_what_more_skipped_beyond_the_checkpoint(tmp_path):
    samples = [tiny_sample(f"key-{i}") for i in range(8)]
    write_shard(str(_made(tmp_path / "data")), [replace(s, image=b"") if i < 2 else s for i, s in enumerate(samples)])
    recipe, out = change(RECIPE, global_batch_size=4, epochs=4), tmp_path / "run"
    run_processes(_stop_after, 2, str(tmp_path / "data"), out, recipe, 2)
    with (out / "skipped-1.jsonl").open("a") as file:
        file.write('{"step": 3, "key": "key-0", "why": "as a run that was killed after its checkpoint leaves it"}\n')
    run_training(str(tmp_path / "data"), out, recipe)
    found = [(line["step"], line["key"]) for path in out.glob("skipped*.jsonl") for line in lines(out, path.name)]
    assert len(found) == len(set(found)) == 8
    assert {line["step"] for line in lines(out, "skipped-1.jsonl")} <= {1, 2}


def test_the_result_is_as_readable_as_the_rest(folder, tmp_path):
    before = os.umask(0o027)
    try:
        run_training(folder, tmp_path / "run", change(RECIPE, epochs=1))
    finally:
        os.umask(before)
    for path in (tmp_path / "run").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path


def test_weights_that_are_no_numbers_are_never_kept_though_the_loss_is_one(folder, tmp_path, monkeypatch):
    step = torch.optim.AdamW.step
    done = []

    def spoils(self: torch.optim.AdamW, *arguments: Any) -> None:
        step(self, *arguments)
        done.append(1)
        if len(done) == 4:
            self.param_groups[0]["params"][0].data[0] = torch.nan

    monkeypatch.setattr(torch.optim.AdamW, "step", spoils)
    with pytest.raises(StoppedError, match=r"step 4: the weights .* are not finite. .*last.pt is from before it"):
        run_training(folder, tmp_path, change(RECIPE, epochs=2))
    assert load_checkpoint(tmp_path / "last.pt").step == 3
    monkeypatch.undo()
    assert run_training(folder, tmp_path, change(RECIPE, epochs=2)).finished


def test_a_loss_scale_that_came_to_nothing_stops_the_run(folder, tmp_path):
    run_training(folder, tmp_path, run=replace(RUN, stop_after=1))
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    with pytest.raises(StoppedError, match="no gradient was finite for many steps, and nothing was learnt"):
        save_checkpoint(tmp_path / "next.pt", replace(checkpoint, scaler={"scale": 1e-30}))


def test_a_run_that_ends_in_its_warm_up_is_told(folder, tmp_path):
    output = io.StringIO()
    for steps, told in ((2, False), (60, True)):
        console = Console(file=output, width=200)
        recipe = change(RECIPE, warmup_steps=steps)
        train(Dataset.open(folder), tmp_path / str(steps), recipe, RUN, device=torch.device("cpu"), console=console)
        assert (
            "--warmup-steps 60: the run has 6 steps, so the learning rate ends at 10.0%" in output.getvalue()
        ) is told


def of_concepts(path: Path) -> TrainRecipe:
    """Return a recipe that matches regions with the concepts of a file."""
    return change(
        RECIPE,
        global_weight=0.0,
        region_objective="concepts",
        concepts=str(path),
        concepts_per_step=3,
        train_text=False,
    )


def test_a_list_of_concepts_that_changed_is_refused(folder, tmp_path):
    concepts = tmp_path / "concepts.txt"
    concepts.write_bytes(b"\xef\xbb\xbfred\ngreen\nblue\n")
    recipe = of_concepts(concepts)
    run_training(folder, tmp_path / "run", recipe, replace(RUN, stop_after=1))
    concepts.write_text("red\ngreen\nblue\nviolet\n")
    with pytest.raises(RefusedError, match="other settings: content of --concepts is"):
        run_training(folder, tmp_path / "run", recipe)


def test_a_checkpoint_names_the_concepts_that_were_read_whatever_the_file_holds_by_then(folder, tmp_path, monkeypatch):
    concepts = tmp_path / "concepts.txt"
    concepts.write_text("red\ngreen\nblue\n")
    recipe = of_concepts(concepts)

    def changes(path: Path, checkpoint: Checkpoint) -> None:
        save_checkpoint(path, checkpoint)
        concepts.write_text("red\ngreen\nblue\nviolet\n")

    with monkeypatch.context() as patch:
        patch.setattr(trainer.run.loop, "save_checkpoint", changes)
        run_training(folder, tmp_path / "run", recipe, replace(RUN, stop_after=2, checkpoint_every=1))
    with pytest.raises(RefusedError, match="other settings: content of --concepts is"):
        run_training(folder, tmp_path / "run", recipe)
    concepts.write_text("red\ngreen\nblue\n")
    assert run_training(folder, tmp_path / "run", recipe).finished


def test_a_file_called_like_built_in_templates_decides_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("vild").write_text("{}\n")
    assert with_contents({"templates": "vild"}) == {"templates": "vild"}
    assert "content of --templates" in with_contents({"templates": "./vild"})


def test_a_checkpoint_of_before_files_were_hashed_goes_on(folder, tmp_path):
    run_training(folder, tmp_path, run=replace(RUN, stop_after=1))
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    prints = {"data_fingerprint": checkpoint.data_fingerprint, "start_fingerprint": checkpoint.start_fingerprint}
    hashed = checkpoint.recipe | {"content of --concepts": "0"}
    check_same_run(checkpoint, recipe=hashed, **prints, where="run")
    with pytest.raises(RefusedError, match="content of --concepts is None, where it was 0"):
        check_same_run(replace(checkpoint, recipe=hashed), recipe=checkpoint.recipe, **prints, where="run")


def test_reports_that_a_power_cut_filled_with_zeros_do_not_keep_a_run_from_going_on(folder, tmp_path):
    run_training(folder, tmp_path, run=replace(RUN, stop_after=2))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b"\0\0\0\xff\n[]\n")
    assert run_training(folder, tmp_path).finished
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_run_holds_its_folder(folder, tmp_path):
    run_training(folder, tmp_path, run=replace(RUN, stop_after=1))
    release = multiprocessing.Event()
    process = multiprocessing.get_context("fork").Process(target=_hold_until, args=(tmp_path, release))
    process.start()
    while not (tmp_path / "holding").exists():
        assert process.is_alive()
        time.sleep(0.01)
    with pytest.raises(RefusedError, match="another training is at work there"):
        run_training(folder, tmp_path, change(RECIPE, epochs=7))  # before its state is read
    release.set()
    process.join()
    assert run_training(folder, tmp_path).finished


def _hold_until(out: Path, release: Any) -> None:
    with held(out):
        (out / "holding").touch()
        release.wait(60)
