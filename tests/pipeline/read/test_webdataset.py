import gzip
import json
import pickle
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.read import items, open_source
from pipeline.read.base import SourceError
from pipeline.read.keys import as_key
from pipeline.sample import GivenRegion
from schemas.reasons import Reason, Stage
from tests.pipeline.read.source_builders import JPEG, read_all, reasons, sample, tar_bytes

THREE = [*sample("000", "zero"), *sample("001", "one"), *sample("002", "two")]


def write(folder: Path, name: str, members) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members))
    return path


def only(folder: Path, members):
    """The one item of a tar that holds one sample."""
    (item,) = read_all(f"webdataset:{write(folder, 'x.tar', members)}")
    return item


def test_samples_come_with_their_bytes_and_captions(tmp_path):
    found = read_all(str(write(tmp_path, "x.tar", THREE)))
    assert [(i.key, i.index, i.uri, i.data, i.caption) for i in found] == [
        (f"00{n}", n, f"x.tar/00{n}.jpg", JPEG + f"00{n}".encode(), word)
        for n, word in enumerate(("zero", "one", "two"))
    ]


@pytest.mark.parametrize("seed", range(5))
def test_members_may_lie_in_any_order(tmp_path, seed):
    members = [*THREE]
    random.Random(seed).shuffle(members)
    found = read_all(str(write(tmp_path, "x.tar", members)))
    order = list(dict.fromkeys(name.partition(".")[0] for name, _ in members))
    assert [item.key for item in found] == order
    captions = {"000": "zero", "001": "one", "002": "two"}
    assert [(i.data, i.caption) for i in found] == [(JPEG + k.encode(), captions[k]) for k in order]


def test_a_name_splits_at_the_first_dot_and_keeps_its_folder(tmp_path):
    members = [("./v1.0/a.jpg", JPEG), ("v1.0/a.seg.png", b"other"), ("v2.0/a.jpg", JPEG), ("b.v2.jpg", JPEG)]
    found = read_all(str(write(tmp_path, "x.tar", members)))
    assert [item.key for item in found] == [as_key("v1.0/a"), as_key("v2.0/a"), "b"]
    assert reasons(found) == [None, None, Reason.NO_IMAGE]
    assert "b.v2.jpg" in found[2].drop.message


def test_capitals_and_unicode_in_names(tmp_path):
    found = read_all(str(write(tmp_path, "x.tar", [("Käse.JPEG", JPEG), ("Käse.TXT", b"cheese")])))
    assert [(i.key, i.caption) for i in found] == [(as_key("Käse"), "cheese")]


def test_hidden_and_suffixless_members_belong_to_no_sample(tmp_path):
    found = read_all(str(write(tmp_path, "x.tar", [("README", b"x"), ("._000.jpg", b"x"), *sample("000")])))
    assert [item.key for item in found] == ["000"]


def test_a_name_used_twice_gives_two_items_of_one_key(tmp_path):
    found = read_all(str(write(tmp_path, "x.tar", [*sample("a", "first"), *sample("b"), *sample("a", "second")])))
    assert [(i.key, i.caption) for i in found] == [("a", "first"), ("b", None), ("a", "second")]


@pytest.mark.parametrize(
    ("members", "reason", "words"),
    [
        ([("a.txt", b"hi")], Reason.NO_IMAGE, "a.txt"),
        ([("a.jpg", b"")], Reason.EMPTY_FILE, "a.jpg"),
        ([("a.jpg", JPEG), ("a.txt", b"caf\xe9")], Reason.CAPTION_ENCODING, "a.txt"),
        ([("a.jpg", JPEG), ("a.json", b"{")], Reason.BAD_RECORD, "a.json"),
        ([("a.jpg", JPEG), ("a.json", b"\xff")], Reason.BAD_RECORD, "a.json"),
        ([("a.jpg", JPEG), ("a.json", b"[" * 10**5)], Reason.BAD_RECORD, "a.json"),
    ],
)
def test_what_is_wrong_with_a_sample_is_its_failure(tmp_path, members, reason, words):
    item = only(tmp_path, members)
    assert (item.key, item.data, item.drop.reason, item.drop.stage) == ("a", None, reason, Stage.READ)
    assert words in item.drop.message


def test_a_huge_member_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(items, "MAX_MEMBER_BYTES", len(JPEG))
    found = read_all(str(write(tmp_path, "x.tar", [("a.jpg", JPEG), ("b.jpg", JPEG + b"x")])))
    assert reasons(found) == [None, Reason.TOO_LARGE]


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        (b"a dog\n", "a dog"),
        (b"\xef\xbb\xbfa dog\r\n", "a dog"),
        (b"two\nlines\n\n", "two\nlines\n"),
        ("nul \0 and \N{GRINNING FACE} ".encode(), "nul \ufffd and \N{GRINNING FACE} "),
        (b"", None),
    ],
)
def test_captions_are_kept_but_for_a_mark_and_a_last_newline(tmp_path, text, caption):
    assert only(tmp_path, [("a.jpg", JPEG), ("a.txt", text)]).caption == caption


