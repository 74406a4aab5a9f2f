"""A small sound data set, and ways to spoil it. Hashes are made anew where the fault is not about hashes."""

import dataclasses
import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.hashes import sha256, text_hash, text_sha256
from schemas.names import ShardName
from schemas.records import FileDigest, ShardMarker, decode_shard_marker, encode
from schemas.tar import END
from tests.shards import TinySample, tar_member, tiny_sample, to_parquet, write_shard

SHARDS = (
    (tiny_sample("a"), tiny_sample("b", suffix="jpg", image_caption=None), tiny_sample("c")),
    (tiny_sample("d", num_regions=0, num_filtered=0), tiny_sample("e", num_regions=3, suffix="webp")),
)
FIRST = ShardName("train", 0)


def write_sound(url: str | Path) -> list[ShardMarker]:
    return [write_shard(str(url), samples, index=index, dead=["z"]) for index, samples in enumerate(SHARDS)]


def write_first(folder: Path, samples: Sequence[TinySample]) -> None:
    """Write the first shard anew, consistent but for what is wrong with `samples`."""
    write_shard(str(folder), samples, dead=["z"])


def with_region(key: str, position: int, **fields) -> tuple[TinySample, ...]:
    """Return the first shard's samples, one region changed."""
    return tuple(_with_region(one, position, fields) if one.record.key == key else one for one in SHARDS[0])


def _with_region(sample: TinySample, position: int, fields) -> TinySample:
    regions = list(sample.record.regions)
    if "caption" in fields:
        fields = {**fields, "text_hash": text_hash(fields["caption"])}
    regions[position] = msgspec.structs.replace(regions[position], **fields)
    return dataclasses.replace(sample, record=msgspec.structs.replace(sample.record, regions=regions))


def with_image(key: str, image: bytes) -> tuple[TinySample, ...]:
    """Return the first shard's samples, one image replaced and its hash with it."""

    def change(sample: TinySample) -> TinySample:
        record = msgspec.structs.replace(sample.record, image_sha256=sha256(image))
        return dataclasses.replace(sample, image=image, record=record)

    return tuple(change(one) if one.record.key == key else one for one in SHARDS[0])


Members = list[tuple[str, bytes]]


def change_tar(folder: Path, change: Callable[[Members], Members]) -> None:
    """Write the first shard's tar with other members, and its marker with the tar's hash."""
    with tarfile.open(folder / FIRST.tar) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    content = b"".join(tar_member(name, data) for name, data in change(members)) + END
    (folder / FIRST.tar).write_bytes(content)
    change_marker(folder, tar=FileDigest(sha256=sha256(content), size=len(content)))


def change_table(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write the first shard's table changed, and its marker with the table's hash."""
    content = to_parquet(change(pq.read_table(folder / FIRST.parquet)))
    (folder / FIRST.parquet).write_bytes(content)
    change_marker(folder, parquet=FileDigest(sha256=sha256(content), size=len(content)))


def change_cell(table: pa.Table, column: str, key: str, position: int, value) -> pa.Table:
    """Return the table with one cell changed: row `position` of `key`, whose own row is 0."""
    row = table["key"].to_pylist().index(key) + position
    values = table[column].to_pylist()
    values[row] = value
    place = table.column_names.index(column)
    return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))


def change_caption(table: pa.Table, key: str, position: int, caption: str) -> pa.Table:
    for column, value in (
        ("caption", caption),
        ("text_hash", text_hash(caption)),
        ("text_sha256", text_sha256(caption)),
    ):
        table = change_cell(table, column, key, position, value)
    return table


def change_marker(folder: Path, **fields) -> None:
    path = folder / FIRST.marker
    marker = decode_shard_marker(path.read_bytes(), "the marker")
    path.write_bytes(encode(msgspec.structs.replace(marker, **fields)))


def replace_in(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) >= 1
    path.write_bytes(content.replace(old, new, 1))


def flip_byte(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def offset_of(folder: Path, name: str) -> int:
    """Return where the data of a member of the first tar begins."""
    with tarfile.open(fileobj=io.BytesIO((folder / FIRST.tar).read_bytes())) as tar:
        return tar.getmember(name).offset_data
