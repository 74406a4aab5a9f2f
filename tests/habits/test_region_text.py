"""Region-text that exists, as published: Visual Genome, Flickr30k Entities, RefCOCO, GRIT, conversations."""

import csv
import io
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.read import open_source
from pipeline.read.base import SourceError
from pipeline.read.grounding_text import boxes_of_turn
from pipeline.read.objects import read_objects
from pipeline.read.summary import check_boxes, summarise
from pipeline.sample import GivenRegion, SourceItem
from schemas.reasons import Reason
from tests.builders import annotate, check_balance, image_bytes, jpeg, read_rows, run, write_files
from tests.pipeline.read.source_builders import read_all, reasons, tar_bytes

A, B = jpeg(1), jpeg(2)
"""Pictures of 96 x 64 pixels."""
GIVEN = ("--proposer", "manual", "--captioner", "given", "--select.max-iou", "1")
"""Captions of the source as they are, and of a box all that it has."""


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def lines(*values: Any) -> bytes:
    return b"".join(encoded(value) + b"\n" for value in values)


def table(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


VG_REGION = {"image_id": 7, "x": 10, "y": 20, "width": 30, "height": 40, "phrase": "a grey cat", "region_id": 1382}
VG_DATA = [
    {"image_id": 7, "width": 96, "height": 64, "url": "https://host/x/VG_100K_2/7.jpg", "coco_id": None},
    {"image_id": 8, "width": 96, "height": 64, "url": "https://host/x/VG_100K/8.jpg", "coco_id": None},
]
VG_OBJECT = {"object_id": 5, "x": 10, "y": 20, "w": 30, "h": 40, "names": ["cat"], "synsets": ["cat.n.01"]}
VG = {
    "image_data.json": encoded(VG_DATA),
    "region_descriptions.json": encoded([{"id": 7, "regions": [VG_REGION]}, {"id": 8, "regions": []}]),
    "objects.json": encoded([{"image_id": 7, "objects": [VG_OBJECT], "image_url": "https://host/x/VG_100K_2/7.jpg"}]),
    "VG_100K_2/7.jpg": A,
    "VG_100K/8.jpg": B,
}
SIZE = "<size><width>96</width><height>64</height><depth>3</depth></size>"
FLICKR_XML = (
    f"<annotation><filename>7.jpg</filename>{SIZE}"
    "<object><name>21</name><bndbox><xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object>"
    "<object><name>22</name><scene>1</scene><nobndbox>1</nobndbox></object></annotation>"
).encode()
FLICKR = {
    "Sentences/7.txt": b"[/EN#21/animals A grey cat] sits [/EN#22/scene outside] .\n[/EN#21/animals The cat] rests .\n",
    "Annotations/7.xml": FLICKR_XML,
    "flickr30k-images/7.jpg": A,
}
REF = {
    "ref_id": 3, "ann_id": 5, "image_id": 7, "category_id": 17, "split": "train",
    "file_name": "COCO_train2014_000000000007_5.jpg", "sent_ids": [0, 1],
    "sentences": [{"raw": "Left cat", "sent": "left cat", "sent_id": 0, "tokens": []},
                  {"raw": "the grey one", "sent": "the grey one", "sent_id": 1, "tokens": []}],
}  # fmt: skip
INSTANCES = {
    "images": [{"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "width": 96, "height": 64}],
    "annotations": [{"id": 5, "image_id": 7, "category_id": 17, "bbox": [10, 20, 30, 40], "iscrowd": 0}],
    "categories": [{"id": 17, "name": "cat"}],
}
COCO_NAME = "COCO_train2014_000000000007.jpg"
REF_HUB = {
    "image_path": f"coco/train2014/{COCO_NAME}", "file_name": f"{COCO_NAME[:-4]}_5.jpg",
    "bbox": [10.0, 20.0, 40.0, 60.0],
    "raw_anns": json.dumps({"bbox": [10, 20, 30, 40]}), "ref_id": 3, "split": "train", "captions": ["left cat"],
    "raw_image_info": json.dumps({"file_name": COCO_NAME, "width": 96, "height": 64}), "sentences": REF["sentences"],
}  # fmt: skip
ANSWER = "A grey cat rests"
SPAN = [2, 10, 0.104166668, 0.3125, 0.416666668, 0.9375, 0.75]
GRIT = {"caption": ANSWER, "noun_chunks": [SPAN], "ref_exps": [[0, 16, *SPAN[2:]]], "width": 96, "height": 64,
        "url": "https://host/7.jpg", "key": "7", "status": "success"}  # fmt: skip
ASKED = "Please provide the bounding box coordinate of the region this sentence describes: a grey cat"
LLAVA_BOX = "[0.104, 0.312, 0.417, 0.938]"
QWEN = "<|object_ref_start|>a grey cat<|object_ref_end|><|box_start|>(104,312),(417,938)<|box_end|>"
FLORENCE = "a grey cat<loc_104><loc_312><loc_416><loc_937>"


def talk(answer: str, question: str = "<image>\nWhat is there?", **other: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "t7", "image": "7.jpg", "conversations": turns, **other}


def swift(answer: str) -> dict[str, Any]:
    question = {"role": "user", "content": [{"type": "image", "image": "7.jpg"}, {"type": "text", "text": "what?"}]}
    return {"images": ["7.jpg"], "messages": [question, {"role": "assistant", "content": answer}]}


QWEN25 = talk('```json\n[{"bbox_2d": [10, 20, 40, 60], "label": "a grey cat"}]\n```')
OBJECTS = {"ref": ["a grey cat"], "bbox": [[10, 20, 40, 60]]}
BOX = (10.0, 20.0, 40.0, 60.0)

FORMATS: dict[str, tuple[dict[str, bytes], str, list[str | None]]] = {
    "visual genome": (VG, "visual_genome:{}", ["a grey cat"]),
    "visual genome, objects": (VG, "visual_genome:{}?take=objects", [None]),
    "visual genome, both": (VG, "visual_genome:{}?take=regions,objects", ["a grey cat", None]),
    "visual genome, without image_data.json": (
        {name: data for name, data in VG.items() if name != "image_data.json"}, "visual_genome:{}", ["a grey cat"]),
    "flickr30k": (FLICKR, "flickr30k:{}", ["A grey cat", "The cat"]),
    "refcoco": (
        {"refs.json": encoded([REF]), "instances.json": encoded(INSTANCES), COCO_NAME: A}, "refcoco:{}",
        ["left cat", "the grey one"]),
    "refcoco, lines": (
        {"refs.jsonl": lines(REF), "x/instances.json": encoded(INSTANCES), f"train2014/{COCO_NAME}": A},
        "refcoco:{}/refs.jsonl?instances=x/instances.json&images=train2014&split=train", ["left cat", "the grey one"]),
    "refcoco, parquet of a hub": (
        {"x.parquet": table([REF_HUB]), f"coco/train2014/{COCO_NAME}": A}, "refcoco:{}/x.parquet",
        ["left cat", "the grey one"]),
    "refcoco, rows of corners": (
        {"x.json": encoded([{"image": "7.jpg", "bbox": list(BOX), "sentences": "left cat"}]), "7.jpg": A},
        "refcoco:{}/x.json?boxes=xyxy", ["left cat"]),
    "refcoco, parquet with pictures": (
        {"x.parquet": table([{"image": {"bytes": A, "path": "7.jpg"}, "question": "what?", "answer": ["left cat", "it"],
                              "bbox": [10.0, 20.0, 30.0, 40.0]}])},
        "{}/x.parquet", ["left cat", "it"]),
    "grit, tars": (
        {"0.tar": tar_bytes([("7.jpg", A), ("7.json", encoded(GRIT)), ("7.txt", ANSWER.encode())])}, "{}",
        ["grey cat", ANSWER]),
    "grit, parquet": ({"0.parquet": table([{"jpg": A, **GRIT}])}, "{}", ["grey cat", ANSWER]),
    "llava, a box asked for": ({"x.json": encoded([talk(LLAVA_BOX, ASKED)]), "7.jpg": A}, "{}/x.json", ["a grey cat"]),
    "llava, a text asked for": (
        {"x.json": encoded([talk("a grey cat", f"<image>\nDescribe this region: {LLAVA_BOX}.")]), "7.jpg": A},
        "{}/x.json", ["a grey cat"]),
    "llava, in the text": (
        {"x.jsonl": lines(talk(f"a grey cat {LLAVA_BOX}")), "7.jpg": A}, "{}/x.jsonl", ["a grey cat"]),
    "qwen": ({"x.jsonl": lines(talk(QWEN)), "7.jpg": A}, "{}/x.jsonl", ["a grey cat"]),
    "qwen, pixels": ({"x.jsonl": lines(QWEN25), "7.jpg": A}, "{}/x.jsonl", ["a grey cat"]),
    "qwen, messages": ({"x.jsonl": lines(swift(QWEN)), "7.jpg": A}, "{}/x.jsonl", ["a grey cat"]),
    "qwen-vl and internvl": (
        {"x.jsonl": lines(talk("<ref>a grey cat</ref><box>[[104, 312, 417, 938]]</box>")), "7.jpg": A}, "{}/x.jsonl",
        ["a grey cat"]),
    "florence": (
        {"x.jsonl": lines({"image": "7.jpg", "prefix": "<OD>", "suffix": FLORENCE}), "7.jpg": A}, "{}/x.jsonl",
        ["a grey cat"]),
    "objects beside the text": (
        {"x.jsonl": lines(talk("<ref-object><bbox>", objects=OBJECTS)), "7.jpg": A}, "grounding:{}", ["a grey cat"]),
}  # fmt: skip
SWIFT_OBJECT = {"caption": "a grey cat", "bbox": [10, 20, 40, 60], "bbox_type": "real", "image": 0}
PIECES_OF_TURN = [{"type": "image", "image": "file:///data/7.jpg"}, {"type": "text", "text": "what?"}]
FORMATS |= {
    name: ({"x.jsonl": lines(row), "7.jpg": A}, "grounding:{}/x.jsonl", ["a grey cat"])
    for name, row in {
        "objects, a list": talk("<ref-object>", objects=[SWIFT_OBJECT]),
        "objects, a list in JSON": talk("<ref-object>", objects=json.dumps([SWIFT_OBJECT])),
        "objects, lists in JSON": talk("<ref-object><bbox>", objects=json.dumps(OBJECTS)),
        "qwen-vl, the picture in the text": {
            "conversations": talk(QWEN, "Picture 1: <img>7.jpg</img>\nWhat is there?")["conversations"]},
        "qwen, the picture in a piece": {
            "messages": [{"role": "user", "content": PIECES_OF_TURN}, {"role": "assistant", "content": QWEN}]},
        "qwen, JSON in prose": talk('Here: [{"bbox_2d": [10, 20, 40, 60], "label": "a grey cat"}]. That is all'),
        "paligemma": {"image": "7.jpg", "prefix": "detect cat",
                      "suffix": "<loc0320><loc0107><loc0960><loc0427> a grey cat"},
        "cogvlm": talk("a grey cat [[0.104, 0.312, 0.417, 0.938]]"),
    }.items()
}  # fmt: skip
NAMES = pytest.mark.parametrize("name", FORMATS)


def in_pixels(item: SourceItem, region: GivenRegion) -> tuple[float, ...]:
    width, height = (96, 64) if item.given_in_shares else (1, 1)
    x0, y0, x1, y1 = region.box
    return x0 * width, y0 * height, x1 * width, y1 * height


def check_read(items: list[SourceItem], captions: list[str | None]) -> None:
    """The picture 7 has the box with these captions; no other picture has any."""
    (seven,) = (item for item in items if item.given)
    assert set(reasons(items)) == {None} and seven.data == A
    assert [region.caption for region in seven.given] == captions
    assert len({region.id for region in seven.given}) == len(captions)
    for region in seven.given:
        assert region.problem is None
        assert in_pixels(seven, region) == pytest.approx(BOX, abs=0.1)


@NAMES
def test_each_is_read_with_the_captions_of_its_regions(tmp_path, name):
    files, spec, captions = FORMATS[name]
    source = open_source(spec.format(write_files(tmp_path, files)))
    check_read(read_all(pickle.loads(pickle.dumps(source))), captions)
    check_read(read_all(pickle.loads(pickle.dumps(source)), shard_size=1), captions)
    told = source.describe()
    assert told.boxes
    check_boxes("x", summarise(source, told, next(iter(source.parts(10, False)))))
    assert all(file.etag for file in source.files())


@NAMES
def test_each_is_read_from_a_store(bucket, store, name):
    files, spec, captions = FORMATS[name]
    for uri, data in files.items():
        store.pipe(f"/bucket/{uri}", data)
    check_read(read_all(spec.format(bucket)), captions)


@NAMES
def test_captions_and_boxes_come_out_as_they_were_given(tmp_path, name):
    files, spec, captions = FORMATS[name]
    annotate(spec.format(write_files(tmp_path / "in", files)), tmp_path / "out", flags=GIVEN)
    check_balance(tmp_path / "out")
    rows = [row for row in read_rows(tmp_path / "out") if row["region_id"]]
    assert sorted(row["reason"] or "" for row in rows) == sorted("" if said else "empty_caption" for said in captions)
    ok = [row for row in rows if row["status"] == "ok"]
    assert sorted(row["caption"] for row in ok) == sorted(said for said in captions if said)
    for row in ok:
        assert [row[edge] for edge in ("x0", "y0", "x1", "y1")] == pytest.approx(BOX, abs=0.1)
    assert run("doctor", tmp_path / "out").code == 0


@NAMES
def test_a_filter_list_takes_a_region_away_by_its_id(tmp_path, name):
    files, spec, captions = FORMATS[name]
    source = spec.format(write_files(tmp_path / "in", files))
    (seven,) = (item for item in read_all(source) if item.given)
    gone = {"key": seven.key, "region_id": seven.given[-1].id, "keep": False}
    (tmp_path / "list.jsonl").write_text(json.dumps(gone) + "\n")
    annotate(source, tmp_path / "out", "--filter", tmp_path / "list.jsonl", flags=GIVEN)
    rows = [row for row in read_rows(tmp_path / "out") if row["region_id"]]
    assert [row["source_id"] for row in rows if row["reason"] == "excluded"] == [seven.given[-1].id]
    assert len(rows) == len(captions)


def test_a_filter_list_takes_an_object_of_an_imagefolder_away(tmp_path):
    row = {"file_name": "7.jpg", "objects": {"bbox": [[10, 20, 30, 40], [1, 2, 30, 40]], "id": [5, 6]}}
    folder = write_files(tmp_path / "in", {"7.jpg": A, "metadata.jsonl": lines(row)})
    (tmp_path / "list.jsonl").write_text('{"key": "7", "region_id": "6", "keep": false}\n')
    annotate(folder, tmp_path / "out", "--filter", tmp_path / "list.jsonl")
    found = {row["source_id"]: row["reason"] for row in read_rows(tmp_path / "out") if row["region_id"]}
    assert found == {"5": None, "6": "excluded"}


def read_lines(folder: Path, *values: Any, options: str = "", size: tuple[int, int] = (96, 64)) -> list[SourceItem]:
    write_files(folder, {"7.jpg": jpeg(1, *size), "x.jsonl": lines(*values)})
    return read_all(f"grounding:{folder}/x.jsonl{options}")


def read_one(folder: Path, answer: str, options: str = "", **other: Any) -> GivenRegion:
    (item,) = read_lines(folder, talk(answer, **other), options=options)
    (region,) = item.given
    return region


BAD: dict[str, tuple[str, str]] = {
    "shares beyond the picture": ("cat [0.1, 0.2, 1.7, 0.4] ", "nothing tells"),
    "thousandths beyond": ("<ref>cat</ref><box>(10,20),(1700,40)</box>", "lies outside the image"),
    "words": ("<ref>cat</ref><box>here</box>", "is no box"),
    "three numbers": ('{"bbox_2d": [1, 2, 3], "label": "cat"}', "is no box"),
    "cut JSON": ('[{"bbox_2d": [1, 2, 3', "is no box"),
    "an outline": ("cat<loc_1><loc_2><loc_3><loc_4><loc_5>", "is no box"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_box_that_is_none_is_a_dead_region_beside_the_good_ones(tmp_path, kind):
    answer, words = BAD[kind]
    (item,) = read_lines(tmp_path, talk(answer), talk(QWEN))
    bad, good = item.given
    assert bad.problem and words in bad.problem and "x.jsonl line 1" in bad.problem
    assert good.problem is None and in_pixels(item, good) == pytest.approx(BOX, abs=0.1)


@pytest.mark.parametrize("bad", ["NaN", "-Infinity"])
def test_numbers_that_are_none_are_told_by_the_rules_of_boxes(tmp_path, bad):
    row = f'{{"image": "7.jpg", "objects": {{"ref": ["a", "b"], "bbox": [[{bad}, 1, 20, 20], [5, 5, 5, 30]]}}}}'
    files = {"7.jpg": A, "x.jsonl": row.encode(), "8.jpg": B}
    annotate(f"grounding:{write_files(tmp_path / 'in', files)}", tmp_path / "out", flags=GIVEN)
    rows = [row for row in read_rows(tmp_path / "out") if row["region_id"]]
    assert {row["reason"] for row in rows} == {"invalid_box"} and len(rows) == 2
    check_balance(tmp_path / "out")


FRAMES: dict[str, tuple[str, str]] = {
    "": ('{"bbox_2d": [10, 20, 40, 60], "label": "cat"}', ""),
    "thousandths": ('{"bbox_2d": [104.2, 312.5, 416.7, 937.5], "label": "cat"}', "?boxes=thousandths"),
    "shares": ('{"bbox_2d": [0.1042, 0.3125, 0.4167, 0.9375], "label": "cat"}', "?boxes=shares"),
    "brackets": ("cat [10, 20, 40, 60]", "?boxes=pixels"),
}


@pytest.mark.parametrize("frame", FRAMES)
def test_what_the_text_does_not_tell_the_option_does(tmp_path, frame):
    answer, options = FRAMES[frame]
    (item,) = read_lines(tmp_path, talk(answer), options=options)
    (region,) = item.given
    assert (region.caption, region.problem) == ("cat", None)
    assert in_pixels(item, region) == pytest.approx(BOX, abs=0.05)


@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 96)])
def test_boxes_on_a_padded_square_are_moved_to_the_picture(tmp_path, width, height):
    left, top = (96 - width) / 2, (96 - height) / 2
    square = [(10 + left) / 96, (20 + top) / 96, (40 + left) / 96, (60 + top) / 96]
    (item,) = read_lines(tmp_path, talk(f"cat {square}"), options="?boxes=square", size=(width, height))
    (region,) = item.given
    x0, y0, x1, y1 = region.box
    assert (x0 * width, y0 * height, x1 * width, y1 * height) == pytest.approx(BOX)


def test_entries_of_one_picture_are_one_sample_in_one_frame(tmp_path):
    sized = {"width": 96, "height": 64}
    (item,) = read_lines(tmp_path, talk(QWEN), QWEN25 | sized, talk(f"cat {LLAVA_BOX}") | {"image": "./7.jpg"})
    assert [region.problem for region in item.given] == [None] * 3
    for region in item.given:
        assert in_pixels(item, region) == pytest.approx(BOX, abs=0.1)
    (item,) = read_lines(tmp_path, talk(QWEN), QWEN25)
    good, bad = item.given
    assert good.problem is None and bad.problem and "in pixels and in shares" in bad.problem
    (item,) = read_lines(tmp_path, QWEN25 | sized, QWEN25 | {"width": 64, "height": 96})
    assert item.given[1].problem and "states 64 x 96 pixels, and an entry before it 96 x 64" in item.given[1].problem


def test_ids_that_a_picture_has_twice_are_noted_and_nothing_is_lost(tmp_path):
    files = VG | {"region_descriptions.json": encoded([{"id": 7, "regions": [VG_REGION, VG_REGION | {"phrase": "b"}]}])}
    (item,) = read_all(f"visual_genome:{write_files(tmp_path, files)}")
    assert [region.caption for region in item.given] == ["a grey cat", "b"]
    assert item.note and "1 id of regions there more than once, the first 1382" in item.note


def test_entries_that_are_none_are_dead_rows(tmp_path):
    files = {"7.jpg": A, "x.jsonl": b"\xef\xbb\xbf" + encoded(talk(QWEN)) + b"\r\n\r\n{\r\n3\r\n"}
    write_files(tmp_path, files)
    good, *bad = read_all(f"grounding:{tmp_path}/x.jsonl")
    assert len(good.given) == 1
    assert reasons(bad) == [Reason.BAD_RECORD] * 2
    assert [item.drop.message.partition(": ")[0] for item in bad if item.drop] == ["x.jsonl line 3", "x.jsonl line 4"]
    two = talk(QWEN) | {"image": ["7.jpg", "8.jpg"]}
    _, item = read_lines(tmp_path, talk(QWEN), two)
    assert item.drop and "names 2 pictures" in item.drop.message


@pytest.mark.parametrize("within", ["\u0085", "\u2028", "\x0c", "\x1e"])
def test_a_sentence_of_flickr_ends_at_the_end_of_its_line_alone(tmp_path, within):
    text = f"[/EN#21/animals A grey{within}cat] sits .\r\nIt rests .\n"
    (item,) = read_all(f"flickr30k:{write_files(tmp_path, FLICKR | {'Sentences/7.txt': text.encode()})}")
    assert item.captions == (f"A grey{within}cat sits .", "It rests .")
    assert [region.caption for region in item.given] == [f"A grey{within}cat"]


NAMES = (["cat", "pet"], "cat", [])


@pytest.mark.parametrize(("asks", "answers"), [("USER", "ASSISTANT"), ("Human", "GPT"), ("user", "model")])
def test_roles_are_read_however_they_are_written(tmp_path, asks, answers):
    turns = [{"from": asks, "value": "Where is it?"}, {"from": answers, "value": QWEN}]
    (item,) = read_lines(tmp_path, {"image": "7.jpg", "conversations": turns})
    assert [region.caption for region in item.given] == ["a grey cat"]


def test_a_picture_within_the_text_is_a_dead_row_without_it(tmp_path):
    inline = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + "/9j/" * 1000}}
    turns = [{"role": "user", "content": [inline]}, {"role": "assistant", "content": QWEN}]
    good, dead = read_lines(tmp_path, talk(QWEN), {"messages": turns})
    assert len(good.given) == 1
    assert dead.drop and dead.drop.reason is Reason.BAD_RECORD and "holds its picture as base64" in dead.drop.message
    assert len(dead.uri) < 1000 and len(dead.drop.message) < 1000