def test_a_caption_comes_from_txt_then_caption_then_json(tmp_path):
    record = json.dumps({"caption": "json"}).encode()
    image = ("a.jpg", JPEG)
    assert only(tmp_path, [image, ("a.json", record), ("a.caption", b"caption"), ("a.txt", b"txt")]).caption == "txt"
    assert only(tmp_path, [image, ("a.json", record), ("a.caption", b"caption")]).caption == "caption"
    assert only(tmp_path, [image, ("a.json", record)]).caption == "json"


def test_img2dataset_json_gives_address_and_licence_and_no_size(tmp_path):
    record = {"caption": "c", "url": "http://x/y.jpg", "license": "CC0", "width": 10, "height": 20, "exif": "{}"}
    item = only(tmp_path, sample("a", record=record))
    assert (item.caption, item.url, item.license, item.given, item.given_size) == (
        "c", "http://x/y.jpg", "CC0", (), None,
    )  # fmt: skip


def test_an_image_record_gives_its_regions(tmp_path):
    region = {"id": "0", "box": [1, 2, 3.5, float("nan")], "label": "cat", "proposal_score": 0.5, "caption": "a cat"}
    record = {
        "image_caption": "i", "width": 10, "height": 20, "regions": [region, {"box": [-5, 0, 99, 9]}],
        "source": {"uri": "u", "index": 0, "url": "http://x", "license": None},
    }  # fmt: skip
    item = only(tmp_path, sample("a", record=record))
    first, second = item.given
    assert (first.label, first.score, first.caption, first.box[:3]) == ("cat", 0.5, "a cat", (1, 2, 3.5))
    assert first.box[3] != first.box[3]
    assert second == GivenRegion(box=(-5, 0, 99, 9))
    assert (item.caption, item.given_size, item.url, item.license) == ("i", (10, 20), "http://x", None)


def test_a_cut_tar_yields_what_is_whole_and_one_row_for_the_rest(tmp_path):
    data = tar_bytes(THREE)
    (tmp_path / "x.tar").write_bytes(data[: data.index(JPEG + b"002") + 3])
    found = read_all(str(tmp_path / "x.tar"))
    assert [(i.key, i.index) for i in found] == [("000", 0), ("001", 1), ("x-truncated", 2)]
    assert reasons(found) == [None, None, Reason.TRUNCATED]
    assert "002.jpg" in found[2].drop.message
    assert [i.data for i in found[:2]] == [JPEG + b"000", JPEG + b"001"]


def test_a_picture_that_is_whole_is_read_though_its_caption_was_cut(tmp_path):
    data = tar_bytes(THREE)
    (tmp_path / "x.tar").write_bytes(data[: data.index(b"two") + 1])
    found = read_all(str(tmp_path / "x.tar"))
    assert [(i.key, i.caption) for i in found] == [
        ("000", "zero"), ("001", "one"), ("002", None), ("x-truncated", None),
    ]  # fmt: skip
    assert "002.txt" in found[3].drop.message and "002.txt: lost" in found[2].note


@pytest.mark.parametrize("data", [b"", b"no tar", b"\x1f\x8b\x08 no gzip"])
def test_what_is_no_tar_is_one_row(tmp_path, data):
    write(tmp_path, "a.tar", THREE)
    (tmp_path / "b.tar").write_bytes(data)
    for repack in (False, True):
        found = read_all(str(tmp_path), repack=repack)
        assert [item.key for item in found] == ["000", "001", "002", "b-truncated"]


def test_missing_tars_of_a_range_are_one_row_each(tmp_path):
    write(tmp_path, "d 1/00001.tar", sample("a"))
    spec = f"{tmp_path}/d 1/{{00000..00002}}.tar"
    for repack in (False, True):
        found = read_all(spec, repack=repack)
        assert [i.key for i in found] == ["00000-missing", "a", "00002-missing"]
        assert reasons(found) == [Reason.MISSING, None, Reason.MISSING]
    listed = list(open_source(spec).files())
    assert [(file.uri, bool(file.size)) for file in listed] == [
        ("00000.tar", False), ("00001.tar", True), ("00002.tar", False),
    ]  # fmt: skip


def test_a_range_without_any_tar_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"0\.\.2.*found no tar"):
        list(open_source(f"webdataset:{tmp_path}/{{0..2}}.tar").parts(10, False))


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "misnamed.tar"])
def test_compressed_tars_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(tar_bytes(THREE)))
    assert [item.key for item in read_all(str(tmp_path))] == ["000", "001", "002"]


def test_a_cut_gzip_stream_is_a_cut_tar(tmp_path):
    noise = random.Random(0).randbytes(20_000)
    members = [*sample("000"), ("001.jpg", noise), *sample("002")]
    (tmp_path / "x.tgz").write_bytes(gzip.compress(tar_bytes(members))[:10_000])
    found = read_all(str(tmp_path / "x.tgz"))
    assert [item.key for item in found] == ["000", "x-truncated"]
    assert "the compressed stream breaks off at byte 10,000" in found[1].drop.message


