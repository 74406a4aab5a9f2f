"""Models of runs whose start has changed since."""

import io

import pytest
import torch
from rich.console import Console

from schemas.dataset import Dataset
from tests.trainer.runs import RECIPE, change, write_data
from tests.trainer.towers import VIT
from trainer.errors import TrainingError
from trainer.hyperparameters import ModelSettings
from trainer.model.export import export
from trainer.model.open import load_model
from trainer.run.load import load_any
from trainer.run.loop import train
from trainer.run.train_settings import TrainSettings


def test_a_share_of_a_start_that_changed_is_refused(tmp_path):
    start, run = tmp_path / "start.pt", tmp_path / "run"
    models = [load_model(ModelSettings(model=VIT), seed=seed) for seed in (1, 2)]
    export(models[0].clip.state_dict(), models[0], start, "open_clip")
    recipe = change(RECIPE, pretrained=str(start), alpha=0.5, epochs=1)
    settings = TrainSettings(workers=0, device="cpu", threads=1)
    console = Console(file=io.StringIO())
    data = Dataset.open(write_data(tmp_path / "data"))
    train(data, run, recipe, settings, device=torch.device("cpu"), console=console)
    load_any(str(run))
    export(models[1].clip.state_dict(), models[1], start, "open_clip")
    with pytest.raises(TrainingError, match=r"start.pt: holds other weights than those that the run started from"):
        load_any(str(run))
    load_any(str(run), alpha=1.0)


def test_a_folder_may_be_exported_onto_itself(tmp_path):
    model = load_any(VIT).model
    export(model.clip.state_dict(), model, tmp_path / "clip", "local-dir")
    (tmp_path / "clip" / "tokenizer.json").write_text("{}")
    again = load_any(str(tmp_path / "clip")).model
    export(again.clip.state_dict(), again, tmp_path / "clip", "local-dir")
    assert (tmp_path / "clip" / "tokenizer.json").read_text() == "{}"
    load_any(str(tmp_path / "clip"))


def test_a_disk_without_room_for_an_export_is_told(tmp_path):
    model = load_any(VIT).model
    (tmp_path / "weights.pt.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"weights.pt: No space left on device; .*free space"):
        export(model.clip.state_dict(), model, tmp_path / "weights.pt", "open_clip")
    assert not list(tmp_path.iterdir())