def test_an_object_of_visual_genome_has_one_name_or_several(tmp_path):
    said = [{"object_id": n, "x": 1, "y": 2, "w": 3, "h": 4, "names": names} for n, names in enumerate(NAMES)]
    files = {"objects.json": encoded([{"image_id": 7, "objects": said}]), "VG_100K/7.jpg": A}
    (item,) = read_all(f"visual_genome:{write_files(tmp_path, files)}?take=objects")
    assert [region.label for region in item.given] == ["cat", "cat", None]


def test_entries_without_a_picture_are_counted_and_no_rows(tmp_path):
    alone = {"id": "x", "conversations": talk("hello")["conversations"]}
    (item,) = read_lines(tmp_path, talk(QWEN), alone, alone)
    assert item.drop is None
    assert open_source(f"grounding:{tmp_path}/x.jsonl").describe().notes == (
        "entries without a picture, which are not read: 2",
    )


@pytest.mark.parametrize(
    "name", ["sub/7.jpg", "sub\\7.jpg", "./sub//7.jpg", "sub/%37.jpg", "data/sub/7.jpg", "{}/sub/7.jpg"]
)
def test_names_are_found_as_written_elsewhere(tmp_path, name):
    row = talk(QWEN) | {"image": name.format(tmp_path / "data")}
    write_files(tmp_path / "data", {"sub/7.jpg": A, "x.jsonl": lines(row)})
    (item,) = read_all(f"grounding:{tmp_path}/data/x.jsonl")
    assert (item.drop, item.data) == (None, A)


