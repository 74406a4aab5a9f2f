import pickle
from pathlib import Path

import pytest

from pipeline.read import items, open_source
from pipeline.read.base import SourceError
from pipeline.read.keys import as_key
from schemas.reasons import Reason, Stage
from tests.pipeline.read.source_builders import JPEG, read_all, reasons


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three images in two folders, one with a caption, and what is no image."""
    folder = tmp_path / "my photos ü"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.jpg", "a.PNG", "sub/a.jpg"):
        (folder / name).write_bytes(JPEG + name.encode())
    (folder / "b.txt").write_text("a dog\n")
    (folder / "alone.txt").write_text("no image of this name")
    (folder / "notes.md").write_text("x")
    (folder / "._b.jpg").write_bytes(b"hidden")
    return folder


def test_images_come_in_the_order_of_their_paths(photos):
    found = read_all(str(photos))
    assert [(i.key, i.uri, i.index, i.data, i.caption) for i in found] == [
        ("a", "a.PNG", 0, JPEG + b"a.PNG", None),
        ("b", "b.jpg", 1, JPEG + b"b.jpg", "a dog"),
        (as_key("sub/a"), "sub/a.jpg", 2, JPEG + b"sub/a.jpg", None),
    ]
    files = list(open_source(str(photos)).files())
    assert [file.uri for file in files] == ["a.PNG", "b.jpg", "b.txt", "sub/a.jpg"]
    assert files[0].etag == str((photos / "a.PNG").stat().st_mtime_ns)


def test_a_shard_takes_so_many_images(photos):
    shards = list(open_source(str(photos)).parts(2, False))
    assert [(p.start, p.stop, [i.uri for i in p.items]) for (p,) in shards] == [
        (0, 2, ["a.PNG", "b.jpg"]), (2, 3, ["sub/a.jpg"]),
    ]  # fmt: skip
    assert [item.index for item in read_all(str(photos), 2)] == [0, 1, 2]


def test_a_glob_and_a_single_image_are_folders_too(photos):
    assert [item.uri for item in read_all(f"{photos}/*.jpg")] == ["b.jpg"]
    assert [item.uri for item in read_all(f"{photos}/**/*.jpg")] == ["b.jpg", "sub/a.jpg"]
    assert [(i.uri, i.caption) for i in read_all(f"{photos}/b.jpg")] == [("b.jpg", "a dog")]


def test_what_is_wrong_with_an_image_is_its_failure(photos, monkeypatch):
    source = open_source(f"folder:{photos}")
    shards = list(source.parts(10, False))
    (photos / "a.PNG").unlink()
    (photos / "b.txt").write_bytes(b"\xff")
    (photos / "sub" / "a.jpg").write_bytes(b"")
    found = [item for (part,) in shards for item in source.read(part)]
    assert reasons(found) == [Reason.MISSING, Reason.CAPTION_ENCODING, Reason.EMPTY_FILE]
    assert {item.drop.stage for item in found} == {Stage.READ}
    monkeypatch.setattr(items, "MAX_MEMBER_BYTES", 3)
    assert Reason.TOO_LARGE in reasons(read_all(str(photos)))


def test_a_link_to_nothing_is_missing_and_circles_end(photos):
    (photos / "c.jpg").symlink_to("nowhere.jpg")
    (photos / "sub" / "round").symlink_to(photos)
    (photos / "linked").symlink_to(photos / "sub")
    found = read_all(str(photos))
    assert [i.uri for i in found] == ["a.PNG", "b.jpg", "c.jpg", "linked/a.jpg", "sub/a.jpg"]
    assert reasons(found) == [None, None, Reason.MISSING, None, None]


def test_a_file_without_permission_is_missing(photos, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    source = open_source(str(photos))
    shards = list(source.parts(10, False))
    monkeypatch.setattr(Path, "open", refuse)  # root may read anything, so the refusal is played
    assert reasons(source.read(shards[0][0])) == [Reason.MISSING] * 3


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("c.csv", 'filename,caption\na.PNG,"a cat, asleep"\n./sub/a.jpg,a bird\n'),
        ("c.tsv", "\ufeffImage\tid\tText\r\na.PNG\t1\ta cat, asleep\r\nsub/a.jpg\t2\ta bird\r\n"),
        ("c.csv", "path|title\nmy photos ü/a.PNG|a cat, asleep\na.PNG|a second caption\nsub/a.jpg|a bird\n"),
    ],
)
def test_captions_come_from_a_table(photos, name, table):
    (photos / name).write_text(table, newline="")
    found = read_all(f"{photos}?captions={name}")
    assert [(i.uri, i.caption) for i in found] == [
        ("a.PNG", "a cat, asleep"), ("b.jpg", None), ("sub/a.jpg", "a bird"),
    ]  # fmt: skip


def test_images_that_only_the_table_names_are_missing(photos, tmp_path):
    table = tmp_path / "c&d.csv"
    table.write_text("file,caption\nb.jpg,x\ngone.jpg,y\n")
    spec = f"folder:{photos}?captions={tmp_path}/c%26d.csv"
    assert reasons(read_all(spec)) == [None, None, Reason.MISSING, None]
    files = {file.uri: file.size for file in open_source(spec).files()}
    assert files["gone.jpg"] == 0
    assert files[str(table)] == table.stat().st_size


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("name,words\nb.jpg,x\n", "'name,words'; it must name a column of files"),
        ("", "the header is ''"),
        ("file,caption\n", "it has none"),
        ("file,caption\nx/y.jpg,z\n", "its first is 'x/y.jpg', the first image is 'a.PNG'"),
    ],
)
def test_an_unclear_table_is_refused(photos, table, words):
    (photos / "c.csv").write_bytes(table.encode())
    with pytest.raises(SourceError) as caught:
        read_all(f"{photos}?captions=c.csv")
    assert words in str(caught.value)
    assert "c.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("table", "reason", "words"),
    [
        (
            "file,caption\nb.jpg,a dog, asleep\na.PNG,x\n",
            Reason.BAD_RECORD,
            "c.csv: line 2 has 3 fields, the header has 2",
        ),
        ("file,caption\na.PNG,x\nb.jpg\n", Reason.BAD_RECORD, "c.csv: line 3 has 1 fields, the header has 2"),
        (
            b"file,caption\nb.jpg,caf\xe9\na.PNG,x\n",
            Reason.CAPTION_ENCODING,
            "c.csv: line 2: a caption that is not UTF-8",
        ),
    ],
)
def test_a_row_that_cannot_be_used_ends_its_image_alone(photos, table, reason, words):
    (photos / "c.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    found = read_all(f"{photos}?captions=c.csv")
    assert reasons(found) == [None, reason, None]
    assert words in found[1].drop.message


def test_a_row_that_names_no_image_is_a_row_of_its_own(photos):
    (photos / "c.csv").write_text('file,caption\n,a dog\nb.jpg,"a" dog\n')
    *images, lost = read_all(f"{photos}?captions=c.csv")
    assert [item.caption for item in images] == [None, '"a" dog', None]
    assert (lost.uri, lost.drop.message) == (f"{photos}/c.csv", "c.csv: line 2 names no file")


def test_a_remote_folder_is_read_in_order(bucket, store):
    names = [f"{n:03d}.jpg" for n in range(40)]
    for name in names:
        store.pipe(f"/bucket/a b/{name}", JPEG + name.encode())
    store.pipe("/bucket/a b/001.txt", b"one")
    found = read_all(f"{bucket}/a b", 25)
    assert [(i.uri, i.data) for i in found] == [(name, JPEG + name.encode()) for name in names]
    assert found[1].caption == "one"
    shards = list(open_source(f"{bucket}/a b").parts(50, False))
    store.rm("/bucket/a b/002.jpg")
    assert reasons(open_source(f"{bucket}/a b").read(shards[0][0]))[:4] == [None, None, Reason.MISSING, None]


def test_a_source_survives_pickling(photos):
    source = open_source(str(photos))
    assert read_all(pickle.loads(pickle.dumps(source))) == read_all(source)
