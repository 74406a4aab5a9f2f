import os
import subprocess
import sys

import pytest

from pipeline.read import SOURCES, open_source
from pipeline.read.base import SourceError, SourceFile
from pipeline.read.location import Location, expand_braces, file_of_info
from pipeline.read.spec import split_options, split_prefix
from tests.pipeline.read.source_builders import JPEG, read_all, sample, tar_bytes


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a/00000.tar", "a/00000.parquet", "a/00000_stats.json"], "webdataset"),
        (["00000.TGZ"], "webdataset"),
        (["train-000000.tar", "train-000000.parquet", "train-000000.x.parquet", "_plan/units.parquet"], "webdataset"),
        (["data/0.parquet", "README.md"], "parquet"),
        (["x/y/z.JPG", "captions.csv", "annotations.json"], "folder"),
    ],
)  # fmt: skip
def test_the_files_of_a_folder_tell_its_kind(tmp_path, names, kind):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert open_source(str(tmp_path)).kind == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [("x.tar", "webdataset"), ("x.parquet", "parquet"), ("x.json", "coco"), ("x.jpg", "folder")],
)
def test_the_name_of_a_file_tells_its_kind(tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"")
    assert open_source(str(tmp_path / name)).kind == kind
    assert open_source(f"file://{tmp_path / name}").kind == kind


def test_a_prefix_or_the_caller_may_tell_the_kind(tmp_path):
    (tmp_path / "x.jpg").write_bytes(JPEG)
    assert open_source(f"webdataset:{tmp_path}").kind == "webdataset"
    assert open_source(str(tmp_path), kind="parquet").kind == "parquet"


@pytest.mark.parametrize(
    ("names", "spec", "words"),
    [
        (["a.jpg", "b.tar"], "{}", ["webdataset (b.tar)", "folder (a.jpg)", "folder:PATH"]),
        (["a.tar", "b.parquet"], "{}", ["parquet (b.parquet)"]),
        ([], "{}", ["no image, tar, Parquet or Arrow file is there; check the path"]),
        (["notes.md"], "{}/notes.md", ["is there, only 1 .md; check the path"]),
        (["a.txt", "b.txt", "README"], "{}", ["is there, only 2 .txt, 1 without suffix; check"]),
        ([], "{}/gone", ["gone: no such file or folder"]),
        ([], "{}/*.tar", ["*.tar: no image, tar, Parquet or Arrow file is there; check"]),
        ([], "webdataset:{}", ["found no tar"]),
        ([], "parquet:{}", ["found no .parquet"]),
        ([], "folder:{}", ["found no image"]),
        ([], "zip:{}", ["unknown kind 'zip'", "coco, flickr30k, folder"]),
        (["a.jpg"], "folder:{}?caption=x", ["unknown option 'caption'", "captions"]),
        (["a.jpg"], "folder:{}?captions=x&captions=y", ["given twice"]),
        (["a.jpg"], "folder:{}?captions=gone.csv", ["gone.csv: no such file or folder"]),
        ([], "{}/{{9..1}}.tar", ["{9..1} runs backwards"]),
        ([], "", ["an INPUT is empty"]),
        ([], "nonsense://bucket/x.tar", ["nonsense"]),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(tmp_path, names, spec, words):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError) as caught:
        list(open_source(spec.format(tmp_path)).files())
    for word in words:
        assert word in str(caught.value)


def test_names_that_look_like_patterns_are_taken_as_they_are(tmp_path):
    folder = tmp_path / "my [new] photos?"
    folder.mkdir()
    (folder / "x{0..1}.tar").write_bytes(tar_bytes(sample("a")))
    assert [item.key for item in read_all(str(folder / "x{0..1}.tar"))] == ["a"]
    assert [item.key for item in read_all(str(folder))] == ["a"]


def test_relative_paths_are_those_of_the_opener(tmp_path, monkeypatch):
    (tmp_path / "x.tar").write_bytes(tar_bytes(sample("a")))
    monkeypatch.chdir(tmp_path)
    source = open_source("x.tar")
    monkeypatch.chdir("/")
    assert [item.key for item in read_all(source)] == ["a"]


def test_a_file_name_that_cannot_be_recorded_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(JPEG)
    with pytest.raises(SourceError, match="not UTF-8"):
        open_source(str(tmp_path))


def test_prefixes_and_urls_are_told_apart():
    assert split_prefix("s3://bucket/x") == (None, "s3://bucket/x")
    assert split_prefix("simplecache::s3://x") == (None, "simplecache::s3://x")
    assert split_prefix("parquet:s3://bucket/x") == ("parquet", "s3://bucket/x")


def test_a_question_mark_of_a_pattern_is_no_option():
    assert split_options("d/0?.tar") == ("d/0?.tar", {})
    assert split_options("d/0?.tar?a=1&b=x/y%26z") == ("d/0?.tar", {"a": "1", "b": "x/y&z"})


def test_brace_ranges_expand_with_the_width_of_their_start():
    assert expand_braces("a{08..11}.tar") == ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]
    assert expand_braces("{0..1}/{1..2}") == ["0/1", "0/2", "1/1", "1/2"]


@pytest.mark.parametrize(
    ("info", "etag"),
    [({"ETag": "A", "etag": "b", "mtime": 3}, "A"), ({"etag": "b", "mtime": 3}, "b"), ({"mtime": 3}, "3"), ({}, "")],
)
def test_the_etag_of_a_remote_file_is_what_its_store_has(info, etag):
    assert file_of_info("x.tar", {"size": 5, **info}) == SourceFile(uri="x.tar", size=5, etag=etag)


def test_remote_files_have_their_sizes(bucket, store):
    store.pipe("/bucket/x.tar", b"12345")
    assert [(file.uri, file.size) for file in Location.of(f"{bucket}/x.tar").files()] == [("x.tar", 5)]
    assert ("bucket/x.tar", 5) in [(file.uri, file.size) for file in Location.of("memory://").files()]


def test_opening_a_tar_does_not_import_the_other_kinds(tmp_path):
    (tmp_path / "x.tar").write_bytes(tar_bytes(sample("a")))
    code = (
        "import sys; from pipeline.read import open_source; open_source(sys.argv[1]); "
        "print([m for m in ('cv2', 'apache_beam', 'pipeline.read.coco') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    written = {"coco", "yolo", "voc", "visual_genome", "flickr30k", "refcoco", "grounding"}
    assert set(SOURCES) == written | {"webdataset", "folder", "parquet", "arrow", "scenes"}