def test_absolute_names_of_another_machine_are_found_below_the_folder_that_is_given(tmp_path):
    names = ["/home/x/coco/train/7.jpg", "C:\\data\\coco\\train\\8.jpg", "/home/y/other/train/7.jpg"]
    rows = [talk(QWEN) | {"image": name} for name in names]
    write_files(tmp_path, {"pictures/train/7.jpg": A, "pictures/train/8.jpg": B, "in/x.jsonl": lines(*rows)})
    found = read_all(f"grounding:{tmp_path}/in/x.jsonl?images={tmp_path}/pictures")
    by_uri = {item.uri: item.drop.message if item.drop else item.data for item in found}
    assert (by_uri.pop("train/7.jpg"), by_uri.pop("train/8.jpg")) == (A, B)
    ((_, message),) = by_uri.items()
    assert "train/7.jpg is taken for /home/x/coco/train/7.jpg already" in message


def test_pictures_that_are_missing_ambiguous_or_not_allowed(tmp_path):
    rows = [talk(QWEN) | {"image": name} for name in ("gone.jpg", "7.jpg", "../secret.jpg", "8.jpg")]
    write_files(tmp_path, {"secret.jpg": A})
    files = {"a/7.jpg": A, "b/7.jpg": B, "8.jpg": B, "x.jsonl": lines(*rows)}
    items = {item.uri: item for item in read_all(f"grounding:{write_files(tmp_path / 'in', files)}/x.jsonl")}
    drops = {uri: item.drop.reason if item.drop else None for uri, item in items.items()}
    assert drops == {
        "../secret.jpg": Reason.NOT_ALLOWED,
        "7.jpg": Reason.MISSING,
        "8.jpg": None,
        "gone.jpg": Reason.MISSING,
    }
    assert items["7.jpg"].drop and "2 pictures below" in items["7.jpg"].drop.message
    (tmp_path / "in" / "x.jsonl").write_bytes(lines(rows[2]))
    with pytest.raises(SourceError, match=r"--read\.allow"):
        list(open_source(f"grounding:{tmp_path}/in/x.jsonl").files())


