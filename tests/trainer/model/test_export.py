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
