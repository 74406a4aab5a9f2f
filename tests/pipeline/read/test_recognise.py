import json

import pytest

from pipeline.read import open_source
from pipeline.read.base import SourceError
from pipeline.read.summary import check_boxes, summarise
from tests.builders import write_files
from tests.pipeline.read.source_builders import JPEG

KITTI = b"Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
LABELME = {"version": "5.2.1", "shapes": [], "imagePath": "a.jpg", "imageHeight": 1, "imageWidth": 1}
STUDIO = [{"id": 1, "data": {"image": "a.jpg"}, "annotations": []}]
FOUND = {
    "data.yaml": (b"train: .", "data.yaml is YOLO's: yolo:"),
    "train/_annotations.coco.json": (b"{}", "train/_annotations.coco.json is COCO's: coco:"),
    "a.xml": (b"<annotation><object/></annotation>", "look like Pascal VOC's: voc:"),
    "annotations.xml": (b"<?xml version='1.0'?>\n<annotations><image/></annotations>", "the .xml is CVAT's: export"),
    "a.json": (json.dumps(LABELME).encode(), "the .json files are LabelMe's: turn them into COCO with Datumaro"),
    "project-1.json": (json.dumps(STUDIO).encode(), "the .json is Label Studio's: export"),
    "region_descriptions.json": (b"[]", "region_descriptions.json is Visual Genome's: visual_genome:"),
    "refs(unc).p": (b"\x80\x03]", "looks like a pickle of RefCOCO: a pickle can run code, so that none is read"),
    "refs.json": (b'[{"ref_id": 1, "sentences": []}]', "refs.json looks like RefCOCO's expressions: refcoco:"),
    "talk.json": (b'[{"conversations": []}]', "talk.json looks like conversations with boxes: grounding:"),
    "talk.jsonl": (b'{"messages": []}\n{"', "talk.jsonl holds conversations: grounding:"),
    "label_2/a.txt": (KITTI, "the .txt files look like KITTI's labels: turn them into COCO with Datumaro"),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_is_there_is_named_with_what_reads_it_where_boxes_are_wanted(tmp_path, name):
    data, words = FOUND[name]
    source = open_source(f"folder:{write_files(tmp_path, {'a.jpg': JPEG, name: data})}")
    described = source.describe()
    assert any(words in note for note in described.notes)
    with pytest.raises(SourceError) as caught:
        check_boxes("x", summarise(source, described, next(iter(source.parts(10, False)))))
    assert words[1:] in str(caught.value)


def test_the_two_folders_of_flickr_are_told_and_its_xml_is_not_taken_for_vocs(tmp_path):
    xml = b"<annotation><object/></annotation>"
    files = {"x/Sentences/1.txt": b"[/EN#1/other A cup]", "x/Annotations/1.xml": xml, "x/1.jpg": JPEG}
    (note,) = open_source(f"folder:{write_files(tmp_path, files)}").describe().notes
    assert f"flickr30k:{tmp_path}/x reads its phrases and boxes" in note


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b"a cat on a mat"),
        ("a.json", b"{"),
        ("b.json", b"[]"),
        ("a.xml", b"<x/>"),
        ("x.yaml", b"a: 1"),
        ("x.jsonl", b"{}"),
        ("x.p", b"x"),
    ],
)
def test_nothing_else_is_taken_for_annotations(tmp_path, name, data):
    write_files(tmp_path, {"a.jpg": JPEG, name: data})
    assert open_source(f"folder:{tmp_path}").describe().notes == ()
