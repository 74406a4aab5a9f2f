import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.names import ShardName, overlay_of_file, shard_of_marker


@given(st.sampled_from(["train", "val"]), st.integers(0, 10**8))
def test_a_shards_files_lead_back_to_it(split, index):
    shard = ShardName(split, index)
    assert ShardName.parse(str(shard)) == shard
    assert shard_of_marker(shard.marker) == shard
    assert {shard.tar, shard.parquet, shard.marker} == {f"{shard}.{suffix}" for suffix in ("tar", "parquet", "json")}
    assert overlay_of_file(f"{shard}.blip2.parquet") == overlay_of_file(f"{shard}.blip2.json") == (shard, "blip2")


@pytest.mark.parametrize(
    "name",
    ["dataset.json", "train-000000.tar", "train-00000.json", "test-000000.json", "train-0.blip2.json", "train-000000"],
)
def test_other_files_are_no_markers(name):
    assert shard_of_marker(name) is None


@pytest.mark.parametrize("name", ["train-000000.json", "train-000000.Blip.json", "train-000000..json", "x.blip2.json"])
def test_other_files_are_no_overlays(name):
    assert overlay_of_file(name) is None


def test_shards_sort_by_split_then_number():
    names = ["val-000000", "train-000010", "train-000009", "train-1000000"]
    assert sorted(names, key=ShardName.parse) == ["train-000009", "train-000010", "train-1000000", "val-000000"]
