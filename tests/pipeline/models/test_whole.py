"""Files of models that are not what their names say are told before any work, by flag and file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.models.weights import WeightsNotFoundError, find_file, find_model, sha256_of

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in the hub's layout, whole."""
    save_file({"a": np.zeros(100, np.float32), "b": np.ones(3, np.int8)}, tmp_path / WEIGHTS)
    (tmp_path / "config.json").write_text('{"model_type": "detr"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def _find(folder: Path) -> str | None:
    return find_model(str(folder), mini=None, flag="--propose.model").sha256


def _cut(file: Path, by: Callable[[int], int]) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: by(len(data))])


def test_a_whole_folder_is_taken(folder: Path) -> None:
    assert _find(folder) == sha256_of(folder)


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_told_from_the_file(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    with pytest.raises(WeightsNotFoundError, match=rf"--propose.model {folder}: {name} is a pointer .*lfs pull"):
        _find(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.fp16.safetensors"])
def test_a_pointer_beside_what_is_loaded_does_no_harm(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    assert _find(folder)


@pytest.mark.parametrize(
    ("by", "says"),
    [
        (lambda size: size - 1, r"has \d+ of the \d+ bytes that its header names"),
        (lambda size: 20, r"\(20 bytes\) is no safetensors, or the first part of one"),
        (lambda size: 3, r"\(3 bytes\) is no safetensors"),
        (lambda size: 0, r"\(0 bytes\) is no safetensors"),
    ],
)
def test_weights_that_end_early_are_told(folder: Path, by: Callable[[int], int], says: str) -> None:
    _cut(folder / WEIGHTS, by)
    with pytest.raises(WeightsNotFoundError, match=rf"--propose.model {folder}: {WEIGHTS} {says}.*download it anew"):
        _find(folder)


def test_one_of_several_files_that_ends_early_is_named(folder: Path) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        save_file({name: np.zeros(100, np.float32)}, folder / name)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {name: name for name in names}}))
    assert _find(folder)
    sha256_of.cache_clear()
    _cut(folder / names[1], lambda size: size - 7)
    with pytest.raises(WeightsNotFoundError, match=rf"{names[1]} has \d+ of the \d+ bytes"):
        _find(folder)


@pytest.mark.parametrize("index", ["{", "[]", '{"weights": {}}', '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_cannot_be_read_is_told(folder: Path, index: str) -> None:
    (folder / f"{WEIGHTS}.index.json").write_text(index)
    with pytest.raises(WeightsNotFoundError, match=rf"--propose.model .*{WEIGHTS}.index.json is no index of weights"):
        _find(folder)


def test_a_pointer_in_the_place_of_an_index_is_told(folder: Path) -> None:
    (folder / f"{WEIGHTS}.index.json").write_text(POINTER)
    with pytest.raises(WeightsNotFoundError, match=rf"{WEIGHTS}.index.json is a pointer of Git LFS"):
        _find(folder)


@pytest.mark.parametrize(("name", "says"), [("yolov9c.pt", "is a pointer"), ("rpn.safetensors", "is a pointer")])
def test_a_single_file_is_looked_at_too(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(WeightsNotFoundError, match=rf"--propose.model .*: {name} {says}"):
        find_file(str(tmp_path / name), flag="--propose.model", what="a checkpoint")