TURNS: dict[str, tuple[str, str, list[str | None]]] = {
    "several in a line": ("what?", "a cat [0, 0, 1, 1], a dog [0, 0, 0.5, 1].", ["a cat", "a dog"]),
    "several lines": ("what?", "A cat. [0, 0, 1, 1]\nA dog. [0, 0, 1, 1]", ["A cat.", "A dog."]),
    "one text, two boxes": ("x", "<ref>cats</ref><box>(1,2),(3,4)</box><box>(5,6),(7,8)</box>", ["cats", "cats"]),
    "florence, two boxes": ("<OD>", "cat<loc_1><loc_2><loc_3><loc_4><loc_1><loc_2><loc_3><loc_4>", ["cat", "cat"]),
    "florence, what is asked": ("<OPEN_VOCABULARY_DETECTION>a cat", "<loc_1><loc_2><loc_3><loc_4>", ["a cat"]),
    "florence, a region": ("<REGION_TO_DESCRIPTION><loc_1><loc_2><loc_3><loc_4>", "a cat", ["a cat"]),
    "words without a box": ("x", "<ref>a</ref> and <ref>b</ref><box>(1,2),(3,4)</box>", ["b"]),
    "marks without a ref": ("x", "the <ref>man</ref> is here: <box>(1,2),(3,4)</box>", ["the man is here"]),
    "no words": ("Where is it?", "[0, 0, 1, 1]", [None]),
    "a question of marks": ("What does <ref>the man</ref><box>(1,2),(3,4)</box> wear?", "a hat", ["the man"]),
    "several JSON values": (
        "x",
        'One:\n```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "a"}]\n```\n```json\n{"b": {"bbox": [1, 2, 3, 4]}}\n```',
        ["a", None],
    ),
    "one text, boxes in a list": ("x", '{"bbox_2d": [[1, 2, 3, 4], [5, 6, 7, 8]], "label": "cats"}', ["cats", "cats"]),
    "shikra, two boxes": ("x", "cats [0, 0, 1, 1; 0, 0, 0.5, 1], a dog [0, 0, 1, 1]", ["cats", "cats", "a dog"]),
    "paligemma, two": (
        "x",
        "<loc0001><loc0002><loc0003><loc0004> a cat ; " + "<loc0001>" * 4 + "<seg001> a dog",
        ["a cat", "a dog"],
    ),
    "paligemma, what is asked": ("caption <loc0001><loc0002><loc0003><loc0004>", "a cat", ["a cat"]),
    "a box before its ref": (
        "x",
        "<|box_start|>(1,2),(3,4)<|box_end|><|object_ref_start|>a cat<|object_ref_end|>",
        ["a cat"],
    ),
    "boxes before their refs": (
        "x",
        "<box>(1,2),(3,4)</box><ref>a</ref>, <box>(5,6),(7,8)</box> <ref>b</ref>",
        ["a", "b"],
    ),
    "either way": ("x", "<box>(1,2),(3,4)</box><ref>a</ref>, <ref>b</ref><box>(5,6),(7,8)</box>", ["a", "b"]),
    "no boxes": ("Is it [red]?", "No, [1, 2] and [a, b, c].", []),
}


