"""Text that is no text, wherever it may stand: nothing ends in a traceback, and what was mended or lost is said."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.dataset import Dataset
from schemas.reasons import Reason
from schemas.text import decode_utf8, mended, was_not_utf8
from tests.builders import CHEAP, SEARCH, annotate, image_rows, jpeg, read_rows, run, write_files, write_tar
from tests.pipeline.read.source_builders import JPEG, read_all, reasons

MENDED = {
    "lone high surrogate": ("cat \ud800 dog", "cat \ufffd dog"),
    "half an emoji": ("cat \ud83d", "cat \ufffd"),
    "lone low surrogate": ("cat \udc80", "cat \ufffd"),
    "swapped pair": ("cat \ude00\ud83d", "cat \ufffd\ufffd"),
    "NUL": ("cat\0dog", "cat\ufffddog"),
}
NOT_UTF8 = b"caf\xe9 dog"


@pytest.mark.parametrize("kind", MENDED)
def test_what_is_no_text_is_mended_and_nothing_else(kind):
    broken, whole = MENDED[kind]
    assert mended(broken) == whole
    assert mended(whole) == whole
    assert mended("na\u00efve \U0001f600 \x1b[0m\n") == "na\u00efve \U0001f600 \x1b[0m\n"


def test_bytes_that_are_not_utf8_are_told_apart():
    assert was_not_utf8(decode_utf8(NOT_UTF8)) and mended(decode_utf8(NOT_UTF8)) == "caf\ufffd dog"
    assert not was_not_utf8(decode_utf8("\ufeffcaf\u00e9".encode()))
    assert decode_utf8(b"\xef\xbb\xbfx") == "x"


def escaped(value: object) -> bytes:
    """JSON in ASCII, with lone surrogates as escapes."""
    return json.dumps(value).encode()


@pytest.mark.parametrize("kind", MENDED)
def test_in_tars(tmp_path, kind):
    broken, whole = MENDED[kind]
    record = {"caption": broken, "url": broken, "license": broken}
    record["regions"] = [{"box": [2, 2, 30, 40], "label": broken, "id": broken}]
    source = write_tar(tmp_path / "t" / "0.tar", [[("a.jpg", jpeg(0)), ("a.json", escaped(record))]])
    annotate(source, tmp_path / "out")
    (sample,) = Dataset.open(tmp_path / "out").samples("train-000000")
    assert (sample.image_caption, sample.record.source.url, sample.record.source.license) == (whole, whole, whole)
    (region,) = sample.record.regions
    assert (region.label, region.source_id) == (whole, whole)
    assert "U+FFFD" in image_rows(tmp_path / "out")["a"]["message"]
    assert run("doctor", tmp_path / "out").code == 0


@pytest.mark.parametrize("kind", MENDED)
def test_in_coco(tmp_path, kind):
    broken, whole = MENDED[kind]
    content = {
        "images": [{"id": broken, "file_name": "a.jpg", "coco_url": broken, "license": 1}],
        "annotations": [
            {"id": broken, "image_id": broken, "category_id": broken, "bbox": [2, 2, 30, 40]},
            {"id": 2, "image_id": broken, "caption": broken},
        ],
        "categories": [{"id": broken, "name": broken}],
        "licenses": [{"id": 1, "url": broken}],
    }
    write_files(tmp_path / "in", {"a.jpg": jpeg(0), "x.json": escaped(content)})
    annotate(f"coco:{tmp_path}/in/x.json", tmp_path / "out")
    (sample,) = Dataset.open(tmp_path / "out").samples("train-000000")
    assert (sample.image_caption, sample.record.source.url, sample.record.source.license) == (whole, whole, whole)
    assert sample.record.regions[0].label == whole
    assert "U+FFFD" in image_rows(tmp_path / "out")["a"]["message"]


def test_in_coco_beside_bytes_that_are_not_utf8(tmp_path):
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(3)]
    captions = [{"id": n, "image_id": n, "caption": "CAPTION" if n == 1 else "fine"} for n in range(3)]
    boxes = [{"id": 9, "image_id": 0, "category_id": 1, "bbox": [2, 2, 30, 40]}]
    content = {"images": images, "annotations": captions + boxes, "categories": [{"id": 1, "name": "LABEL"}]}
    data = json.dumps(content).encode().replace(b"CAPTION", NOT_UTF8).replace(b"LABEL", NOT_UTF8)
    write_files(tmp_path, {"x.json": data} | {f"{n}.jpg": JPEG for n in range(3)})
    found = read_all(f"coco:{tmp_path}/x.json")
    assert reasons(found) == [None, Reason.CAPTION_ENCODING, None]
    assert found[0].given[0].label == "caf\ufffd dog"


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"a\\u0000.jpg", b"a\\ud800.jpg"])
def test_a_name_in_coco_that_no_file_can_have_is_a_dead_row(tmp_path, name):
    content = b'{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "%s"}]}' % name
    write_files(tmp_path, {"x.json": content, "a.jpg": JPEG})
    good, bad = read_all(f"coco:{tmp_path}/x.json")
    assert (good.drop, bad.drop and bad.drop.reason) == (None, Reason.BAD_RECORD)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("kind", MENDED)
def test_in_tables(tmp_path, kind, suffix):
    broken, whole = MENDED[kind]
    written = broken if kind == "NUL" else whole  # no file in UTF-8 holds a surrogate
    rows = {"csv": f"file_name,text\na.jpg,{written}\n"}
    rows["jsonl"] = json.dumps({"file_name": "a.jpg", "text": broken})
    files = {"a.jpg": jpeg(0), f"metadata.{suffix}": rows[suffix].encode()}
    annotate(write_files(tmp_path / "in", files), tmp_path / "out", flags=SEARCH)
    assert image_rows(tmp_path / "out")["a"]["image_caption"] == whole


@pytest.mark.parametrize(
    "table", [b"file_name,text\na.jpg,%s\nb.jpg,fine\n", b'{"file_name": "a.jpg", "text": "%s"}\n']
)
def test_a_caption_in_another_encoding_ends_its_image_alone(tmp_path, table):
    suffix = "csv" if table[9:10] == b"," else "jsonl"
    content = table % NOT_UTF8 + (b'{"file_name": "b.jpg", "text": "fine"}' if suffix == "jsonl" else b"")
    write_files(tmp_path, {"a.jpg": JPEG, "b.jpg": JPEG, f"metadata.{suffix}": content})
    found = read_all(f"folder:{tmp_path}")
    assert reasons(found) == [Reason.CAPTION_ENCODING, None]
    assert f"metadata.{suffix}: line" in found[0].drop.message


def test_one_caption_of_several_in_another_encoding_is_left_out_and_told_of(tmp_path):
    (item,) = read_all(str(write_files(tmp_path / "in", {"a.jpg": JPEG, "a.txt": NOT_UTF8, "a.caption": b"fine"})))
    assert (item.captions, item.note) == (("fine",), "a.txt: a caption that is not UTF-8")
    (item,) = read_all(str(write_files(tmp_path / "in", {"a.caption": b"..."})))
    assert item.drop and item.drop.reason is Reason.CAPTION_ENCODING


def not_utf8(kind: pa.DataType) -> pa.Array:
    """A column of text whose first cell is not UTF-8."""
    as_binary = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}[kind]
    return pa.array([NOT_UTF8, b"fine"], as_binary).view(kind)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("column", ["caption", "key", "url", "license"])
def test_in_parquet(tmp_path, kind, column):
    pq.write_table(pa.table({"image": [JPEG, JPEG], column: not_utf8(kind)}), tmp_path / "x.parquet")
    bad, good = read_all(f"parquet:{tmp_path}/x.parquet")
    assert good.drop is None
    if column == "caption":
        assert reasons([bad]) == [Reason.CAPTION_ENCODING]
    else:
        assert bad.drop is None
        assert (bad.url or bad.license) == (None if column == "key" else "caf\ufffd dog")
        assert bad.key.isascii()


def test_in_lists_in_parquet_one_bad_caption_is_left_out(tmp_path):
    captions = pa.ListArray.from_arrays([0, 2], not_utf8(pa.string()))
    pq.write_table(pa.table({"image": [JPEG], "captions": captions}), tmp_path / "x.parquet")
    (item,) = read_all(f"parquet:{tmp_path}/x.parquet")
    assert (item.captions, item.note) == (("fine",), "row 0: a caption that is not UTF-8")


def test_nul_in_parquet_text_is_mended(tmp_path):
    columns = {"image": [jpeg(0)], "caption": ["cat\0dog"], "key": ["k\0"], "url": ["u\0"], "license": ["l\0"]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    annotate(f"parquet:{tmp_path}/x.parquet", tmp_path / "out", flags=SEARCH)
    (row,) = [row for row in read_rows(tmp_path / "out") if row["region_id"] is None]
    assert row["image_caption"] == "cat\ufffddog"
    (sample,) = Dataset.open(tmp_path / "out").samples("train-000000")
    assert (sample.record.source.url, sample.record.source.license) == ("u\ufffd", "l\ufffd")


def test_a_file_whose_every_string_is_odd_is_refused_with_a_sentence(tmp_path: Path) -> None:
    odd = "\ud800\0\udc80"
    image, annotation = {"id": odd, "file_name": odd}, {"image_id": odd, "caption": odd}
    content = escaped({odd: odd, "images": [image], "annotations": [odd, annotation]})
    write_files(tmp_path, {"x.json": content, "a.jpg": JPEG})
    outcome = run("annotate", f"coco:{tmp_path}/x.json", tmp_path / "out", *CHEAP)
    assert outcome.code == 2 and "none of its 'images' can be used" in outcome.err


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text", ["one dog", "a\r\nb\r\n", "ein Hund im Café", "Πα ξένος", "собака в снегу", "dog", "42 7"]
)
def test_utf_16_beside_a_picture_or_in_a_tar_is_an_encoding_that_is_not_read(tmp_path, encoding, text):
    data = text.encode(encoding)
    write_files(tmp_path / "photos", {"a.jpg": JPEG, "a.txt": data})
    write_tar(tmp_path / "t" / "0.tar", [[("a.jpg", JPEG), ("a.txt", data)]])
    for source in ("photos", "t"):
        assert reasons(read_all(str(tmp_path / source))) == [Reason.CAPTION_ENCODING]


@pytest.mark.parametrize(
    "text", ["cat\0dogs", "\0cats\0", "\x1b[0mcat", "\0\0", "a\tb\tc\td\t", "房间里有", "x\x01y z\x01"]
)
def test_a_control_character_or_two_are_no_utf_16(text):
    assert not was_not_utf8(decode_utf8(text.encode()))
