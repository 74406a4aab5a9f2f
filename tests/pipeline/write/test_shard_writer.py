"""Shard files: hashes of what is really on the disk, equal bytes for equal samples, nothing left of an attempt."""

import gc
import hashlib
import io
import os
import tarfile
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.store.commit import FinishedFile
from pipeline.write.shard_writer import HashingFile, ShardWriter
from schemas.names import ShardName
from schemas.reasons import Reason
from schemas.records import ImageRecord, ImageSource, decode_image_record
from schemas.tables import REGION_SCHEMA, RegionRow
from schemas.tar import read_samples

SHARD = ShardName("train", 3)
MIB = 1 << 20


def digest_is_true(file: FinishedFile) -> bool:
    data = file.path.read_bytes()
    return (file.digest.sha256, file.digest.size) == (hashlib.sha256(data).hexdigest(), len(data))


@settings(max_examples=30)
@given(pieces=st.lists(st.binary(max_size=50), max_size=40), flush_after=st.sets(st.integers(0, 39)))
def test_hash_and_bytes_are_those_of_the_pieces(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], flush_after: set[int]
) -> None:
    file = HashingFile(tmp_path_factory.mktemp("hashing") / "a")
    for index, piece in enumerate(pieces):
        assert file.tell() == sum(map(len, pieces[:index]))
        assert file.write(piece) == len(piece)
        if index in flush_after:
            file.flush()
    finished = file.finish()
    assert finished.path.read_bytes() == b"".join(pieces)
    assert digest_is_true(finished)


@pytest.mark.parametrize("sizes", [[MIB - 1, 1, 1], [3 * MIB], [1] * 2000, [0] * 600, []])
def test_across_the_limits_of_a_block(tmp_path: Path, sizes: list[int]) -> None:
    file = HashingFile(tmp_path / "new folder" / "a")
    for index, size in enumerate(sizes):
        file.write(bytes([index % 256]) * size)
    finished = file.finish()
    assert finished.digest.size == sum(sizes)
    assert digest_is_true(finished)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev, write = os.writev, os.write
    monkeypatch.setattr(os, "writev", lambda descriptor, block: writev(descriptor, [b"".join(block)[:5]]))
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    file = HashingFile(tmp_path / "a")
    for piece in (b"0123", b"456789", b"abcdef"):
        file.write(piece)
    finished = file.finish()
    assert finished.path.read_bytes() == b"0123456789abcdef"
    assert digest_is_true(finished)


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        HashingFile(tmp_path / "a")


def test_close_ends_the_hasher_and_can_be_repeated(tmp_path: Path) -> None:
    before = threading.active_count()
    file = HashingFile(tmp_path / "a")
    file.write(b"data")
    assert threading.active_count() == before + 1
    file.close()
    file.close()
    assert file.closed
    assert threading.active_count() == before


def record(key: str, **changes: Any) -> ImageRecord:
    values: dict[str, Any] = {
        "schema_version": "1",
        "key": key,
        "width": 4,
        "height": 3,
        "image_sha256": "0" * 64,
        "reencoded": False,
        "image_caption": f"the caption of {key}",
        "source": ImageSource(uri="a.tar", index=0, url=None, license=None),
        "num_regions": 0,
        "regions": [],
    }
    return ImageRecord(**values | changes)


def row(key: str, **changes: Any) -> RegionRow:
    return RegionRow(**{"key": key, "status": "ok", "shard": str(SHARD)} | changes)


def write_shard(scratch: Path, token: str = "0" * 16) -> dict[str, FinishedFile]:
    writer = ShardWriter(SHARD, scratch, token)
    for key in ("a", "b"):
        offset, size = writer.add_sample(record(key), key.encode() * 700, "jpg")
        writer.add_row(row(key, tar_offset=offset, tar_size=size))
    return writer.finish()


