import json
import pickle

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from schemas import filters
from schemas.dataset import Dataset, DatasetError
from schemas.tables import FILTER_SCHEMA
from tests.shards import ids_of, tiny_sample, to_parquet, write_file, write_shard

SHARDS = [[tiny_sample("a"), tiny_sample("b")], [tiny_sample("c", num_regions=0), tiny_sample("d", num_regions=3)]]


@pytest.fixture
def url(tmp_path):
    for index, samples in enumerate(SHARDS):
        write_shard(str(tmp_path / "data"), samples, index=index, dead=["z"])
    return str(tmp_path / "data")


def row(key, position=None, *, keep=False, **more):
    """Return a filter row for an image, or for its region at `position`."""
    record = next(sample.record for samples in SHARDS for sample in samples if sample.record.key == key)
    return {"key": key, "region_id": None if position is None else record.regions[position].id, "keep": keep, **more}


@pytest.fixture
def write_list(tmp_path):
    def write(*rows, name="list.jsonl"):
        if name.endswith(".parquet"):
            content = to_parquet(pa.Table.from_pylist(list(rows), schema=FILTER_SCHEMA))
        else:
            content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        write_file(str(tmp_path), name, content)
        return str(tmp_path / name)

    return write


def keys_and_counts(dataset):
    return [(s.key, s.record.num_regions) for shard in dataset.shards for s in dataset.samples(shard)]


@pytest.mark.parametrize("name", ["list.jsonl", "list.parquet"])
def test_a_list_drops_regions_and_whole_images(url, write_list, name):
    path = write_list(row("a", 1), row("b"), row("d", 0, keep=True), row("d", 2, note="blurred"), name=name)
    dataset = Dataset.open(url, filters=[path])
    assert keys_and_counts(dataset) == [("a", 1), ("c", 0), ("d", 2)]
    gone = {f"a/{SHARDS[0][0].record.regions[1].id}", f"d/{SHARDS[1][1].record.regions[2].id}"}
    base, seen = Dataset.open(url).regions(), dataset.regions()
    keys = base["key"].to_pylist()
    kept = [key != "b" and row_id not in gone for key, row_id in zip(keys, ids_of(base), strict=True)]
    assert seen == base.filter(pa.array(kept))
    assert pa.Table.from_batches(list(dataset.region_batches(["caption"]))) == seen.select(["caption"])


def test_random_access_sees_the_same(url, write_list):
    dataset = Dataset.open(url, filters=[write_list(row("b"), row("d", 1))])
    assert [dataset.read_sample(sample.key) for sample in dataset.samples("train-000001")] == list(
        dataset.samples("train-000001")
    )
    with pytest.raises(DatasetError, match="a filter list drops the image 'b'"):
        dataset.read_sample("b")


def test_a_region_that_was_filtered_anyway_may_be_named(url, write_list):
    rows = Dataset.open(url).regions().to_pylist()
    filtered = next(row for row in rows if row["status"] == "filtered")
    path = write_list({"key": filtered["key"], "region_id": filtered["region_id"], "keep": False}, row("c", keep=True))
    assert keys_and_counts(Dataset.open(url, filters=[path])) == keys_and_counts(Dataset.open(url))
    assert len(Dataset.open(url, filters=[path]).regions()) == len(rows) - 1


def test_several_lists_drop_what_any_drops(url, write_list):
    first = write_list(row("a", 0), name="1.jsonl")
    second = write_list(row("a", 1), row("a", 0, keep=True), name="2.json")
    assert keys_and_counts(Dataset.open(url, filters=[first, second]))[0] == ("a", 0)


def test_groups_of_shards_are_matched_alike(url, write_list, monkeypatch):
    path = write_list(row("a", 1), row("b"), row("d", 2))
    whole = Dataset.open(url, filters=[path]).regions()
    monkeypatch.setattr(filters, "_GROUP_ROWS", 1)
    assert Dataset.open(url, filters=[path]).regions() == whole


def test_rows_can_be_looked_for_without_a_data_set(url, write_list, monkeypatch):
    monkeypatch.setattr(filters, "_GROUP_ROWS", 1)
    ids = Dataset.open(url).regions(["key", "region_id"])
    tables = [ids.slice(0, 3), ids.slice(3)]
    filters.check_rows([filters.load_filter(write_list(row("a", 1), row("d", keep=True)))], tables)
    with pytest.raises(DatasetError, match="no such image in the data set: d"):
        filters.check_rows([filters.load_filter(write_list(row("a", 1), row("d", keep=True)))], tables[:1])