@pytest.mark.parametrize("kind", TURNS)
def test_each_box_has_the_words_that_it_is_of(kind):
    question, answer, words = TURNS[kind]
    assert [found.words for found in boxes_of_turn(question, answer)] == words


KOSMOS = (
    "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> warming "
    "himself by<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></delimiter_of_multi_objects/>"
    "<patch_index_0005><patch_index_0069></object>."
)
"""The first two boxes are those of the model's card."""


@pytest.mark.parametrize(
    "entry",
    [
        {"caption": KOSMOS},
        {"text": KOSMOS},
        {"captions": [KOSMOS]},
        {"messages": [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": KOSMOS}]},
    ],
)
def test_patches_of_kosmos_are_boxes_and_no_caption_has_marks(tmp_path, entry):
    spec = f"grounding:{write_files(tmp_path, {'a.jpg': A, 'x.jsonl': lines({'image': 'a.jpg', **entry})})}/x.jsonl"
    (item,) = read_all(spec)
    assert [(region.caption, region.problem) for region in item.given] == [
        ("a snowman", None), ("a fire", None), ("a fire", None),
    ]  # fmt: skip
    assert item.given_in_shares
    assert item.given[0].box == pytest.approx((0.390625, 0.046875, 0.984375, 0.828125))
    assert item.given[1].box == pytest.approx((0.171875, 0.015625, 0.484375, 0.890625))
    assert item.given[2].box == pytest.approx((5 / 32, 0, 6 / 32, 3 / 32)), "of one column: its whole width"
    said = None if "messages" in entry else "An image of a snowman warming himself by a fire."
    assert item.caption == said


@pytest.mark.parametrize("patches", ["<patch_index_0044>", "<patch_index_0044><patch_index_1024>", ""])
def test_patches_that_are_no_box_are_a_dead_region(patches):
    (found,) = boxes_of_turn("x", f"<phrase>a cat</phrase><object>{patches}</object>")
    assert (found.box, found.words) == (None, "a cat")


def test_lines_of_odvg_are_read(tmp_path):
    region = {"bbox": [10, 20, 40, 60], "phrase": "a cat", "tokens_positive": [[0, 5]]}
    instance = {"bbox": [1, 2, 30, 40], "label": 0, "category": "dog"}
    rows = [
        {"filename": "a.jpg", "height": 64, "width": 96, "grounding": {"caption": "a cat sits", "regions": [region]}},
        {"filename": "b.jpg", "height": 64, "width": 96, "detection": {"instances": [instance]}},
    ]
    files = {"a.jpg": A, "b.jpg": B, "x.jsonl": lines(*rows)}
    a, b = read_all(f"grounding:{write_files(tmp_path, files)}/x.jsonl")
    assert (a.caption, a.given[0].caption, a.given[0].box) == ("a cat sits", "a cat", (10, 20, 40, 60))
    assert (b.caption, b.given[0].caption, b.given[0].label, b.given[0].box) == (None, None, "dog", (1, 2, 30, 40))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("<OCR_WITH_REGION>", "STOP" + "<loc_1>" * 8),
        ("<REFERRING_EXPRESSION_SEGMENTATION>a cat", "<loc_1>" * 12),
        ("What is the text in the image, with regions?", "STOP" + "<loc_1>" * 8),
        ("detect cat", "<loc0001><loc0002><loc0003> a cat"),
    ],
)
def test_outlines_are_taken_for_no_boxes(question, answer):
    assert {found.box for found in boxes_of_turn(question, answer)} == {None}