def test_the_tar_is_a_tar_of_the_samples(tmp_path: Path) -> None:
    files = write_shard(tmp_path)
    with tarfile.open(files[SHARD.tar].path) as tar:
        assert tar.getnames() == ["a.jpg", "a.txt", "a.json", "b.jpg", "b.txt", "b.json"]
        assert {(member.mtime, member.uid, member.mode) for member in tar} == {(0, 0, 0o644)}
    with files[SHARD.tar].path.open("rb") as file:
        samples = list(read_samples(file, where="tar"))
    assert [sample.image for sample in samples] == [b"a" * 700, b"b" * 700]
    assert [decode_image_record(sample.json, "json").key for sample in samples] == ["a", "b"]


def test_rows_say_where_the_images_are(tmp_path: Path) -> None:
    files = write_shard(tmp_path)
    table = pq.read_table(files[SHARD.parquet].path)
    assert table.schema.equals(REGION_SCHEMA)
    data = files[SHARD.tar].path.read_bytes()
    for found in table.to_pylist():
        begin, size = found["tar_offset"], found["tar_size"]
        assert data[begin : begin + size] == found["key"].encode() * 700


def test_equal_samples_give_equal_bytes_with_true_hashes(tmp_path: Path) -> None:
    first, second = write_shard(tmp_path / "x", "0" * 16), write_shard(tmp_path / "y", "1" * 16)
    assert [file.digest for file in first.values()] == [file.digest for file in second.values()]
    assert all(map(digest_is_true, [*first.values(), *second.values()]))


def test_a_sample_without_caption_has_no_txt(tmp_path: Path) -> None:
    writer = ShardWriter(SHARD, tmp_path, "token")
    writer.add_sample(record("a", image_caption=None), b"", "png")
    with tarfile.open(fileobj=io.BytesIO(writer.finish()[SHARD.tar].path.read_bytes())) as tar:
        assert tar.getnames() == ["a.png", "a.json"]


def test_rows_are_counted_by_how_they_ended(tmp_path: Path) -> None:
    writer = ShardWriter(SHARD, tmp_path, "token")
    writer.add_row(row("a"))
    writer.add_row(row("b", status="dead", reason="decode"))
    writer.add_row(row("a", region_id="r1"))
    writer.add_row(row("a", region_id="r2", status="filtered", reason="over_limit", count=7))
    assert (writer.images.ok, writer.images.dead) == (1, {Reason.DECODE.value: 1})
    assert (writer.regions.ok, writer.regions.filtered) == (1, {Reason.OVER_LIMIT.value: 7})
    writer.abandon()


def test_an_empty_shard_has_a_table_with_columns(tmp_path: Path) -> None:
    files = ShardWriter(SHARD, tmp_path, "token").finish()
    assert pq.read_schema(files[SHARD.parquet].path).equals(REGION_SCHEMA)
    with tarfile.open(files[SHARD.tar].path) as tar:
        assert tar.getnames() == []


def test_many_rows_go_to_the_file_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.write.shard_writer._ROW_GROUP", 10)
    writer = ShardWriter(SHARD, tmp_path, "token")
    for index in range(25):
        writer.add_row(row(f"k{index}"))
    path = writer.finish()[SHARD.parquet].path
    assert pq.ParquetFile(path).num_row_groups == 3
    assert pq.read_table(path).column("key").to_pylist() == [f"k{index}" for index in range(25)]


def test_abandon_leaves_nothing(tmp_path: Path) -> None:
    before = threading.active_count()
    writer = ShardWriter(SHARD, tmp_path, "token")
    writer.add_sample(record("a"), b"image", "jpg")
    writer.add_row(row("a"))
    writer.abandon()
    writer.abandon()
    del writer
    gc.collect()  # what Arrow does when its writer goes must not be heard of
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before


def test_abandon_after_finish_leaves_nothing(tmp_path: Path) -> None:
    writer = ShardWriter(SHARD, tmp_path, "token")
    writer.finish()
    writer.abandon()
    assert list(tmp_path.iterdir()) == []