def test_remote_tars_are_read(bucket, store):
    store.pipe("/bucket/sub/00000.tar", tar_bytes(THREE))
    store.pipe("/bucket/00001.tar.gz", gzip.compress(tar_bytes(sample("x"))))
    store.pipe("/bucket/_attempts/00001.tar", b"a writer's own")
    assert [item.key for item in read_all(bucket)] == ["x", "000", "001", "002"]
    assert [item.key for item in read_all(f"{bucket}/sub/{{00000..00001}}.tar")] == [
        "000", "001", "002", "00001-missing",
    ]  # fmt: skip
    assert [item.uri for item in read_all(f"{bucket}/*.gz")] == ["00001.tar.gz/x.jpg"]


def sidecar(folder: Path, rows, name: str = "00000.parquet") -> None:
    pq.write_table(pa.Table.from_pylist(rows), folder / name)


def test_a_sidecar_gives_counts_and_what_the_members_lack(tmp_path):
    write(tmp_path, "00000.tar", [*sample("000"), *sample("001", "own", {"url": "http://own"})])
    rows = [
        {"key": "000", "caption": "c0", "URL": "http://0", "license": "CC0", "status": "success"},
        {"key": "001", "caption": "c1", "URL": "http://1", "license": None, "status": "success"},
        {"key": "002", "caption": "c2", "URL": "http://2", "license": None, "status": "failed_to_download"},
    ]
    sidecar(tmp_path, rows)
    source = open_source(str(tmp_path))
    ((part,),) = source.parts(1000, False)
    assert (part.uri, part.start, part.stop) == ("00000.tar", 0, 2)
    found = list(source.read(part))
    assert [(i.caption, i.url, i.license) for i in found] == [("c0", "http://0", "CC0"), ("own", "http://own", None)]
    assert [file.uri for file in source.files()] == ["00000.parquet", "00000.tar"]
    assert [file.uri for file in open_source(f"{tmp_path}/00000.tar").files()] == ["00000.parquet", "00000.tar"]


@pytest.mark.parametrize("repack", [False, True])
def test_samples_that_the_sidecar_lists_and_the_tar_lacks_are_reported(tmp_path, repack):
    write(tmp_path, "00000.tar", THREE)
    sidecar(tmp_path, [{"key": f"00{n}"} for n in range(5)])
    found = read_all(str(tmp_path), repack=repack)
    assert [(item.key, item.index) for item in found] == [(f"00{n}", n) for n in range(5)]
    assert reasons(found) == [None] * 3 + [Reason.TRUNCATED] * 2
    assert "2 of 5 samples that 00000.parquet lists are missing" in found[3].drop.message


def test_samples_beyond_the_sidecar_are_read_or_refused_but_never_lost(tmp_path):
    write(tmp_path, "00000.tar", THREE)
    sidecar(tmp_path, [{"key": "000"}])
    assert [item.key for item in read_all(str(tmp_path))] == ["000", "001", "002"]
    with pytest.raises(SourceError, match=r"holds 3 samples, but 00000.parquet beside it lists 1"):
        read_all(str(tmp_path), repack=True)


def test_the_table_of_a_shard_of_ours_is_no_sidecar(tmp_path):
    write(tmp_path, "train-000000.tar", THREE)
    sidecar(tmp_path, [{"key": "000", "region_id": "0", "status": "ok", "caption": "r"}], "train-000000.parquet")
    ((part,),) = open_source(str(tmp_path)).parts(1000, False)
    assert part.stop is None
    assert [item.caption for item in read_all(str(tmp_path))] == ["zero", "one", "two"]


def test_a_damaged_sidecar_is_refused(tmp_path):
    write(tmp_path, "00000.tar", THREE)
    (tmp_path / "00000.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(SourceError, match=r"00000.parquet: cannot be read"):
        read_all(str(tmp_path))


def test_repacking_cuts_tars_into_shards_of_equal_size(tmp_path):
    write(tmp_path, "a.tar", THREE)
    write(tmp_path, "b.tar", [m for n in range(4) for m in sample(f"b{n}")])
    write(tmp_path, "c.tar", [])
    shards = list(open_source(str(tmp_path)).parts(2, True))
    assert [[(p.uri, p.start, p.stop) for p in shard] for shard in shards] == [
        [("a.tar", 0, 2)],
        [("a.tar", 2, 3), ("b.tar", 0, 1)],
        [("b.tar", 1, 3)],
        [("b.tar", 3, 4)],
    ]
    assert [i.key for i in read_all(str(tmp_path), 2, True)] == [i.key for i in read_all(str(tmp_path))]


def test_a_repacked_cut_tar_reports_its_loss_once(tmp_path):
    data = tar_bytes(THREE)
    (tmp_path / "x.tar").write_bytes(data[: data.index(JPEG + b"002")])
    found = read_all(str(tmp_path), 1, True)
    assert [item.key for item in found] == ["000", "001", "x-truncated"]


def test_a_source_survives_pickling(tmp_path):
    source = open_source(str(write(tmp_path, "x.tar", THREE)))
    assert read_all(pickle.loads(pickle.dumps(source))) == read_all(source)
