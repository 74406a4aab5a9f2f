import fnmatch
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from pipeline.models.weights import (
    ModelFiles,
    WeightsNotFoundError,
    check_pickled,
    find_file,
    find_model,
    find_published,
)

BYTES = b"weights"
SHA256 = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's cache, empty, where files published at a URL are kept."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def _publish(folder: Path, name: str) -> str:
    (folder / name).write_bytes(BYTES)
    return (folder / name).as_uri()


def test_a_published_file_is_fetched_once(tmp_path: Path, cache: Path) -> None:
    name = f"model-{SHA256[:8]}.pth"
    url = _publish(tmp_path, name)
    files = find_published(url, flag="--weights")
    assert files == ModelFiles(path=cache / name, name=name, revision=None, sha256=SHA256)
    (tmp_path / name).unlink()
    assert find_published(url, flag="--weights") == files


def test_a_published_file_that_cannot_be_fetched_names_the_flag(tmp_path: Path) -> None:
    url = (tmp_path / "model-00000000.pth").as_uri()
    with pytest.raises(WeightsNotFoundError, match=rf"download {url} elsewhere and give --weights its path"):
        find_published(url, flag="--weights")


def test_a_published_file_of_another_hash_is_not_kept(tmp_path: Path, cache: Path) -> None:
    url = _publish(tmp_path, "model-00000000.pth")
    with pytest.raises(WeightsNotFoundError, match="invalid hash value"):
        find_published(url, flag="--weights")
    assert not list(cache.glob("*.pth"))


def test_a_local_file_is_named_by_its_hash(tmp_path: Path) -> None:
    _publish(tmp_path, "a.pth")
    files = find_file(str(tmp_path / "a.pth"), flag="--weights", what="a thing")
    assert (files.name, files.sha256) == ("a.pth", SHA256)
    with pytest.raises(WeightsNotFoundError, match=r"--weights .*b\.pth: .*local path of a thing"):
        find_file(str(tmp_path / "b.pth"), flag="--weights", what="a thing")


@pytest.mark.parametrize("trusted", [None, "0" * 64])
def test_a_pickled_file_needs_its_hash(tmp_path: Path, trusted: str | None) -> None:
    _publish(tmp_path, "a.pt")
    files = find_file(str(tmp_path / "a.pt"), flag="--weights", what="a thing")
    check_pickled(files, SHA256, flag="--weights", hash_flag="--sha256")
    with pytest.raises(WeightsNotFoundError, match=rf"--weights .*a\.pt: .*{SHA256}.*--sha256"):
        check_pickled(files, trusted, flag="--weights", hash_flag="--sha256")


def test_where_no_mini_ships_the_word_is_a_name_like_any_other() -> None:
    with pytest.raises(WeightsNotFoundError, match="--model mini: there is no such file"):
        find_model("mini", mini=None, flag="--model")


COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[1]}})
"""Of weights in two files."""


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of acme/model's newest commit in the hub's cache, empty; the hub itself is out of reach."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = tmp_path / "hub" / "models--acme--model"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    folder = model / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder


def _fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text(INDEX if name.endswith(".index.json") else "{}")


def _hub(name: str = "acme/model") -> ModelFiles:
    return find_model(name, mini=None, flag="--model")


@pytest.mark.parametrize(
    "names",
    [
        ("config.json", "model.safetensors"),
        ("config.json", "pytorch_model.bin"),
        ("model.safetensors.index.json", *SHARDS),
        ("open_clip_config.json", "open_clip_pytorch_model.bin"),
        ("model.safetensors", "pytorch_model.bin.index.json"),  # two formats, of which one is all there
    ],
)
def test_a_model_that_is_all_in_the_cache_needs_no_hub(snapshot: Path, names: tuple[str, ...]) -> None:
    _fill(snapshot, *names)
    assert _hub() == ModelFiles(path=snapshot, name="acme/model", revision=COMMIT, sha256=None)


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("config.json", "tokenizer.json", "preprocessor_config.json"),
        ("config.json", "training_args.bin"),
        ("config.json", "flax_model.msgpack"),
        ("model.safetensors.index.json", SHARDS[0]),
        ("model.safetensors.index.json", "pytorch_model.bin"),  # the first is what is loaded where both are there
        (SHARDS[0], SHARDS[1]),  # the index is missing still
    ],
)
def test_a_download_that_was_broken_off_is_not_a_model(snapshot: Path, names: tuple[str, ...]) -> None:
    _fill(snapshot, *names)
    with pytest.raises(WeightsNotFoundError, match=r"--model acme/model: not in the local cache, or not all of it"):
        _hub()


