import hashlib
from pathlib import Path

import pytest

from pipeline.weights import ModelFiles, WeightsNotFoundError, check_pickled, find_file, find_model, find_published

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
    assert list(cache.iterdir()) == []


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
