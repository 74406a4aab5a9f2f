"""Hugging Face's `objects`: as `datasets` itself writes them to Parquet, and by hand in `metadata.jsonl`."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.read import open_source
from pipeline.read.base import SourceError
from pipeline.read.objects import read_objects
from schemas.reasons import Reason
from tests.builders import annotate, check_balance, jpeg, read_rows, write_files
from tests.pipeline.read.source_builders import JPEG, read_all

LISTS = {"bbox": [[1, 2, 3, 4], [5.5, 6, 7, 8]], "category": ["cat", "dog"], "id": [7, 9], "area": [12, 56]}
OBJECTS = [{"bbox": [1, 2, 3, 4], "category": "cat", "id": 7}, {"bbox": [5.5, 6, 7, 8], "label": "dog", "id": "9"}]


@pytest.mark.parametrize("value", [LISTS, OBJECTS])
def test_either_form_is_read(value):
    regions = read_objects(value, "x")
    assert [(region.box, region.label, region.id, region.problem) for region in regions] == [
        ((1, 2, 4, 6), "cat", "7", None), ((5.5, 6, 12.5, 14), "dog", "9", None),
    ]  # fmt: skip
    assert read_objects(value, "x", form="xyxy")[0].box == (1, 2, 3, 4)


@pytest.mark.parametrize("value", [None, [], {}, {"bbox": [], "category": []}])
def test_no_objects_are_none(value):
    assert read_objects(value, "x") == ()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("odd", "is 'odd'"),
        ({"bbox": [1, 2, 3]}, "its box [1, 2, 3] is not four numbers"),
        ({"category": "cat"}, "its box None is not four numbers"),
        ({"bbox": [1, 2, 3, 4], "category": 9}, "the category 9 is none of the 1"),
        ({"bbox": [1, 2, 3, 4], "score": "high"}, "the score 'high' is no number"),
    ],
)
def test_a_bad_object_has_a_problem_beside_the_good_ones(entry, words):
    good, bad = read_objects([{"bbox": [1, 2, 3, 4], "category": 0}, entry], "row 3", names={0: "cat"})
    assert (good.label, good.problem) == ("cat", None)
    assert bad.problem and bad.problem.startswith("row 3: objects[1]") and words in bad.problem


def test_a_number_of_a_class_may_be_written_as_a_float():
    said = {"bbox": [[1, 2, 3, 4]] * 3, "category": [1.0, float("nan"), 0.5]}
    assert [region.label for region in read_objects(said, "x")] == ["1", None, "0.5"]
    assert read_objects(said, "x", names={1: "cat"})[0].label == "cat"


def test_lists_of_different_lengths_tell_no_boxs_label():
    regions = read_objects({"bbox": [[1, 2, 3, 4], [1, 2, 3, 4]], "category": ["cat"]}, "x")
    assert len(regions) == 2
    assert all(region.problem and "1 of 'category' for 2 boxes" in region.problem for region in regions)


def test_parquet_of_datasets_gives_boxes_with_the_names_of_its_classes(tmp_path):
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["cat", "dog"])
    box = datasets.List(datasets.Value("float32"), length=4)
    for name, kind in (("list", datasets.List({"bbox": box, "category": label})),
                       ("struct", {"bbox": datasets.List(box), "category": datasets.List(label)})):  # fmt: skip
        objects: Any = [{"bbox": [1, 2, 3, 4], "category": 1}]
        objects = objects if name == "list" else {"bbox": [[1, 2, 3, 4]], "category": [1]}
        features = datasets.Features({"image": datasets.Value("binary"), "objects": kind})
        data = datasets.Dataset.from_dict({"image": [JPEG], "objects": [objects]}, features=features)
        data.to_parquet(str(tmp_path / f"{name}.parquet"))
        (item,) = read_all(str(tmp_path / f"{name}.parquet"))
        assert [(region.box, region.label) for region in item.given] == [((1, 2, 4, 6), "dog")]
        (told,) = open_source(str(tmp_path / f"{name}.parquet")).describe().boxes
        assert told == "column 'objects', as xywh"


def test_columns_without_boxes_are_no_objects_and_options_choose(tmp_path):
    table = pa.table({"image": [JPEG], "objects": [[{"name": "cat"}]], "found": [[{"box": [1, 2, 3, 4]}]]})
    pq.write_table(table, tmp_path / "x.parquet")
    (item,) = read_all(f"{tmp_path}/x.parquet")
    assert item.given == ()
    (item,) = read_all(f"parquet:{tmp_path}/x.parquet?objects=found&boxes=xyxy")
    assert item.given[0].box == (1, 2, 3, 4)
    with pytest.raises(SourceError, match="objects=objects names no usable column"):
        read_all(f"parquet:{tmp_path}/x.parquet?objects=objects")
    with pytest.raises(SourceError, match="boxes=cxcywh is neither"):
        open_source(f"parquet:{tmp_path}/x.parquet?boxes=cxcywh")


@pytest.mark.parametrize("caption", [{}, {"text": "two pets"}])
def test_an_imagefolders_metadata_gives_boxes_and_totals_balance(tmp_path, caption):
    boxes = {"bbox": [[10, 20, 30, 40], [1, 2, 3]], "categories": [0, 1]}
    lines = [{"file_name": "a.jpg", "objects": boxes, **caption}, {"file_name": "gone.jpg", "objects": boxes}]
    metadata = "\n".join(map(json.dumps, lines)).encode()
    spec = f"folder:{write_files(tmp_path / 'in', {'a.jpg': jpeg(0), 'b.jpg': jpeg(1), 'metadata.jsonl': metadata})}"
    assert open_source(spec).describe().boxes == ("`objects` of metadata.jsonl",)
    a, b, gone = read_all(spec)
    assert (a.caption, b.given) == (caption.get("text"), ())
    assert gone.drop and gone.drop.reason is Reason.MISSING
    annotate(spec, tmp_path / "out", "--max-dead", "0.9")
    rows = {row["source_id"]: row for row in read_rows(tmp_path / "out") if row["region_id"]}
    assert {name: row["reason"] for name, row in rows.items()} == {"0": None, "1": "bad_record"}
    assert [rows["0"][edge] for edge in ("x0", "y0", "x1", "y1")] == [10, 20, 40, 60]
    check_balance(tmp_path / "out")


BOX_OF_A_ROW = [
    ("metadata.jsonl", json.dumps({"file_name": "a.jpg", "text": "two pets", "bbox": [1, 2, 3, 4], "category": "cat"})),
    ("metadata.csv", 'file_name,text,bbox,category\na.jpg,two pets,"[1, 2, 3, 4]",cat'),
]


@pytest.mark.parametrize(("name", "table"), BOX_OF_A_ROW)
def test_a_box_of_an_imagefolders_row_is_a_region(tmp_path, name, table):
    spec = f"folder:{write_files(tmp_path, {'a.jpg': jpeg(0), name: table.encode()})}"
    assert open_source(spec).describe().boxes
    (item,) = read_all(spec)
    assert item.caption == "two pets"
    assert [(region.box, region.label, region.caption, region.problem) for region in item.given] == [
        ((1, 2, 4, 6), "cat", None, None)
    ]


@pytest.mark.parametrize(
    ("fields", "regions"),
    [
        ({"bbox": [1, 2, 3, 4], "phrase": ["a cat", "the pet"]}, [("a cat", None), ("the pet", None)]),
        ({"bbox": [[1, 2, 3, 4]] * 2, "label": ["cat", "dog"]}, [(None, "cat"), (None, "dog")]),
        ({"bbox": [[1, 2, 3, 4]] * 2, "phrase": ["a cat", "a dog"]}, [("a cat", None), ("a dog", None)]),
        ({"bbox": [[1, 2, 3, 4]] * 2, "category": "cat", "phrase": "a cat"}, [("a cat", "cat")] * 2),
        ({"bbox": [[1, 2, 3, 4]] * 2, "class": "outdoor", "answer": "yes", "name": "a.jpg"}, [(None, None)] * 2),
        ({"bbox": [[1, 2, 3, 4]] * 2, "label": ["cat"], "sents": ["a", "b", "c"]}, [(None, None)] * 2),
        ({"bbox": [[1, 2, 3, 4]] * 2, "category": "pets", "name": ["cat", "dog"]}, [(None, "cat"), (None, "dog")]),
        ({"bbox": [1, 2, 3, 4], "name": "a.jpg", "class": "outdoor"}, [(None, None)]),
        ({"bbox": None}, []),
        ({"bbox": []}, []),
    ],
)
def test_boxes_of_a_row_have_what_the_row_says_of_them(tmp_path, fields, regions):
    row = json.dumps({"file_name": "a.jpg", **fields})
    (item,) = read_all(f"folder:{write_files(tmp_path, {'a.jpg': jpeg(0), 'metadata.jsonl': row.encode()})}")
    assert [(region.caption, region.label) for region in item.given] == regions
    assert item.caption is None


@pytest.mark.parametrize("box", [[1, 2, 3], "1 2 3 4", {"x": 1}, [1, 2, None, 4]])
def test_a_box_of_a_row_that_is_none_has_a_problem(tmp_path, box):
    row = json.dumps({"file_name": "a.jpg", "bbox": box})
    (item,) = read_all(f"folder:{write_files(tmp_path, {'a.jpg': jpeg(0), 'metadata.jsonl': row.encode()})}")
    assert ["metadata.jsonl: line 1: objects[0]" in (region.problem or "") for region in item.given] == [True]


def test_a_table_of_text_lists_what_it_says_of_boxes_as_json(tmp_path):
    table = 'file_name,bbox,category\na.jpg,"[[1, 2, 3, 4], [2, 2, 3, 4]]","[""cat"", ""dog""]"'
    (item,) = read_all(f"folder:{write_files(tmp_path, {'a.jpg': jpeg(0), 'metadata.csv': table.encode()})}")
    assert [(region.label, region.problem) for region in item.given] == [("cat", None), ("dog", None)]


@pytest.mark.parametrize("boxes", [[], [[1, 2, 3, 4]]])
def test_sentences_beside_boxes_are_the_pictures(tmp_path, boxes):
    row = json.dumps({"file_name": "a.jpg", "bbox": boxes, "sentences": ["a dog on a lawn"]})
    (item,) = read_all(f"folder:{write_files(tmp_path, {'a.jpg': jpeg(0), 'metadata.jsonl': row.encode()})}")
    assert item.caption == "a dog on a lawn"
    assert [region.caption for region in item.given] == [None] * len(boxes)


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("column", ["bbox", "bboxes", "box", "boxes"])
@pytest.mark.parametrize(
    ("boxes", "fields", "regions"),
    [
        ([1, 2, 3, 4], {"category": "cat"}, [(None, "cat")]),
        ([1, 2, 3, 4], {"label": ["cat"], "phrase": ["a cat", "the pet"]}, [("a cat", "cat"), ("the pet", "cat")]),
        ([[1, 2, 3, 4]] * 2, {"labels": ["cat", "dog"]}, [(None, "cat"), (None, "dog")]),
        ([[1, 2, 3, 4]] * 2, {"labels": ["cat", "dog"], "phrase": ["a cat", "a dog"]},
         [("a cat", "cat"), ("a dog", "dog")]),
        ([[1, 2, 3, 4]] * 2, {"category": "cat", "sentences": ["two cats"]}, [(None, "cat")] * 2),
        ([[1, 2, 3, 4]] * 2, {"class": "outdoor", "answer": "yes"}, [(None, None)] * 2),
        ([[1, 2, 3, 4]] * 2, {"name": "000123.jpg"}, [(None, None)] * 2),
        ([1, 2, 3, 4], {"name": "000123.jpg", "class": "outdoor"}, [(None, None)]),
        ([], {"labels": []}, []),
        (None, {"labels": None}, []),
    ],
)  # fmt: skip
def test_boxes_of_their_own_columns_are_read_as_in_a_table(tmp_path, column, boxes, fields, regions, as_text):
    row = {"image": JPEG, column: boxes, **fields}
    if as_text:
        row |= {name: json.dumps(value) for name, value in row.items() if isinstance(value, list)}
    cells = {name: pa.array([value]) for name, value in row.items()}
    if not boxes:
        cells[column] = cells[column].cast(pa.string() if as_text else pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table(cells), tmp_path / "x.parquet")
    (item,) = read_all(f"{tmp_path}/x.parquet")
    assert [(region.caption, region.label, region.problem) for region in item.given] == [(*of, None) for of in regions]
    assert all(region.box == (1, 2, 4, 6) for region in item.given)
    assert open_source(f"{tmp_path}/x.parquet").describe().boxes == (f"column {column!r}, as xywh",)


@pytest.mark.parametrize("as_text", [False, True])
def test_lists_beside_boxes_that_are_of_another_length_are_not_read_and_noted(tmp_path, as_text):
    boxes: Any = [[1, 2, 3, 4]] * 2
    boxes = json.dumps(boxes) if as_text else boxes
    cells = {"image": [JPEG] * 2, "bbox": [boxes] * 2, "label": [["cat"], []], "sents": [["a", "b", "c"], None]}
    pq.write_table(pa.table(cells), tmp_path / "x.parquet")
    uneven, without = read_all(f"{tmp_path}/x.parquet")
    for item in (uneven, without):
        assert [(region.caption, region.label, region.problem) for region in item.given] == [(None, None, None)] * 2
    told = "'label' lists 1 for 2 boxes, and is not read; column 'sents' lists 3 for 2 boxes, and is not read"
    assert (uneven.note, without.note) == (f"row 0: column {told}", None)


def test_a_list_goes_before_text_beside_a_list_of_boxes(tmp_path):
    cells = {"category": ["outdoor"], "labels": [["cat", "dog"]], "phrase": ["pets"], "answer": [["a cat", "a dog"]]}
    pq.write_table(pa.table({"image": [JPEG], "bbox": [[[1, 2, 3, 4]] * 2], **cells}), tmp_path / "x.parquet")
    (item,) = read_all(f"{tmp_path}/x.parquet")
    assert [(region.caption, region.label) for region in item.given] == [("a cat", "cat"), ("a dog", "dog")]


def test_a_categories_number_beside_boxes_is_a_name_of_the_columns(tmp_path):
    datasets = pytest.importorskip("datasets")
    box = datasets.List(datasets.Value("float32"), length=4)
    label = datasets.ClassLabel(names=["cat", "dog"])
    kinds = {"image": datasets.Value("binary"), "bbox": datasets.List(box), "label": datasets.List(label)}
    features = datasets.Features(kinds)
    row: dict[str, Any] = {"image": [JPEG], "bbox": [[[1, 2, 3, 4], [2, 2, 3, 4]]], "label": [[1, 0]]}
    datasets.Dataset.from_dict(row, features=features).to_parquet(str(tmp_path / "x.parquet"))
    (item,) = read_all(f"{tmp_path}/x.parquet")
    assert [region.label for region in item.given] == ["dog", "cat"]


def test_objects_that_a_column_of_text_lists_as_json_are_read(tmp_path):
    cells = [json.dumps(LISTS), json.dumps(OBJECTS), "", None, "[{"]
    pq.write_table(pa.table({"image": [JPEG] * 5, "objects": cells}), tmp_path / "x.parquet")
    given = [item.given for item in read_all(f"{tmp_path}/x.parquet")]
    assert [[region.label for region in regions] for regions in given] == [["cat", "dog"]] * 2 + [[], [], [None]]
    assert "row 4: objects[0] is '[{'" in (given[4][0].problem or "")
    pq.write_table(pa.table({"image": [JPEG] * 2, "objects": ["", "a cat, a dog"]}), tmp_path / "x.parquet")
    assert [item.given for item in read_all(f"{tmp_path}/x.parquet")] == [(), ()]
