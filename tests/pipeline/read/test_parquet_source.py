from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.read import items, open_source
from pipeline.read.base import SourceError
from pipeline.read.keys import as_key
from schemas.reasons import Reason, Stage
from tests.pipeline.read.source_builders import JPEG, read_all, reasons


def write(path: Path, rows=None, row_group_size: int = 100, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows) if rows is not None else pa.table(columns)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def images(*numbers: int) -> list[bytes]:
    return [JPEG + str(n).encode() for n in numbers]


def test_rows_come_with_key_caption_address_and_licence(tmp_path):
    rows = [{"image": JPEG, "TEXT": "a dog\n", "id": 5, "URL": "http://x", "license": "CC0"},
            {"image": JPEG, "TEXT": "", "id": None, "URL": None, "license": None}]  # fmt: skip
    found = read_all(str(write(tmp_path / "x.parquet", rows)))
    assert [(i.key, i.index, i.uri, i.data, i.caption, i.url, i.license) for i in found] == [
        ("5", 0, "x.parquet", JPEG, "a dog", "http://x", "CC0"),
        ("x-00000001", 1, "x.parquet", JPEG, None, None, None),
    ]


@pytest.mark.parametrize("row_group_size", [1, 3, 100])
@pytest.mark.parametrize("shard_size", [1, 4, 7, 1000])
def test_shards_take_row_ranges_across_files(tmp_path, monkeypatch, row_group_size, shard_size):
    monkeypatch.setattr("pipeline.read.parquet._BATCH_ROWS", 2)
    write(tmp_path / "a.parquet", image=images(*range(7)), row_group_size=row_group_size)
    write(tmp_path / "b.parquet", image=images(), row_group_size=row_group_size)
    write(tmp_path / "sub" / "c.parquet", image=images(*range(7, 10)), row_group_size=row_group_size)
    shards = list(open_source(str(tmp_path)).parts(shard_size, False))
    sizes = [sum(part.stop - part.start for part in shard) for shard in shards]
    assert sum(sizes) == 10
    assert set(sizes[:-1]) <= {shard_size}
    found = read_all(str(tmp_path), shard_size)
    assert [item.data for item in found] == images(*range(10))
    assert [item.key for item in found[6:8]] == ["a-00000006", as_key("sub/c-00000000")]


def test_hugging_face_structs(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "here.jpg").write_bytes(JPEG)
    column = [
        {"bytes": JPEG, "path": "x.jpg"},
        {"bytes": None, "path": "photos/here.jpg"},
        {"bytes": None, "path": "gone.jpg"},
        {"bytes": None, "path": None},
        None,
        {"bytes": b"", "path": None},
    ]
    found = read_all(f"parquet:{write(tmp_path / 'x.parquet', image=column)}")
    assert reasons(found) == [None, None, Reason.MISSING, Reason.NO_IMAGE, Reason.NO_IMAGE, Reason.EMPTY_FILE]
    assert {item.drop.stage for item in found[2:]} == {Stage.READ}
    assert [item.data for item in found[:2]] == [JPEG, JPEG]


def test_captions_that_are_lists_bytes_or_not_utf8(tmp_path):
    write(tmp_path / "a.parquet", jpg=images(0, 1), sentence=[["first", "second"], []])
    write(tmp_path / "b.parquet", jpg=images(2, 3), txt=[b"\xef\xbb\xbfbytes\n", b"caf\xe9"])
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers())
    write(tmp_path / "c.parquet", jpg=images(4), txt=broken)
    found = read_all(str(tmp_path))
    assert [item.caption for item in found] == ["first", None, "bytes", None, None]
    assert reasons(found) == [None, None, None, Reason.CAPTION_ENCODING, Reason.CAPTION_ENCODING]


def test_options_name_the_columns(tmp_path):
    path = write(tmp_path / "x.parquet", image=images(0), photo=images(1), alt=["words"], name=["N 1"])
    (item,) = read_all(f"parquet:{path}?image=photo&caption=alt&key=name")
    assert (item.data, item.caption, item.key) == (images(1)[0], "words", as_key("N 1"))


@pytest.mark.parametrize(
    ("query", "words"),
    [("", "no column of image bytes among address (string)"), ("?image=photo", "?image=photo names no usable column")],
)
def test_a_file_without_such_a_column_is_refused_with_its_columns(tmp_path, query, words):
    path = write(tmp_path / "x.parquet", address=["http://x"])
    with pytest.raises(SourceError) as caught:
        read_all(f"{path}{query}")
    assert words in str(caught.value)


