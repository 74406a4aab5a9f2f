"""Captions as people, exporters and download tools write them: each is read, or its image's row says why not."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.read import open_source
from pipeline.read.base import SourceError
from pipeline.read.caption_tables import read_table
from pipeline.read.captions import is_labels, tidy_caption
from pipeline.read.location import Location
from pipeline.sample import SourceItem
from schemas.reasons import Reason
from tests.builders import SEARCH, annotate, image_rows, jpeg, read_markers, read_rows, run, write_files, write_photos
from tests.pipeline.read.source_builders import JPEG, read_all, reasons, tar_bytes

WORDS = "a dog in the snow"

SAY_NOTHING = ("", " ", "\n", "\u00a0", "\u200b\u200d", "\ufeff", "...", "-", "!?", "***", "\u2800", "\u3164")


def folder_of(tmp_path: Path, files: dict[str, bytes | str]) -> str:
    """Write a folder of texts and images; an image is any file that ends so."""
    whole = {name: data.encode() if isinstance(data, str) else data for name, data in files.items()}
    return str(write_files(tmp_path / "photos", whole))


def only(found: list[SourceItem]) -> SourceItem:
    (item,) = found
    return item


# Text files beside pictures


@pytest.mark.parametrize(
    "name", ["a.txt", "a.TXT", "a.caption", "a.Caption", "a.cap", "a.CAP", "a.jpg.txt", "a.jpg.caption"]
)
def test_a_text_under_the_images_name_is_its_caption(tmp_path, name):
    assert only(read_all(folder_of(tmp_path, {"a.jpg": JPEG, name: WORDS}))).caption == WORDS


def test_the_first_that_says_something_counts_and_all_are_kept(tmp_path):
    files = {"a.jpg": JPEG, "a.txt": " \n", "a.caption": "second", "a.cap": "third", "a.jpg.txt": "first"}
    item = only(read_all(folder_of(tmp_path, files)))
    assert (item.caption, item.captions) == ("first", ("first", "second", "third"))


@pytest.mark.parametrize("text", SAY_NOTHING)
def test_what_says_nothing_is_no_caption_in_any_source(tmp_path, text):
    assert only(read_all(folder_of(tmp_path, {"a.jpg": JPEG, "a.txt": text}))).captions == ()
    pq.write_table(pa.table({"image": [JPEG], "caption": [text]}), tmp_path / "x.parquet")
    assert only(read_all(f"parquet:{tmp_path}/x.parquet")).captions == ()
    record = json.dumps({"caption": text}).encode()
    (tmp_path / "x.tar").write_bytes(tar_bytes([("a.jpg", JPEG), ("a.txt", text.encode()), ("a.json", record)]))
    assert only(read_all(f"{tmp_path}/x.tar")).captions == ()


LABELS = {
    "yolo": "1 0.352559 0.508652 0.21 0.4\n0 0.1 0.2 0.3 0.4\n",
    "yolo, one box": "17 0.5 0.5 1 1",
    "yolo with scores": "1 0.35 0.50 0.21 0.4 0.98\n",
    "yolo outlines": "3 " + " ".join(f"0.{n}" for n in range(10, 26)),
    "yolo tabs": "1\t0.35\t0.50\t0.21\t0.4\n",
    "yolo with names": "traffic_light 0.35 0.50 0.21 0.4\ncar 0.1 0.2 0.3 0.4\n",
    "visdrone": "684,8,273,116,0,0,0,0\n406,119,265,70,0,0,0,0\n",
    "dota": "imagesource:GoogleEarth\ngsd:0.14\n937.0 913.0 921.0 912.0 923.0 874.0 940.0 875.0 small-vehicle 0\n"
    "638.0 935.0 694.0 935.0 694.0 962.0 638.0 962.0 ship 1\n",
    "kitti": "Car 0.00 0 -1.57 599.41 156.40 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56\n",
    "boxes": "12 40 220 310\n",
    "exponents": "0 1e-3 2.5e-1 .5 5.\n",
}


@pytest.mark.parametrize("kind", LABELS)
def test_lines_of_numbers_beside_a_picture_are_labels_and_said_to_be(tmp_path, kind):
    item = only(read_all(folder_of(tmp_path, {"a.jpg": JPEG, "a.txt": LABELS[kind]})))
    assert (item.captions, item.drop) == ((), None)
    assert item.note == "a.txt: lines of numbers are labels, not a caption"
    item = only(read_all(folder_of(tmp_path, {"a.caption": WORDS})))
    assert item.caption == WORDS, "another file may hold the caption"


@pytest.mark.parametrize(
    "text",
    [
        WORDS, "7", "42 7", "Route 66", "Apollo 11 and 12 and 13 and 14", "3.5 stars", "4 8 15 16 23 and 42 are these",
        "10, 20, 30 or 40 people in a room", "1. a cat\n2. a dog", "2024-01-02 03:04", "房间里有 3 4 5 6 个人",
    ],
)  # fmt: skip
def test_sentences_with_numbers_are_captions(text):
    assert not is_labels(text)


def test_a_yolo_folder_is_annotated_without_captions_and_its_rows_say_so(tmp_path):
    files = {f"{n}.jpg": jpeg(n) for n in range(3)} | {f"{n}.txt": b"1 0.5 0.5 0.2 0.2\n" for n in range(2)}
    outcome = annotate(
        write_files(tmp_path / "yolo", files | {"2.txt": WORDS.encode()}), tmp_path / "out", flags=SEARCH
    )
    assert "2 ok images: something was mended or left out; `message` in the tables says what." in outcome.out
    assert read_markers(tmp_path / "out")[0].num_noted == 2
    rows = image_rows(tmp_path / "out")
    assert [rows[key]["image_caption"] for key in "012"] == [None, None, WORDS]
    assert [rows[key]["message"] for key in "012"] == [
        "0.txt: lines of numbers are labels, not a caption", "1.txt: lines of numbers are labels, not a caption", None,
    ]  # fmt: skip


# Hugging Face's metadata


def metadata(kind: str, rows: list[dict]) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("column", ["text", "caption", "Caption", "sentence", "prompt", "alt_text"])
def test_metadata_beside_pictures_holds_their_captions(tmp_path, kind, column):
    rows = [{"file_name": "sub/b.jpg", column: 'a cat,\n"asleep"'}, {"file_name": "a.jpg", column: WORDS}]
    files = {"a.jpg": JPEG, "sub/b.jpg": JPEG, f"metadata.{kind}": metadata(kind, rows)}
    assert [item.caption for item in read_all(folder_of(tmp_path, files))] == [WORDS, 'a cat,\n"asleep"']


def test_metadata_lies_in_each_split_and_names_files_from_there(tmp_path):
    files = {"train/0.jpg": JPEG, "test/0.jpg": JPEG}
    for split in ("train", "test"):
        files[f"{split}/metadata.jsonl"] = metadata("jsonl", [{"file_name": "0.jpg", "text": split}])
    assert {item.uri: item.caption for item in read_all(folder_of(tmp_path, files))} == {
        "train/0.jpg": "train", "test/0.jpg": "test",
    }  # fmt: skip


def test_what_two_tables_say_of_one_image_is_joined(tmp_path):
    boxes = {"bbox": [[1, 2, 3, 4]], "id": [7]}
    files = {
        "s/a.jpg": JPEG,
        "s/b.jpg": JPEG,
        "metadata.jsonl": metadata("jsonl", [{"file_name": "s/a.jpg", "objects": boxes}]),
        "s/metadata.csv": b"file_name,text\na.jpg,one\nb.jpg,two\n",
        "s/metadata.jsonl": metadata(
            "jsonl",
            [
                {"file_name": "a.jpg", "text": "more", "objects": {"bbox": [[2, 2, 3, 4]]}},
                {"file_name": "b.jpg", "text": "two", "objects": boxes},
            ],
        ),
    }
    a, b = read_all(folder_of(tmp_path, files))
    assert (a.captions, [region.id for region in a.given]) == (("one", "more"), ["7"])
    assert a.note == "s/metadata.jsonl: 1 region not read, another table has some"
    assert (b.captions, [region.id for region in b.given], b.note) == (("two",), ["7"], None)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_a_picture_within_a_table_is_a_dead_row_without_it(tmp_path, name):
    inline = "data:image/jpeg;base64," + "/9j/" * 1000
    rows = [{"image": "a.jpg", "text": WORDS}, {"image": inline, "text": WORDS}]
    table = metadata("jsonl", rows) if name.endswith("l") else f'image,text\na.jpg,{WORDS}\n"{inline}",x\n'.encode()
    good, dead = read_all(folder_of(tmp_path, {"a.jpg": JPEG, name: table}))
    assert good.caption == WORDS
    assert dead.drop and "holds its picture as base64" in dead.drop.message
    assert len(dead.uri) < 1000 and len(dead.drop.message) < 1000


def test_metadata_without_captions_or_of_other_files_is_not_read(tmp_path):
    files = {"a.jpg": JPEG, "metadata.jsonl": metadata("jsonl", [{"file_name": "a.jpg", "label": 3}])}
    files["sub/metadata.csv"] = b"path,title\nsongs/1.mp3,x\n"
    assert [(item.uri, item.caption) for item in read_all(folder_of(tmp_path, files))] == [("a.jpg", None)]


@pytest.mark.parametrize(
    "rows",
    [
        [{"file_name": "a.jpg"}, {"file_name": "b.jpg", "text": WORDS}],
        [{"file_name": "a.jpg", "text": None}, {"file_name": "b.jpg", "text": WORDS}],
        [{"file_name": "a.jpg", "text": ""}, {"file_name": "b.jpg", "caption": WORDS}],
        [{"file_name": "a.jpg", "id": 7}, {"image": "b.jpg", "Caption": WORDS}],
        [{"image_file_name": "a.jpg", "label": 3}, {"image_file_name": "b.jpg", "label": 3, "text": WORDS}],
        [{"id": 7}, {"image_path": "b.jpg", "text_2": None, "text_1": WORDS}],
        [{"image_file_name": "b.jpg", "text": None, "prompt": WORDS}],
        [{"image": None, "img_path": "b.jpg", "prompt": WORDS}],
    ],
)
@pytest.mark.parametrize("query", ["", "?captions=metadata.jsonl"])
def test_each_row_of_json_lines_is_read_by_the_columns_it_has(tmp_path, query, rows):
    files = {"a.jpg": JPEG, "b.jpg": JPEG, "metadata.jsonl": metadata("jsonl", rows)}
    found = {item.uri: item.caption for item in read_all(folder_of(tmp_path, files) + query)}
    assert (found["a.jpg"], found["b.jpg"]) == (None, WORDS)


@pytest.mark.parametrize("column", ["image_file_name", "image", "filename", "image_filename", "img_path"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_files_are_named_in_columns_of_several_names(tmp_path, column, kind):
    files = {"a.jpg": JPEG, f"metadata.{kind}": metadata(kind, [{column: "a.jpg", "text": WORDS}])}
    assert only(read_all(folder_of(tmp_path, files))).caption == WORDS


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"file_name": "a.jpg", "label": 3}\n', "must name a column of files"),
        (b'{"picture": "a.jpg", "text": "x"}\n', "must name a column of files"),
        (b'{"file_name": "z.jpg", "text": "x"}\n', "names no image of the folder; it is not read"),
    ],
)
def test_metadata_that_is_not_read_is_named_and_not_claimed(tmp_path, content, why):
    source = open_source(folder_of(tmp_path, {"a.jpg": JPEG, "metadata.jsonl": content}))
    described = source.describe()
    assert described.captions == ()
    assert [unread.name for unread in described.unread] == [".jsonl"]
    (note,) = described.notes
    assert "metadata.jsonl: " in note and why in note


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("query", ["", "?captions=metadata.{}"])
def test_tables_in_utf_16_are_read_where_their_mark_says_so(tmp_path, encoding, kind, query):
    rows = [{"file_name": "a.jpg", "text": "ein Hund im Café"}, {"file_name": "b.jpg", "text": "房间"}]
    content = metadata(kind, rows).decode()
    mark = "" if encoding == "utf-16" else "\ufeff"
    files = {"a.jpg": JPEG, "b.jpg": JPEG, f"metadata.{kind}": (mark + content).encode(encoding)}
    found = read_all(folder_of(tmp_path, files) + query.format(kind))
    assert [item.caption for item in found] == ["ein Hund im Café", "房间"]


@pytest.mark.parametrize("cut", [-1, -3])
def test_a_table_that_is_utf_16_by_its_mark_alone_is_refused(tmp_path, cut):
    files = {"a.jpg": JPEG, "metadata.csv": "file_name,text\na.jpg,x".encode("utf-16")[:cut]}
    with pytest.raises(SourceError, match=r"metadata\.csv: cannot be read as a table of captions"):
        read_all(folder_of(tmp_path, files))


@pytest.mark.parametrize(
    ("files", "table", "rows"),
    [
        (["train/a.jpg", "test/b.jpg"], "train/metadata.jsonl", ["a.jpg", "b.jpg"]),
        (["train/a.jpg", "test/b.jpg"], "metadata.jsonl", ["train/a.jpg", "train/b.jpg"]),
        (["train/a.jpg", "test/b.jpg"], "t.jsonl", ["train/a.jpg", "train/b.jpg"]),
        (["train/a.jpg", "test/b.jpg"], "t.jsonl", ["./train/a.jpg", "train\\b.jpg"]),
        (["train/a.jpg", "x/rain/b.jpg"], "t.jsonl", ["a.jpg", "train/b.jpg"]),
        (["train/a.jpg", "b.jpg"], "t.jsonl", ["a.jpg", "train/b.jpg"]),
    ],
)
def test_a_name_with_a_folder_is_no_file_of_another(tmp_path, files, table, rows):
    lines = metadata("jsonl", [{"file_name": name, "text": f"it is {name}"} for name in rows])
    query = "" if "metadata" in table else f"?captions={table}"
    found = {
        item.uri: item for item in read_all(folder_of(tmp_path, dict.fromkeys(files, JPEG) | {table: lines}) + query)
    }
    assert [found[name].caption for name in files] == [f"it is {rows[0]}", None]
    (missing,) = (item for uri, item in found.items() if uri not in files)
    assert missing.drop and missing.drop.reason is Reason.MISSING


@pytest.mark.parametrize("named", ["b.jpg", "deep/b.jpg", "x/deep/b.jpg", "photos/x/deep/b.jpg"])
def test_a_name_is_found_where_only_one_path_ends_so(tmp_path, named):
    files = {"a.jpg": JPEG, "x/deep/b.jpg": JPEG, "t.csv": f"file_name,text\n{named},{WORDS}\n"}
    assert [item.caption for item in read_all(f"{folder_of(tmp_path, files)}?captions=t.csv")] == [None, WORDS]


@pytest.mark.parametrize("name", [" o .jpg", "o .jpg", " o.jpg", "\u00a0o.jpg", "o.jpg"])
@pytest.mark.parametrize("query", ["", "?captions=metadata.jsonl"])
def test_blanks_around_a_name_are_its_own_where_a_file_has_them(tmp_path, name, query):
    rows = [{"file_name": name, "text": WORDS}, {"file_name": " a.jpg ", "text": "an a"}]
    files = {name: JPEG, "a.jpg": JPEG, "metadata.jsonl": metadata("jsonl", rows)}
    found = {item.uri: item.caption for item in read_all(folder_of(tmp_path, files) + query)}
    assert found == {name: WORDS, "a.jpg": "an a"}


def test_bad_lines_of_metadata_are_rows_of_their_own(tmp_path):
    lines = [
        b'{"file_name": "a.jpg", "text": "one"}',
        b"{broken",
        b"[1]",
        b'{"file_name": "a.jpg", "text": "two"}',
        b"",
    ]
    *_, broken, listed = found = read_all(folder_of(tmp_path, {"a.jpg": JPEG, "metadata.jsonl": b"\n".join(lines)}))
    assert found[0].captions == ("one", "two")
    assert reasons(found) == [None, Reason.BAD_RECORD, Reason.BAD_RECORD]
    assert "line 2 is no JSON object" in broken.drop.message and "line 3 is no JSON object" in listed.drop.message


@pytest.mark.parametrize("query", ["", "?captions=metadata.jsonl"])
def test_bad_lines_are_in_the_data_set(tmp_path, query):
    lines = b'{"file_name": "a.jpg", "text": "one"}\n{broken\n{"file_name": "", "text": "x"}\n'
    source = write_files(tmp_path / "in", {"a.jpg": jpeg(0), "metadata.jsonl": lines})
    annotate(f"{source}{query}", tmp_path / "out", flags=SEARCH)
    rows = [row for row in read_rows(tmp_path / "out") if row["region_id"] is None]
    assert [(row["status"], row["reason"]) for row in rows] == [("ok", None), *[("dead", "bad_record")] * 2]


def test_five_captions_an_image_come_in_their_order_into_every_file(tmp_path):
    source = write_photos(tmp_path / "photos", 2)
    for path in source.glob("*.txt"):
        path.unlink()
    rows = [f"{n:03d}.jpg| {place}| caption {place} of {n}" for n in range(2) for place in range(5)]
    (source / "results.csv").write_text("\n".join(["image_name| comment_number| comment", *rows]))
    annotate(f"{source}?captions=results.csv", tmp_path / "out")
    row = image_rows(tmp_path / "out")["001"]
    assert row["image_captions"] == [f" caption {place} of 1" for place in range(5)]
    assert row["image_caption"] == row["image_captions"][0]
    assert all(row["image_captions"] is None for row in read_rows(tmp_path / "out") if row["region_id"])
    assert run("doctor", tmp_path / "out").code == 0


# Tables


FIELDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"', '""', 'a "b" c', "two\nlines", "two\r\nlines", "x\ty", "a,b", ";", "|", " padded ", "\u2028", '5" pipe']
)


@given(
    rows=st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1, max_size=6),
    delimiter=st.sampled_from(",\t;|"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    mark=st.booleans(),
)
def test_what_the_csv_module_reads_from_a_well_formed_file_is_what_we_read(
    tmp_path_factory, rows, delimiter, line_end, quoting, mark
):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerows([("file_name", "id", "caption"), *rows])
    wanted = [row for row in csv.reader(io.StringIO(text.getvalue(), newline=""), delimiter=delimiter) if row][1:]
    assume(wanted == [list(row) for row in rows])  # the writer leaves a lone \\r unquoted, which ends a row
    path = tmp_path_factory.getbasetemp() / "table.csv"
    path.write_bytes(text.getvalue().encode("utf-8-sig" if mark else "utf-8"))
    found = read_table(Location.of(str(path)))
    assert [(row.file, row.values) for row in found if row.file] == [(f, (c,)) for f, _, c in wanted if f.strip()]
    assert len(found) == len(wanted)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", ["\t", ",", "|"])
@pytest.mark.parametrize(
    "captions",
    [
        ('"a lone mark at the front', "b", "c"),
        ("a", 'a 5" pipe', "c"),
        ("a", "b", '"the last'),
        ('"two of', "b", '"them'),
        ("a", '"so" and so', "c"),
        ('a mark at the end"', "b", 'and another"'),
        ('"one opens', 'and one closes"', "c"),
        ("a", '"', "c"),
    ],
)
def test_a_lone_quotation_mark_robs_no_image(tmp_path, delimiter, line_end, captions):
    names = ["a.jpg", "b.jpg", "c.jpg"]
    lines = [f"file{delimiter}caption", *(f"{n}{delimiter}{c}" for n, c in zip(names, captions, strict=True))]
    files = dict.fromkeys(names, JPEG) | {"t.tsv": line_end.join([*lines, ""])}
    found = read_all(f"{folder_of(tmp_path, files)}?captions=t.tsv")
    assert [item.caption or "" for item in found] == [c if c.strip('"') else "" for c in captions]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "field",
    [
        "things in it:\nb.jpg,two\nend",
        "b.jpg,two\nb.jpg,two",
        "\nb.jpg,two\n",
        'says ""\nb.jpg,two\n"" and more',
        "line\n" * 1500,
        "b.jpg,two\n" * 1500,
        "c.jpg\n\n\nb.jpg,",
    ],
)
def test_what_stands_in_a_quoted_field_is_text_as_to_the_csv_module(tmp_path, field, line_end):
    table = f'file_name,text\na.jpg,"{field}"\nb.jpg,the real b\n'.replace("\n", line_end)
    (_, wanted), _ = list(csv.reader(io.StringIO(table, newline="")))[1:]
    found = read_all(f"{folder_of(tmp_path, {'a.jpg': JPEG, 'b.jpg': JPEG, 't.csv': table})}?captions=t.csv")
    assert [item.captions for item in found] == [(tidy_caption(wanted),), ("the real b",)]


def test_a_field_has_any_length(tmp_path):
    long = "word " * 60_000
    files = {"a.jpg": JPEG, "b.jpg": JPEG, "t.csv": f'file,caption\na.jpg,"{long}"\nb.jpg,{long}\n'}
    assert [item.caption for item in read_all(f"{folder_of(tmp_path, files)}?captions=t.csv")] == [long, long]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("t.json", json.dumps([{"image": "a.jpg", "caption": ["", WORDS]}])),
        ("t.json", json.dumps({"a.jpg": WORDS})),
        ("t.json", json.dumps({"a.jpg": {"raw": WORDS, "tokens": ["a"]}})),
        ("t.jsonl", '\ufeff{"path": "a.jpg", "text": "' + WORDS + '"}\r\n\r\n'),
        ("t.ndjson", '{"path": "./a.jpg", "sentences": [{"raw": "' + WORDS + '"}]}'),
        ("t.TSV", f"Path\tCaption\r\na.jpg\t{WORDS}\r\n"),
        ("t.txt", f"image;caption\na.jpg;{WORDS}"),
    ],
)
def test_tables_of_other_kinds_are_read(tmp_path, name, table):
    spec = f"folder:{folder_of(tmp_path, {'a.jpg': JPEG, name: table})}?captions={name}"
    assert only(read_all(spec)).caption == WORDS


@pytest.mark.parametrize(
    ("name", "table", "words"),
    [
        ("t.json", "[" * 100_000, "nested too deep"),
        ("t.json", "{", "no JSON"),
        ("t.json", "3", "neither a list nor an object"),
        ("t.json", '{"images": [], "annotations": []}', "coco:FILE"),
        ("t.parquet", "PAR1", "cannot be read as a table of captions"),
        ("t.csv", "name;words\na.jpg;x", "must name a column of files"),
    ],
)
def test_a_table_that_is_none_is_refused_with_a_sentence(tmp_path, name, table, words):
    with pytest.raises(SourceError, match=words):
        read_all(f"folder:{folder_of(tmp_path, {'a.jpg': JPEG, name: table})}?captions={name}")
