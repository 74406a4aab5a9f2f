"""A data set in a bucket is repaired as one in a folder is; a full disk is told, and the same command goes on."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.store.local import LocalStorage
from schemas.dataset import Dataset
from tests.builders import annotate, data_files, run
from tests.pipeline.retry.conftest import mend, shard_files
from tests.pipeline.store.conftest import running_server, server  # noqa: F401 - fixtures
from tests.pipeline.store.s3_server import BUCKET, S3Server

OUTPUT = f"s3://{BUCKET}/out"
SIZE = ("--shard-size", "4")


def in_bucket() -> dict[str, bytes]:
    fs = fsspec.filesystem("s3")
    fs.invalidate_cache()
    entries = fs.ls(f"{BUCKET}/out", detail=True)
    return {each["name"].rsplit("/", 1)[-1]: fs.cat_file(each["name"]) for each in entries if each["type"] == "file"}


def test_in_a_bucket(source: Path, tmp_path: Path, server: S3Server) -> None:  # noqa: F811
    annotate(source, OUTPUT, *SIZE)
    before = in_bucket()
    opened = Dataset.open(OUTPUT)
    (row,) = opened.regions(["tar_offset", "tar_size"], ["train-000000"]).slice(8, 1).to_pylist()
    mend(source, 1, 5, 7)
    server.asked.clear()
    assert run("retry", OUTPUT, "--where", "reason=decode").code == 0
    annotate(source, tmp_path / "clean", *SIZE)
    assert in_bucket() == data_files(tmp_path / "clean")
    untouched = [name for name in before if name.startswith("train-000002")]
    assert not [asked for asked in server.asked if asked.startswith("PUT") and any(name in asked for name in untouched)]
    assert {name: before[name] for name in untouched} == {name: in_bucket()[name] for name in untouched}
    with pytest.raises(Exception, match="was repaired since"):
        opened.read_image("train-000000", tar_offset=row["tar_offset"], tar_size=row["tar_size"])


@pytest.mark.parametrize("operation", ["settle", "create", "publish", "decide"])
def test_a_full_disk_is_told_and_the_same_command_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    output = tmp_path / "out"
    annotate(source, output, *SIZE)
    before = shard_files(output)
    mend(source, 1, 5, 7)
    undisturbed: Callable[..., Any] = getattr(LocalStorage, operation)

    def full(self: LocalStorage, *arguments: Any) -> Any:
        if any("train-000001" in str(argument) for argument in arguments[:2]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
        return undisturbed(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, operation, full)
        failed = run("retry", output, "--where", "reason=decode")
    assert (failed.code, "the disk is full" in failed.err) == (5, True), failed
    if operation in ("settle", "create"):
        assert {name: data for name, data in shard_files(output).items() if "000001" in name} == {
            name: data for name, data in before.items() if "000001" in name
        }
    assert run("retry", output, "--where", "reason=decode").code == 0
    annotate(source, tmp_path / "clean", *SIZE)
    assert shard_files(output) == shard_files(tmp_path / "clean")