def test_huge_images_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(items, "MAX_MEMBER_BYTES", len(JPEG))
    path = write(tmp_path / "x.parquet", image=[JPEG, JPEG + b"x"])
    assert reasons(read_all(str(path))) == [None, Reason.TOO_LARGE]


def test_damaged_and_missing_files_are_one_row_each(tmp_path):
    write(tmp_path / "0.parquet", image=images(0, 1))
    (tmp_path / "1.parquet").write_bytes(b"PAR1 cut")
    found = read_all(f"{tmp_path}/{{0..2}}.parquet")
    assert [item.key for item in found] == ["0-00000000", "0-00000001", "1-00000000", "2-00000000"]
    assert reasons(found) == [None, None, Reason.TRUNCATED, Reason.MISSING]


def test_damage_inside_a_file_ends_the_rows_of_its_group_and_no_others(tmp_path):
    path = write(tmp_path / "x.parquet", image=[JPEG + bytes(5000)] * 8, row_group_size=2)
    ((part,),) = open_source(str(path)).parts(10, False)
    start = pq.read_metadata(path).row_group(1).column(0).dictionary_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(bytes(data))
    found = list(open_source(str(path)).read(part))
    assert [item.key for item in found] == [f"x-{row:08d}" for row in range(8)]
    assert reasons(found) == [None, None, Reason.TRUNCATED, Reason.TRUNCATED, None, None, None, None]
    assert "row group 1" in found[2].drop.message


def overwrite(path: Path, group: int, column: int) -> None:
    start = pq.read_metadata(path).row_group(group).column(column).dictionary_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 20] = b"\xff" * 20
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damaged", [[0], [0, 1]])
@pytest.mark.parametrize("text", ["objects", "image"])
def test_damage_in_text_that_is_looked_into_costs_no_rows_of_other_groups(tmp_path, damaged, text):
    (tmp_path / "0.jpg").write_bytes(JPEG)
    boxes = '[{"bbox": [1, 2, 3, 4], "category": "cat"}]'
    columns = {"objects": [boxes] * 20, "image": images(*range(20)) if text == "objects" else ["0.jpg"] * 20}
    path = write(tmp_path / "a.parquet", row_group_size=10, **columns)
    write(tmp_path / "b.parquet", **{name: cells[:3] for name, cells in columns.items()})
    for group in damaged:
        overwrite(path, group, [*columns].index(text))
    found = read_all(str(tmp_path / "*.parquet"))
    bad = len(damaged) * 10
    assert reasons(found) == [Reason.TRUNCATED] * bad + [None] * (23 - bad)
    assert "a.parquet: row group 0" in found[0].drop.message
    assert {region.label for item in found[bad:] for region in item.given} == {"cat"}


def test_a_file_that_was_cut_or_lost_rows_since_it_was_planned_has_a_row_for_each(tmp_path):
    path = write(tmp_path / "x.parquet", image=images(0, 1, 2))
    ((part,),) = open_source(str(path)).parts(10, False)
    source = open_source(str(path))
    write(path, image=images(0))
    assert reasons(source.read(part)) == [None, Reason.TRUNCATED, Reason.TRUNCATED]
    path.write_bytes(b"PAR1 cut")
    assert reasons(source.read(part)) == [Reason.TRUNCATED] * 3
    path.unlink()
    assert reasons(source.read(part)) == [Reason.MISSING] * 3


def test_nothing_readable_is_refused(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(SourceError, match="can be read and has rows"):
        read_all(str(tmp_path))


def test_remote_files_are_read(bucket, store, tmp_path):
    path = write(tmp_path / "x.parquet", image=[{"bytes": JPEG, "path": None}, {"bytes": None, "path": "b.jpg"}])
    store.pipe("/bucket/d/x.parquet", path.read_bytes())
    store.pipe("/bucket/d/b.jpg", JPEG + b"b")
    assert [item.data for item in read_all(f"{bucket}/d/*.parquet")] == [JPEG, JPEG + b"b"]


def test_splits_that_count_for_themselves_share_no_key(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / "data" / f"{split}-00000-of-00001.parquet", [{"image": JPEG, "id": 1}])
    assert [item.key for item in read_all(str(tmp_path))] == ["test-1", "train-1"]
