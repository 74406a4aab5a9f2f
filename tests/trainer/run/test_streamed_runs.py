"""Runs on streamed shards: the losses of the joined batch though processes run out, and killed and resumed the same."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import trainer.run.loop
from schemas.dataset import Dataset
from tests.trainer.processes import run_processes
from tests.trainer.run.test_loop import RUN, assert_same_run, kill_at, lines, run_training
from tests.trainer.runs import RECIPE, change, write_data
from trainer.data.batch import LoadedBatch
from trainer.data.index import build_index
from trainer.data.streams import StreamedBatches
from trainer.errors import RefusedError, StoppedError
from trainer.loss.gather import rank
from trainer.run.checkpoints import load_checkpoint
from trainer.run.loop import train

STREAM = change(RECIPE, stream=True)
SIZES = (9, 2, 1, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("data"), SIZES)


def test_it_trains_on_each_image_once_an_epoch_and_says_how(folder, tmp_path):
    said = io.StringIO()
    console = Console(file=said, width=500)
    assert train(Dataset.open(folder), tmp_path, STREAM, RUN, device=torch.device("cpu"), console=console).finished
    assert lines(tmp_path)[-1]["samples_seen"] == 2 * sum(SIZES)
    assert "streaming 4 shards to 1 process: 5 steps in the first epoch\n" in said.getvalue()


def test_killed_anywhere_and_resumed_it_is_the_same_to_the_bit(folder, tmp_path):
    recipe = change(STREAM, epochs=3)
    run_training(folder, tmp_path / "expected", recipe)
    found = tmp_path / "found"
    for seen, workers in ((1, 0), (4, 2), (8, 0)):
        run = replace(RUN, workers=workers)
        kill_at(folder, found, recipe, run, when=lambda seen=seen: num_lines(found) >= seen)
    assert run_training(folder, found, recipe).finished
    assert_same_run(found, tmp_path / "expected")


def num_lines(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def _train(folder: str, out: str) -> dict[str, torch.Tensor]:
    console = Console(file=io.StringIO())
    train(Dataset.open(folder), Path(out), STREAM, RUN, device=torch.device("cpu"), console=console)
    return {"seen": torch.tensor(lines(Path(out))[-1]["samples_seen"])} if rank() == 0 else {}


class Joined(StreamedBatches):
    """What several processes have together, for one."""

    def loaded(self, first_step, last_step, num_workers):
        places = ({"rank": number, "world_size": 3} for number in range(3))
        parts = [
            StreamedBatches(self._dataset, self._index, order=STREAM.order, samples=STREAM.samples, **place)
            for place in places
        ]
        self.had_empty_parts = any(not part[step].keys for part in parts for step in range(last_step))
        yield from [joined([part[step] for part in parts]) for step in range(first_step, last_step)]


def joined(parts: list[LoadedBatch]) -> LoadedBatch:
    firsts = [sum(len(part.keys) for part in parts[:number]) for number in range(len(parts))]
    owners = [part.region_image_index + first for part, first in zip(parts, firsts, strict=True)]
    names = ("image_index", "caption_index", "pixels", "image_sizes", "boxes_norm", "crop_boxes", "region_index")
    return LoadedBatch(
        keys=sum((part.keys for part in parts), ()),
        skipped=(),
        region_image_index=torch.cat(owners),
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in names},
    )


def test_losses_are_those_of_the_joined_batch_where_processes_have_run_out(folder, tmp_path, monkeypatch):
    """Three processes, four uneven shards: most steps have an empty part."""
    run_processes(_train, 3, folder, str(tmp_path / "found"))
    dataset = Dataset.open(folder)
    index = build_index(dataset, "train")
    place = {"rank": 0, "world_size": 3}
    together = Joined(dataset, index, order=STREAM.order, samples=STREAM.samples, **place)
    monkeypatch.setattr(trainer.run.loop, "open_batches", lambda *_, **__: together)
    run_training(folder, tmp_path / "expected", STREAM)
    assert together.had_empty_parts
    ours, theirs = lines(tmp_path / "found"), lines(tmp_path / "expected")
    assert len(ours) == len(theirs)
    for found, expected in zip(ours, theirs, strict=True):
        assert found["samples_seen"] == expected["samples_seen"]
        assert found["duplicate_rate"] == pytest.approx(expected["duplicate_rate"])
        for loss in ("global_loss", "region_loss", "distill_loss", "loss"):
            assert found[loss] == pytest.approx(expected[loss], rel=1e-4, abs=1e-6)
    weights = [load_checkpoint(tmp_path / name / "last.pt").model for name in ("found", "expected")]
    for name, tensor in weights[1].items():
        assert torch.allclose(weights[0][name], tensor, atol=2e-4), name


def _go_on(folder: str, out: str) -> str:
    try:
        _train(folder, out)
    except RefusedError as error:
        return str(error)
    return "nothing was refused"


def test_another_number_of_processes_is_refused(folder, tmp_path):
    run_training(folder, tmp_path / "run", STREAM, replace(RUN, stop_after=1))
    for told in run_processes(_go_on, 2, folder, str(tmp_path / "run")):
        assert "number of processes (of --stream) is 2, where it was 1" in told


def test_a_run_is_streamed_or_not(folder, tmp_path):
    run_training(folder, tmp_path / "run", RECIPE, replace(RUN, stop_after=1))
    with pytest.raises(RefusedError, match="stream is True, where it was False"):
        run_training(folder, tmp_path / "run", STREAM)


def test_a_shortened_tar_stops_the_run_and_is_named_with_its_first_image(tmp_path, monkeypatch):
    folder = write_data(tmp_path, (20, 3))
    dataset = Dataset.open(folder)
    tar = tmp_path / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    console = Console(file=io.StringIO())
    with pytest.raises(StoppedError, match=r"samples cannot be used; the first: key-\d+: .*train-000000\.tar: .*again"):
        train(dataset, tmp_path / "run", STREAM, RUN, device=torch.device("cpu"), console=console)