def test_what_pandas_writes_is_read(url, tmp_path):
    rows = pd.DataFrame([row("a", 0), row("b", keep=True)])
    rows.to_parquet(tmp_path / "pandas.parquet")
    dataset = Dataset.open(url, filters=[tmp_path / "pandas.parquet"])
    assert keys_and_counts(dataset)[0] == ("a", 1)
    rows.assign(region_id=None).to_parquet(tmp_path / "nulls.parquet")
    assert keys_and_counts(Dataset.open(url, filters=[tmp_path / "nulls.parquet"]))[0] == ("b", 2)


def test_lists_travel_with_the_data_set(url, write_list, tmp_path):
    path = write_list(row("b"))
    dataset = Dataset.open(url, filters=[path])
    (tmp_path / "list.jsonl").unlink()
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.regions() == dataset.regions()
    assert copy.data_fingerprint() == dataset.data_fingerprint() != Dataset.open(url).data_fingerprint()


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lists_are_read_from_anywhere(url, mark):
    with fsspec.open("memory://lists/x.jsonl", "wb") as file:
        file.write(f"{mark}{json.dumps(row('b'))}\r\n".encode())
    assert keys_and_counts(Dataset.open(url, filters=["memory://lists/x.jsonl"])) == [("a", 2), ("c", 0), ("d", 3)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"key": "nobody", "region_id": None, "keep": True}], "no such image in the data set: nobody; "),
        ([{"key": f"n{i}", "region_id": None, "keep": False} for i in range(5)], "image .*: n0, n1, n2 and 2 more"),
        ([{"key": "a", "region_id": "0" * 16, "keep": False}], "no such region in the data set: a/0000000000000000"),
        ([row("a", 0) | {"key": "b"}], "no such region in the data set: b/"),
        ([row("a"), row("a", keep=True)], "both keeps and drops a; leave one"),
        ([row("a", 0), row("a", 0, keep=True)], "both keeps and drops a/"),
        ([{"key": "a"}], "not JSON lines of key, region_id, keep: .*missing required field `keep`"),
        ([row("a", why="x")], "unknown field `why`"),
        ([row("a", keep="no")], "Expected `bool`, got `str`"),
    ],
)
def test_lists_that_do_not_fit_are_named(url, write_list, rows, message):
    with pytest.raises(DatasetError, match=rf"list\.jsonl: .*{message}"):
        Dataset.open(url, filters=[write_list(*rows)])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"key": ["a"], "keep": [False]}, r"columns \['key', 'keep'\], where key, region_id, keep and note belong"),
        ({"key": ["a"], "region_id": [None], "keep": [None]}, "keep is null in some rows"),
        ({"key": [1.5], "region_id": [[1]], "keep": [True]}, "not a filter list in Parquet"),
    ],
)
def test_parquet_lists_that_do_not_fit_are_named(url, tmp_path, columns, message):
    write_file(str(tmp_path), "list.parquet", to_parquet(pa.table(columns)))
    with pytest.raises(DatasetError, match=rf"list\.parquet: .*{message}"):
        Dataset.open(url, filters=[tmp_path / "list.parquet"])


def test_parquet_lists_with_a_column_twice_or_text_that_is_none_are_named(url, tmp_path):
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["a"]), pa.array([False])], names=["key", "key", "keep"])
    odd = pa.table({"key": pa.array([b"caf\xe9"]).view(pa.string()), "region_id": ["x"], "keep": [False]})
    for table, message in ((twice, r"not a filter list in Parquet: .*key"), (odd, "not a filter list in Parquet")):
        write_file(str(tmp_path), "list.parquet", to_parquet(table))
        with pytest.raises(DatasetError, match=message):
            Dataset.open(url, filters=[tmp_path / "list.parquet"])


def test_lists_that_are_not_there_or_of_another_kind_are_named(url, tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.jsonl: cannot read this filter list"):
        Dataset.open(url, filters=[tmp_path / "gone.jsonl"])
    with pytest.raises(DatasetError, match=r"list\.csv: a filter list is a \.parquet file, or JSON lines"):
        Dataset.open(url, filters=[tmp_path / "list.csv"])
    write_file(str(tmp_path), "list.parquet", b"PAR1")
    with pytest.raises(DatasetError, match=r"list\.parquet: not a filter list in Parquet"):
        Dataset.open(url, filters=[tmp_path / "list.parquet"])


def test_masks_are_kept_only_for_shards_that_lose_rows(url, write_list):
    lists = [filters.load_filter(write_list(row("d", 0), row("a", keep=True)))]
    dataset = Dataset.open(url)
    tables = ((shard, dataset.regions(["key", "region_id"], [shard])) for shard in dataset.shards)
    (masked,) = filters.kept_rows(lists, tables).items()
    assert str(masked[0]) == "train-000001"
    assert masked[1].dtype == np.bool_
    assert (~masked[1]).sum() == 1