@pytest.mark.parametrize("names", [("config.json",), ("model.safetensors.index.json", SHARDS[0])])
def test_a_folder_without_all_weights_is_refused_with_its_flag(tmp_path: Path, names: tuple[str, ...]) -> None:
    _fill(tmp_path, *names)
    with pytest.raises(
        WeightsNotFoundError, match=r"--model .*: the folder has no weights .*, or not all .*hf download"
    ):
        find_model(str(tmp_path), mini=None, flag="--model")


@pytest.mark.usefixtures("snapshot")
def test_why_the_hub_cannot_be_reached_is_said() -> None:
    with pytest.raises(WeightsNotFoundError) as told:
        _hub()
    assert "DryRunError" not in str(told.value)
    assert "offline mode is enabled" in str(told.value)


class _FakeHub:
    """Stands in for `snapshot_download`: a repository's files, and which of them were asked for."""

    def __init__(self, snapshot: Path, *names: str) -> None:
        self._snapshot = snapshot
        self._names = names
        self.downloads = 0

    def __call__(
        self,
        name: str,
        *,
        revision: str | None,
        local_files_only: bool = False,
        dry_run: bool = False,
        ignore_patterns: list[str] | None = None,
    ) -> Any:
        assert (name, revision) == ("acme/model", None)
        if dry_run:
            return [SimpleNamespace(filename=file) for file in self._names]
        if local_files_only:
            if not any(self._snapshot.iterdir()):
                raise LocalEntryNotFoundError("nothing is here")
            return str(self._snapshot)
        self.downloads += 1
        ignored = ignore_patterns or []
        _fill(self._snapshot, *(n for n in self._names if not any(fnmatch.fnmatch(n, p) for p in ignored)))
        return str(self._snapshot)


@pytest.fixture
def hub(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., _FakeHub]:
    def holding(*names: str) -> _FakeHub:
        fake = _FakeHub(snapshot, *names)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
        return fake

    return holding


OTHERS = ("flax_model.msgpack", "tf_model.h5", "model.onnx", "model.onnx_data", "rust_model.ot")


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        (("config.json", "model.safetensors"), ("pytorch_model.bin", *OTHERS)),
        (("config.json", "pytorch_model.bin"), OTHERS),
        (
            ("model.safetensors.index.json", *SHARDS),
            ("pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"),
        ),
        (("open_clip_model.safetensors", "model.safetensors"), ("open_clip_pytorch_model.bin", "pytorch_model.bin")),
        (("open_clip_pytorch_model.bin", "model.safetensors"), ("pytorch_model.bin",)),
    ],
)
def test_weights_are_fetched_in_one_format(
    hub: Callable[..., _FakeHub], snapshot: Path, wanted: tuple[str, ...], left: tuple[str, ...]
) -> None:
    repository = hub(*left, *wanted)
    assert _hub().path == snapshot
    assert sorted(file.name for file in snapshot.iterdir()) == sorted(wanted)
    assert _hub().path == snapshot
    assert repository.downloads == 1


def test_a_download_that_was_broken_off_is_taken_up_again(hub: Callable[..., _FakeHub], snapshot: Path) -> None:
    _fill(snapshot, "config.json", "model.safetensors.index.json", SHARDS[0])
    repository = hub("config.json", "model.safetensors.index.json", *SHARDS)
    assert _hub().path == snapshot
    assert (snapshot / SHARDS[1]).exists()
    assert repository.downloads == 1


def test_a_repository_without_weights_is_no_model(hub: Callable[..., _FakeHub]) -> None:
    hub("README.md", "config.json", "flax_model.msgpack")
    with pytest.raises(WeightsNotFoundError, match=r"--model acme/model: .* no weights .*\.safetensors"):
        _hub()


@pytest.mark.parametrize("kind", [GatedRepoError, RepositoryNotFoundError])
def test_a_model_that_the_hub_does_not_show_is_told_from_one_that_cannot_be_reached(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch, kind: type[RepositoryNotFoundError]
) -> None:
    def refuse(name: str, *, local_files_only: bool = False, **_: Any) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("nothing is here")
        response: Any = SimpleNamespace(headers={}, request=None)
        raise kind("no", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(WeightsNotFoundError, match=r"--model acme/model: .*accepted its terms.*hf auth login"):
        _hub()


def test_a_model_that_cannot_be_reached_comes_with_the_command_that_downloads_it(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, *, local_files_only: bool = False, **_: Any) -> str:
        raise LocalEntryNotFoundError("nothing is here") if local_files_only else OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(WeightsNotFoundError, match=r"`hf download acme/model --local-dir FOLDER`"):
        _hub()