PIECES = st.sampled_from(
    ["<ref>", "</ref>", "<box>", "</box>", "(1,2),(3,4)", "<loc_5>", "<loc0005>", "; ",
     "[0.1, 0.2, 0.3, 0.4]", "cat", "```json", "```",
     '{"bbox_2d": [1, 2, 3, 4]}', "\n", ": ", "<OD>", "NaN", "1e999", "[[", "<|box_start|>", "\ud800", "\0", "[", "]",
     "{", "bbox", "-", " "]
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=40).map("".join), st.lists(PIECES, max_size=40).map("".join))
def test_no_text_is_beyond_reading(question, answer):
    for found in boxes_of_turn(question, answer):
        assert found.box is None or len(found.box) == 4
        assert found.words is None or not {"<ref>", "</ref>", "<box>", "</box>"} & {
            *re.findall("<[^<>]*>", found.words)
        }


@pytest.mark.parametrize(
    "value",
    [None, 3, "x", [], {}, {"bbox": 3}, {"bbox": [3]}]
    + [{"bbox": [[1, 2, 3, 4]], "ref": ref} for ref in ("a", ["a", "b"], [None], [["a"]])],
)
@pytest.mark.parametrize("turns", [None, 3, [], [3], [{}], [{"from": "gpt"}], [{"role": "assistant", "content": [3]}]])
def test_no_entry_is_beyond_reading(tmp_path, value, turns):
    entry = {"image": "7.jpg", "objects": value, "conversations": turns}
    (item,) = read_lines(tmp_path, entry, talk(QWEN, width=96, height=64))
    assert [region.caption for region in item.given if region.problem is None][-1] == "a grey cat"


