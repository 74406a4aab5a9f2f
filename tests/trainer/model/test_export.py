"""Writing a model where there is no room for it."""

import pytest
import safetensors
import safetensors.torch

from schemas.store_errors import StorageError
from tests.trainer.towers import VIT
from trainer.model.export import export
from trainer.run.load import load_any


def test_a_full_disk_is_told_with_the_folder_and_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    def fails(*_: object) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    model = load_any(VIT).model
    monkeypatch.setattr(safetensors.torch, "save_file", fails)
    with pytest.raises(StorageError, match=r"clip: I/O error: No space left .*: free space"):
        export(model.clip.state_dict(), model, tmp_path / "clip", "local-dir")
    assert not list((tmp_path / "clip").glob("*.partial"))


def test_a_folder_in_the_way_is_told(tmp_path):
    model = load_any(VIT).model
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match="out: is a folder"):
        export(model.clip.state_dict(), model, tmp_path / "out", "open_clip")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a file is in the way"):
        export(model.clip.state_dict(), model, tmp_path / "file" / "deep" / "out.pt", "open_clip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_a_tokenizer_of_another_model_is_replaced(tmp_path):
    model = load_any(VIT).model
    export(model.clip.state_dict(), model, tmp_path / "start", "local-dir")
    (tmp_path / "start" / "tokenizer.json").write_text("{}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tokenizer.json").write_text("old")
    again = load_any(str(tmp_path / "start")).model
    export(again.clip.state_dict(), again, tmp_path / "out", "local-dir")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
