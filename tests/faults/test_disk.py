"""A full disk, a disk that cannot be written: a sentence, exit 5, and a resume once there is room."""

import gzip
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import digests, write_tars
from tests.faults import jobs

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root: this is NOT tested here"),
]
FLAGS: tuple[tuple[str, ...], ...] = ((), ("--workers", "2"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a quarter of a megabyte, read-write."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"root may not mount here, so this is NOT tested: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


@pytest.fixture(scope="module")
def large_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tars of which each shard takes about 110 KB."""
    return write_tars(tmp_path_factory.mktemp("large"), num_tars=4, num_images=14)


@pytest.fixture(scope="module")
def wanted(large_source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a job that had room."""
    output = tmp_path_factory.mktemp("room") / "out"
    assert jobs.run(large_source, output).code == 0
    return digests(output)


@pytest.mark.parametrize("flags", FLAGS)
def test_a_disk_that_fills_up(
    large_source: Path, wanted: dict[str, str], small_disk: Path, flags: tuple[str, ...]
) -> None:
    output = small_disk / "out"
    full = jobs.run(large_source, output, *flags)
    assert full.code == 5, full.text
    assert "the disk is full: free space, then run the same command again; finished shards are kept" in full.text
    assert "Traceback" not in full.text
    _remount(small_disk, "size=8m")
    resumed = jobs.run(large_source, output, *flags)
    assert resumed.code == 0, resumed.text
    assert digests(output) == wanted


def test_a_disk_without_a_byte_left(large_source: Path, wanted: dict[str, str], small_disk: Path) -> None:
    """Not even the log of the trouble can be written."""
    output = small_disk / "out"
    _fill(small_disk / "filler", 200_000)
    assert jobs.run(large_source, output).code == 5, "there is room for the plan alone"
    _fill(small_disk / "more filler", 1_000_000)
    full = jobs.run(large_source, output)
    assert full.code == 5, full.text
    assert "the disk is full" in full.text
    _remount(small_disk, "size=8m")
    assert jobs.run(large_source, output).code == 0
    assert digests(output) == wanted


def _fill(path: Path, at_most: int) -> None:
    """Write zeros until the file is this large or the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            for _ in range(at_most // 1000):
                file.write(bytes(1000))
        except OSError:
            return


def test_an_output_that_cannot_be_written(source: Path, small_disk: Path) -> None:
    _remount(small_disk, "ro")
    refused = jobs.run(source, small_disk / "out")
    assert refused.code == 5, refused.text
    assert "the file system is read-only: choose another OUTPUT" in refused.text
    assert "Traceback" not in refused.text


def test_a_data_set_that_became_read_only(source: Path, small_disk: Path) -> None:
    _remount(small_disk, "size=8m")
    assert jobs.run(source, small_disk / "out").code == 0
    (small_disk / "out" / "train-000001.json").unlink()
    (small_disk / "out" / "_commit" / "train-000001.json").unlink()
    _remount(small_disk, "ro")
    refused = jobs.run(source, small_disk / "out")
    assert refused.code == 5, refused.text
    assert "read-only" in refused.text


def test_a_temporary_folder_that_fills_up_is_named_and_not_the_output(
    large_source: Path, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compressed tar is unpacked there."""
    source = tmp_path / "packed"
    source.mkdir()
    for path in large_source.glob("*.tar"):
        (source / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    monkeypatch.setenv("TMPDIR", str(small_disk))
    _fill(small_disk / "filler", 200_000)
    output = tmp_path / "out"
    full = jobs.run(source, output)
    assert full.code == 5, full.text
    assert f"{small_disk}: No space left on device; the disk is full: free space" in full.text
    assert str(output) not in full.text
    assert "Traceback" not in full.text
    (small_disk / "filler").unlink()
    assert jobs.run(source, output).code == 0
