"""Damage shows as such, and the rest goes on being shown."""

from pathlib import Path

import duckdb
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.viewer.selection import parse
from pipeline.viewer.source import is_overlay, open_source
from schemas.folder import DatasetError
from tests.pipeline.viewer.data import write_data
from tests.pipeline.viewer.serving import serving
from tests.shards import write_index


def problems(session):
    return {problem.shard: problem.message for problem in session.about()["problems"]}


def shown(session):
    return [image.key for image in session.page(parse(""))["items"]]


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_a_shard_without_its_sidecar_is_listed_and_left_out(url, open_session, suffix):
    (Path(url) / f"train-000000.{suffix}").unlink()
    session = open_session(url)
    assert f"train-000000.{suffix}" in problems(session)["train-000000"]
    assert shown(session) == ["c", "d"]


@pytest.mark.parametrize("content", [b"{}", b'{"schema_version":"9"}', b"\xff"])
def test_a_broken_marker_is_listed(url, open_session, content):
    (Path(url) / "train-000001.json").write_bytes(content)
    session = open_session(url)
    assert list(problems(session)) == ["train-000001"] and shown(session) == ["a", "b"]


def test_a_shard_that_the_index_names_and_nobody_has_is_listed(url, open_session):
    write_index(url, ["train-000000", "train-000001", "train-000002"])
    assert list(problems(open_session(url))) == ["train-000002"]


def test_rows_of_a_shard_with_a_cut_tar_are_shown_and_its_images_say_why(url, open_session):
    tar = Path(url) / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    session = open_session(url)
    assert "train-000000.tar" in problems(session)["train-000000"]
    assert shown(session) == ["a", "b", "c", "d"]
    with serving(session) as client:
        broken = client.get("/image/a/train-000000/a")
        assert broken.status == 422 and "the file is cut" in broken.json["error"]
        assert client.get("/image/a/train-000001/c").status == 200


def test_bytes_that_are_no_image_are_not_sent(url, session):
    tar = Path(url) / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    content[512:1024] = b"<script>" * 64
    tar.write_bytes(bytes(content))
    with serving(session) as client:
        broken = client.get("/image/a/train-000000/a")
    assert broken.status == 422 and "train-000000.tar: key 'a'" in broken.json["error"]


@pytest.mark.parametrize("damage", ["footer", "pages"])
def test_a_table_damaged_before_or_after_opening_leaves_the_rest(url, open_session, damage):
    table = Path(url) / "train-000000.parquet"
    content = table.read_bytes()
    broken = content[:-4] + b"XXXX" if damage == "footer" else content[:4] + b"\xff" * 400 + content[404:]
    opened_before = open_session(url)
    table.write_bytes(broken)
    with serving(opened_before) as client:
        page = client.get("/api/page")
        assert [image["key"] for image in page.json["items"]] == ["c", "d"]
        assert client.get("/api/about").json["problems"][0]["shard"] == "train-000000"
    with serving(open_session(url)) as client:
        assert [image["key"] for image in client.get("/api/page").json["items"]] == ["c", "d"]


def test_a_damaged_table_elsewhere_is_listed_and_left_out(open_session):
    MemoryFileSystem.store.clear()
    write_data("memory://bucket/data")
    content = MemoryFileSystem().cat_file("/bucket/data/train-000000.parquet")
    MemoryFileSystem().pipe_file("/bucket/data/train-000000.parquet", content[:-4] + b"XXXX")
    session = open_session("memory://bucket/data")
    assert list(problems(session)) == ["train-000000"] and shown(session) == ["c", "d"]
    MemoryFileSystem.store.clear()


def test_the_database_reads_nothing_but_the_data(session, url, tmp_path):
    outside = tmp_path / "outside.csv"
    outside.write_text("secret\n1\n")
    for statement in (f"SELECT * FROM read_csv('{outside}')", "SET enable_external_access = true", "INSTALL httpfs"):
        with pytest.raises(duckdb.Error):
            session.tables[0].query(statement)


@pytest.mark.parametrize("name", ["label=cat/out", "a?b", "a*b", "a[1]b", "a#b", "a::b", "it's", "per%20cent", "a b"])
def test_names_of_folders_mean_nothing(tmp_path, open_session, name):
    folder = tmp_path / name
    folder.parent.mkdir(exist_ok=True)
    write_data(str(tmp_path / "axb"))
    (tmp_path / "axb").rename(folder)
    session = open_session(str(folder))
    assert shown(session) == ["a", "b", "c", "d"]
    assert [image.key for image in session.page(parse("label=cat"))["items"]] == ["a"]
    assert dict(session.values()["values"]["label"]) == {"cat": 1, "dog": 2, "shape": 2, None: 4}
    assert session.pixels(0, "train-000000", "a", max_side=None)[1] == "image/png"


def test_nothing_readable_is_an_error_with_the_first_cause(tmp_path, url):
    for marker in Path(url).glob("*.json"):
        marker.unlink()
    with pytest.raises(DatasetError, match=r"none of its 2 shards.*train-000000\.json: not there"):
        open_source(url)
    with pytest.raises(DatasetError, match="no shard here"):
        open_source(str(tmp_path))
    with pytest.raises(DatasetError, match="no such folder"):
        open_source(str(tmp_path / "nowhere"))


def test_remote_data_are_shown_by_byte_range_and_need_a_file_for_marks(open_session, tmp_path):
    MemoryFileSystem.store.clear()
    write_data("memory://bucket/data")
    session = open_session("memory://bucket/data")
    assert shown(session) == ["a", "b", "c", "d"]
    assert session.pixels(0, "train-000001", "d", max_side=None)[1] == "image/png"
    with pytest.raises(DatasetError, match="--marks"):
        session.mark("train-000000", "a", None, keep=True, note=None)
    marked = open_session("memory://bucket/data", marks=str(tmp_path / "mine.jsonl"))
    assert marked.mark("train-000000", "a", None, keep=True, note=None)["num_marks"] == 1
    assert not is_overlay("memory://bucket/data", "loud")
    MemoryFileSystem.store.clear()
