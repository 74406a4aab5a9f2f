"""Files of weights as other tools leave them, and as disks and copies damage them."""

import zipfile
from pathlib import Path

import pytest
import torch

from tests.trainer.towers import VIT
from trainer.errors import TrainingError
from trainer.hyperparameters import ModelSettings
from trainer.model.open import load_model, read_state
from trainer.model.saved_file import load_saved
from trainer.run.checkpoints import load_checkpoint
from trainer.run.files import find_checkpoint


def test_one_changed_bit_of_the_weights_is_told(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    assert torch.equal(load_saved(path, "weights")["a"], torch.ones(1000))
    content[content.index(torch.ones(1000).numpy().tobytes()) + 2002] ^= 0x01
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(1000))  # torch itself says nothing
    for read in (read_state, load_checkpoint):
        with pytest.raises(TrainingError, match=r"weights.pt: damaged since it was written .*data/0.* fetch it again"):
            read(str(path))


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {0: torch.zeros(3)}], ids=["list", "tensor", "numbers"])
def test_what_holds_no_tensors_by_name_is_told(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    for read in (read_state, load_checkpoint):
        with pytest.raises(TrainingError, match=r"other.pt: not a checkpoint .*no tensors by name"):
            read(str(tmp_path / "other.pt"))


def test_an_empty_file_is_told(tmp_path):
    (tmp_path / "empty.pt").write_bytes(b"")
    for read in (read_state, load_checkpoint):
        with pytest.raises(TrainingError, match=r"empty.pt: not a checkpoint"):
            read(str(tmp_path / "empty.pt"))


def test_a_program_of_torch_script_is_told_with_what_to_give(tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    # The archive that OpenAI offers is told from others by this one file in it.
    torch.save({"a": torch.zeros(1)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{path.stem}/constants.pkl", b"")
    with pytest.raises(TrainingError, match=r"TorchScript program.*--pretrained openai") as raised:
        read_state(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_compiled_and_distributed_models_are_the_model_s(tmp_path, prefix):
    state = load_model(ModelSettings(model=VIT), seed=7).clip.state_dict()
    path = tmp_path / "epoch_1.pt"
    torch.save({"epoch": 1, "model": "ViT", "state_dict": {prefix + name: t for name, t in state.items()}}, path)
    loaded = load_model(ModelSettings(model=VIT, pretrained=str(path))).clip.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_a_checkpoint_of_other_fields_is_told(tmp_path):
    torch.save({"checkpoint_version": "2", "model": {}}, tmp_path / "last.pt")
    with pytest.raises(TrainingError, match=r"last.pt: not a checkpoint .*: it holds model"):
        load_checkpoint(tmp_path / "last.pt")


def test_a_folder_named_by_the_time_is_no_model_and_tag(tmp_path):
    run = tmp_path / "2026-01-31T10:00"
    run.mkdir()
    with pytest.raises(TrainingError, match=r"10:00/last.pt: no checkpoint is there"):
        find_checkpoint(str(run))
    (run / "last.pt").write_bytes(b"")
    assert find_checkpoint(str(run)) == find_checkpoint(str(run / "last.pt")) == Path(run / "last.pt")
    assert find_checkpoint(f"{VIT}:weights.pt") is None


def test_a_file_that_was_written_without_checksums_loads(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(1000)}, tmp_path / "weights.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load_saved(tmp_path / "weights.pt", "weights")["a"], torch.ones(1000))
