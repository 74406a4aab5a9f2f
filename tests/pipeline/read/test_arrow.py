"""`save_to_disk` of Hugging Face's `datasets`: as that writes it, cut, and with caches beside."""

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.read import open_source
from pipeline.read.base import SourceError
from schemas.reasons import Reason
from tests.builders import annotate, check_balance, jpeg, read_rows, write_files
from tests.pipeline.read.source_builders import JPEG, read_all, reasons

OBJECTS = {"bbox": [[10.0, 20.0, 30.0, 40.0]], "category": ["cat"], "caption": ["a grey cat"]}
BOX = (10.0, 20.0, 40.0, 60.0)


def stream(num_rows: int, *, a_batch: int = 2, as_file: bool = False, image: bytes = JPEG) -> bytes:
    rows = [{"image": {"bytes": image, "path": None}, "text": f"row {n}", "objects": OBJECTS} for n in range(num_rows)]
    batches = pa.Table.from_pylist(rows).to_batches(max_chunksize=a_batch)
    sink = pa.BufferOutputStream()
    new: Any = pa.ipc.new_file if as_file else pa.ipc.new_stream
    with new(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def test_what_datasets_saves_is_read_split_by_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["cat", "dog"])
    kinds = {"bbox": datasets.List(datasets.Value("float32"), length=4), "category": label}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string"),
                                  "objects": datasets.List(kinds)})  # fmt: skip
    pictures = [jpeg(n) for n in range(5)]
    columns = {"image": [{"bytes": picture, "path": None} for picture in pictures],
               "text": [f"row {n}" for n in range(5)],
               "objects": [[{"bbox": [10, 20, 30, 40], "category": 1}]] * 5}  # fmt: skip
    data = datasets.Dataset.from_dict(columns, features=features)
    splits = datasets.DatasetDict({"train": data.select(range(3)), "test": data.select([4, 3])})
    splits.save_to_disk(str(tmp_path / "in"), num_shards={"train": 2, "test": 1})
    source = open_source(str(tmp_path / "in"))
    assert source.kind == "arrow"
    assert source.describe().boxes == ("column 'objects', as xywh",)
    items = read_all(pickle.loads(pickle.dumps(source)), shard_size=2)
    assert [item.data for item in items] == [pictures[n] for n in (4, 3, 0, 1, 2)]
    assert [item.caption for item in items] == [f"row {n}" for n in (4, 3, 0, 1, 2)]
    assert {(region.box, region.label) for item in items for region in item.given} == {(BOX, "dog")}
    assert [item.caption for item in read_all(f"arrow:{tmp_path}/in?split=test")] == ["row 4", "row 3"]
    with pytest.raises(SourceError, match="no split 'val'; there are test, train"):
        read_all(f"arrow:{tmp_path}/in?split=val")


def test_splits_that_count_for_themselves_share_no_key(tmp_path: Path) -> None:
    """As COCO's do: an id is one of train, and another of val."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "image_id": datasets.Value("int64")})
    columns = {"image": [{"bytes": jpeg(n), "path": None} for n in range(2)], "image_id": [1, 2]}
    data = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict({"train": data, "val": data}).save_to_disk(str(tmp_path / "in"))
    assert [item.key for item in read_all(f"arrow:{tmp_path}/in")] == ["train-1", "train-2", "val-1", "val-2"]
    data.save_to_disk(str(tmp_path / "lone"))
    assert [item.key for item in read_all(f"arrow:{tmp_path}/lone")] == ["1", "2"]


@pytest.mark.parametrize("as_file", [False, True])
def test_streams_and_files_are_cut_into_shards(tmp_path: Path, as_file: bool) -> None:
    write_files(tmp_path, {"a.arrow": stream(5, as_file=as_file), "b.arrow": stream(2, as_file=as_file)})
    for shard_size in (1, 3, 100):
        items = read_all(str(tmp_path), shard_size=shard_size)
        assert [item.caption for item in items] == [f"row {n}" for n in (0, 1, 2, 3, 4, 0, 1)]
        assert len({item.key for item in items}) == 7
    assert [len(item.given) for item in read_all(str(tmp_path / "a.arrow"))] == [1] * 5


def test_a_file_that_is_cut_loses_what_is_cut_off_with_a_row_that_says_so(tmp_path: Path) -> None:
    whole = stream(6)
    lengths = {len(whole) - 8: 6, len(whole) - 9: 4, len(whole) // 2: None, 20: 0}
    for length, num_good in lengths.items():
        (tmp_path / "a.arrow").write_bytes(whole[:length])
        (tmp_path / "b.arrow").write_bytes(stream(1))
        for shard_size in (2, 100):
            items = read_all(str(tmp_path), shard_size=shard_size)
            good = [item for item in items if item.drop is None]
            (bad,) = (item for item in items if item.drop)
            assert bad.drop and bad.drop.reason is Reason.TRUNCATED and "a.arrow" in bad.drop.message
            assert num_good is None or len(good) == num_good + 1, (length, shard_size)


def test_caches_are_no_data(tmp_path: Path) -> None:
    state = b'{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}'
    files = {"data-00000-of-00001.arrow": stream(2), "cache-1.arrow": stream(3), "other.arrow": stream(3)}
    write_files(tmp_path / "train", files | {"state.json": state})
    assert [file.uri for file in open_source(str(tmp_path)).files()] == ["train/data-00000-of-00001.arrow"]
    (tmp_path / "train" / "state.json").write_bytes(b"{")
    assert len(read_all(str(tmp_path))) == 5
    for name in ("data-00000-of-00001.arrow", "other.arrow"):
        (tmp_path / "train" / name).unlink()
    with pytest.raises(SourceError, match=r"no image, tar|no .arrow file of data"):
        read_all(str(tmp_path))


def test_a_remote_file_is_copied_and_read(bucket: str, store: Any) -> None:
    store.pipe("/bucket/a.arrow", stream(3))
    store.pipe("/bucket/b.arrow", b"no arrow at all")
    items = read_all(f"arrow:{bucket}")
    assert reasons(items) == [None, None, None, Reason.TRUNCATED]


def test_captions_and_boxes_come_out_and_totals_balance(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "in", {"a.arrow": stream(2, image=jpeg(1)), "b.arrow": stream(3)[:-30]})
    annotate(folder, tmp_path / "out", flags=("--proposer", "manual", "--captioner", "given"))
    check_balance(tmp_path / "out")
    rows = [row for row in read_rows(tmp_path / "out") if row["region_id"]]
    assert [[row[edge] for edge in ("x0", "y0", "x1", "y1")] for row in rows] == [list(BOX)] * 2
    assert {row["caption"] for row in rows} == {"a grey cat"}