def test_a_text_in_another_encoding_is_lost_and_not_mended(tmp_path):
    accented = "un caf\u00e9"
    sources = {
        "grounding:{}/x.jsonl": {
            "x.jsonl": {"image": "7.jpg", "objects": {"ref": [accented], "bbox": [[1, 2, 30, 40]]}}
        },
        "grounding:{}/y.json": {"y.json": [talk(f"{accented} {LLAVA_BOX}")]},
        "visual_genome:{}": {"region_descriptions.json": [{"id": 7, "regions": [VG_REGION | {"phrase": accented}]}]},
        "refcoco:{}/z.json": {"z.json": [{"image": "7.jpg", "bbox": [1, 2, 30, 40], "sentences": [accented]}]},
    }
    for spec, files in sources.items():
        written = {name: json.dumps(value, ensure_ascii=False).encode("latin-1") for name, value in files.items()}
        (item,) = read_all(spec.format(write_files(tmp_path, {"7.jpg": A, **written})))
        (region,) = item.given
        assert region.caption is None and region.problem and "not UTF-8" in region.problem, spec


@pytest.mark.parametrize("style", ["qwen", "florence", "llava"])
def test_what_our_export_writes_is_read_back(tmp_path, style):
    annotate(FORMATS["flickr30k"][1].format(write_files(tmp_path / "in", FLICKR)), tmp_path / "data", flags=GIVEN)
    assert run("export", tmp_path / "data", tmp_path / "out", "--to", "grounding", "--box-style", style).code == 0
    written = tmp_path / "out" / "train.jsonl"
    (exact,) = read_all(f"grounding:{written}")
    assert [(region.box, region.caption) for region in exact.given] == [(BOX, "A grey cat"), (BOX, "The cat")]
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    written.write_bytes(lines(*({name: row[name] for name in row if name != "objects"} for row in rows)))
    (rounded,) = read_all(f"grounding:{written}")
    assert [region.caption for region in rounded.given] == ["A grey cat", "The cat"]
    for region in rounded.given:
        assert in_pixels(rounded, region) == pytest.approx(BOX, abs=0.1)


def cells(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


METADATA: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "metadata.jsonl": lambda rows: lines(*rows),
    "metadata.csv": lambda rows: cells([row | {"objects": json.dumps(row["objects"])} for row in rows]),
    "metadata.parquet": table,
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("caption", [{}, {"text": "two pets"}])
def test_objects_of_an_imagefolders_table_are_read_in_each_form(tmp_path, name, caption):
    objects = {"bbox": [[10, 20, 30, 40]], "categories": ["cat"], "caption": ["a grey cat"]}
    rows = [{"file_name": "7.jpg", "objects": objects, **caption}]
    folder = write_files(tmp_path, {"7.jpg": A, name: METADATA[name](rows)})
    assert open_source(str(folder)).describe().boxes == (f"`objects` of {name}",)
    (item,) = read_all(str(folder))
    assert [(region.box, region.label, region.caption) for region in item.given] == [(BOX, "cat", "a grey cat")]
    assert item.caption == caption.get("text")


def test_a_cell_of_objects_that_is_no_json_is_a_dead_region(tmp_path):
    write_files(tmp_path, {"7.jpg": A, "metadata.csv": b'file_name,objects\n7.jpg,"[{"\n'})
    (item,) = read_all(str(tmp_path))
    assert item.given[0].problem and "metadata.csv: line 2: objects[0] is '[{'" in item.given[0].problem


@pytest.mark.parametrize(
    ("files", "spec", "words"),
    [
        ({"a.jpg": A}, "visual_genome:{}", "found no objects.json there"),
        ({"image_data.json": b"[]", "region_descriptions.json": b"{}"}, "visual_genome:{}", "is no list"),
        (VG, "visual_genome:{}?take=scenes", "?take=scenes is neither"),
        ({"Annotations/7.xml": FLICKR_XML}, "flickr30k:{}", "found no Annotations/*.xml with Sentences/*.txt"),
        ({"refs(unc).p": b"x"}, "refcoco:{}", "a pickle can run code, so that none is read"),
        ({"refs(unc).p": b"x"}, "refcoco:{}/refs(unc).p", "json.dump(pickle.load(open"),
        ({"x.parquet": table([{"image": A, "bbox": [1.0]}])}, "refcoco:{}/x.parquet", "give it as parquet:"),
        ({"x.parquet": b"no"}, "refcoco:{}/x.parquet", "cannot be read"),
        ({"x.json": b"{"}, "grounding:{}/x.json", "is no list of JSON objects"),
        ({"x.jsonl": b""}, "grounding:{}/x.jsonl", "none of its entries names a picture"),
        ({"x.jsonl": "{}".encode("utf-16")}, "grounding:{}/x.jsonl", "is UTF-16; write it as UTF-8"),
        ({"x.jsonl": lines(talk(QWEN))}, "grounding:{}/x.jsonl?boxes=feet", "?boxes=feet is none of pixels"),
        ({"a.jpg": A}, "grounding:{}", "found no .jsonl there"),
    ],
)  # fmt: skip
def test_what_is_not_of_the_format_is_refused_with_a_sentence(tmp_path, files, spec, words):
    with pytest.raises(SourceError) as caught:
        list(open_source(spec.format(write_files(tmp_path, files))).files())
    assert words in str(caught.value) or words.replace("pixels", "shares") in str(caught.value)


def test_spans_that_are_none_are_dead_regions(tmp_path):
    spans = [[2, 10, 0.1, 0.2, 0.3], [2, 99, 0.1, 0.2, 0.3, 0.4], [2, 10, 0.1, 0.2, 1.3, 0.4], "x", SPAN]
    record = GRIT | {"noun_chunks": spans, "ref_exps": None}
    (tmp_path / "0.tar").write_bytes(tar_bytes([("7.jpg", image_bytes("JPEG")), ("7.json", encoded(record))]))
    (item,) = read_all(str(tmp_path))
    problems = [region.problem or "" for region in item.given]
    for problem, words in zip(
        problems, ("not start, end", "not within the caption", "lies outside", "not start", ""), strict=True
    ):
        assert words in problem and (problem == "") == (words == "")


def test_a_phrase_of_flickr_in_another_encoding_and_files_that_lack_their_other(tmp_path):
    files = FLICKR | {
        "Sentences/8.txt": "[/EN#1/other Un caf\u00e9] .".encode("latin-1"),
        "Annotations/8.xml": FLICKR_XML.replace(b"<name>21<", b"<name>1<").replace(b"7.jpg", b"8.jpg"),
        "Annotations/9.xml": FLICKR_XML.replace(b"7.jpg", b"9.jpg"),
        "Sentences/6.txt": b"[/EN#1/other A cup] .\n",
        **{f"flickr30k-images/{n}.jpg": B for n in (6, 8, 9)},
    }
    items = {item.uri[-5:]: item for item in read_all(f"flickr30k:{write_files(tmp_path, files)}")}
    assert items["8.jpg"].drop and items["8.jpg"].drop.reason is Reason.CAPTION_ENCODING
    assert items["9.jpg"].note == "9 has no file in Sentences" and items["9.jpg"].given[0].caption is None
    assert items["6.jpg"].note == "6 has no file in Annotations" and items["6.jpg"].captions == ("A cup .",)


OBJECT = {"bbox": [10, 20, 30, 40]}


@pytest.mark.parametrize(
    ("objects", "captions", "ids", "crowd"),
    [
        (
            {"bbox": [OBJECT["bbox"]] * 2, "captions": [["a", "b", "a"], ["c"]]},
            ["a", "b", "c"],
            ["0.0", "0.1", "1"],
            None,
        ),
        ([OBJECT | {"phrase": ["a", "b"], "id": 7}], ["a", "b"], ["7.0", "7.1"], None),
        (OBJECT | {"caption": "a"}, ["a"], ["0"], None),
        (json.dumps(OBJECT | {"caption": "a"}), ["a"], ["0"], None),
        ({"bbox": [OBJECT["bbox"]], "iscrowd": [1]}, [None], ["0"], True),
        ([OBJECT | {"is_crowd": False}], [None], ["0"], False),
    ],
)
def test_objects_with_several_captions_alone_in_a_text_or_as_crowds(objects, captions, ids, crowd):
    found = read_objects(objects, "x")
    assert [(region.caption, region.id) for region in found] == list(zip(captions, ids, strict=True))
    assert {region.box for region in found} == {BOX} and {region.is_crowd for region in found} == {crowd}


def test_rows_of_one_picture_have_ids_of_their_own_and_regions_beside_are_told(tmp_path):
    row = {"file_name": "7.jpg", "objects": {"bbox": [[10, 20, 30, 40]]}}
    beside = encoded({"regions": [{"box": [1, 2, 30, 40]}]})
    (item,) = read_all(str(write_files(tmp_path, {"7.jpg": A, "7.json": beside, "metadata.jsonl": lines(row, row)})))
    assert [region.id for region in item.given] == ["0", "1"]
    assert item.note and "7.json: 1 region not read" in item.note


def test_an_expression_of_another_image_is_a_dead_region_and_one_of_a_crowd_a_crowd(tmp_path):
    crowd = INSTANCES["annotations"][0] | {"iscrowd": 1}
    images = [*INSTANCES["images"], {"id": 8, "file_name": "8.jpg", "width": 96, "height": 64}]
    instances = INSTANCES | {"images": images, "annotations": [crowd]}
    files = {"refs.json": encoded([REF, REF | {"image_id": 8}]), "instances.json": encoded(instances)}
    other, right = read_all(f"refcoco:{write_files(tmp_path, files | {COCO_NAME: A, '8.jpg': B})}")
    assert {region.problem for region in other.given} == {"refs.json entry 1: ann_id 5 is of image 7, not of 8"}
    assert {(region.problem, region.is_crowd) for region in right.given} == {(None, True)}


def test_a_list_of_flickr_may_name_files(tmp_path):
    files = FLICKR | {"train.txt": b"7.jpg\r\n7\r\n"}
    (item,) = read_all(f"flickr30k:{write_files(tmp_path, files)}?split=train.txt")
    assert len(item.given) == 2


def test_a_field_of_odvg_without_boxes_hides_no_other(tmp_path):
    entry = {
        "filename": "a.jpg",
        "grounding": {"regions": []},
        "detection": {"instances": [{"bbox": [1, 2, 3, 4], "category": "cat"}]},
    }
    (item,) = read_all(f"grounding:{write_files(tmp_path, {'a.jpg': A, 'x.jsonl': lines(entry)})}/x.jsonl")
    assert [region.label for region in item.given] == ["cat"]
