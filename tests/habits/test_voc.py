"""Pascal VOC as the challenge, LabelImg, CVAT, Roboflow and others write it."""

import pickle
from pathlib import Path

import pytest

from pipeline.read import open_source
from pipeline.read.base import SourceError
from pipeline.read.summary import check_boxes, summarise
from pipeline.sample import SourceItem
from schemas.reasons import Reason
from tests.builders import annotate, check_balance, jpeg, read_rows, write_files
from tests.pipeline.read.source_builders import JPEG, read_all, reasons


def xml(*objects: str, size: str = "<size><width>96</width><height>64</height><depth>3</depth></size>") -> bytes:
    return f"<annotation><folder>x</folder><filename>a.jpg</filename>{size}{''.join(objects)}</annotation>".encode()


def thing(name: str = "cat", corners: tuple[object, ...] = (11, 21, 40, 60), extra: str = "") -> str:
    tags = "".join(
        f"<{tag}>{corner}</{tag}>" for tag, corner in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name>{extra}<bndbox>{tags}</bndbox></object>"


CHALLENGE = {"JPEGImages/a.jpg": JPEG, "JPEGImages/b.jpg": JPEG, "Annotations/a.xml": xml(thing())}
LAYOUTS = {
    "challenge": CHALLENGE | {"SegmentationClass/a.png": JPEG, "SegmentationObject/a.png": JPEG},
    "devkit": {f"VOCdevkit/VOC2012/{uri}": data for uri, data in CHALLENGE.items()},
    "roboflow": {"train/a.jpg": JPEG, "train/b.jpg": JPEG, "train/a.xml": xml(thing())},
    "images": {"images/a.jpg": JPEG, "images/b.jpg": JPEG, "annotations/a.xml": xml(thing())},
    "anywhere": {"photos/a.png": JPEG, "photos/b.png": JPEG, "labels/a.xml": xml(thing())},
    "by file name": {"JPEGImages/a.jpg": JPEG, "JPEGImages/b.jpg": JPEG, "Annotations/0001.xml": xml(thing())},
    "capitals": {"JPEGImages/A.JPG": JPEG, "JPEGImages/b.jpg": JPEG, "Annotations/a.XML": xml(thing())},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_tools_are_read_with_edges_from_zero(tmp_path, layout):
    source = open_source(f"voc:{write_files(tmp_path, LAYOUTS[layout])}")
    a, b = read_all(pickle.loads(pickle.dumps(source)))
    assert (reasons([a, b]), b.given, a.given_size) == ([None, None], (), (96, 64))
    (region,) = a.given
    assert (region.box, region.label, region.id, region.problem) == ((10, 20, 40, 60), "cat", "0", None)
    told = source.describe()
    assert told.boxes == ("1 XML files, corners counted from 1",) and told.num_images == 2
    assert "1 pictures have no XML file" in told.notes[0]
    check_boxes("x", summarise(source, told, next(iter(source.parts(10, False)))))
    assert {a.uri, b.uri} < {file.uri for file in source.files() if file.etag}


def read_one(tmp_path: Path, data: bytes, options: str = "") -> SourceItem:
    write_files(tmp_path, {"a.jpg": JPEG, "a.xml": data, "b.jpg": JPEG, "b.xml": xml(thing())})
    item, other = read_all(f"voc:{tmp_path}{options}")
    assert len(other.given) == 1
    return item


def test_difficult_and_truncated_objects_are_kept_and_parts_of_them_are_no_objects(tmp_path):
    parts = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    flags = "<pose>Left</pose><truncated>1</truncated><difficult>1</difficult>"
    item = read_one(
        tmp_path, xml(thing(extra=flags), thing("dog", extra=parts), thing("a&amp;b", (1.5, "2", " 3 ", 4)))
    )
    boxes = [(region.label, region.box, region.problem) for region in item.given]
    assert boxes[:2] == [("cat", (10, 20, 40, 60), None), ("dog", (10, 20, 40, 60), None)]
    assert boxes[2] == ("a&b", (0.5, 1, 3, 4), None)


def test_a_box_that_is_turned_gives_the_box_around_it(tmp_path):
    angle = "<attributes><attribute><name>rotation</name><value>{}</value></attribute></attributes>"
    angles = ("90.0", "0.0", "180", "left")
    item = read_one(tmp_path, xml(*(thing(extra=angle.format(said)) for said in angles)))
    assert [region.box for region in item.given] == [pytest.approx((5, 25, 45, 55)), *[(10, 20, 40, 60)] * 3]
    assert item.note and "1 of its boxes are turned ones" in item.note


def test_tools_that_count_from_zero_are_read_as_such_and_noticed(tmp_path):
    data = xml(thing(corners=(0, 21, 40, 60)))
    item = read_one(tmp_path, data)
    assert item.given[0].box == (-1, 20, 40, 60) and item.note and "?origin=0" in item.note
    item = read_one(tmp_path, data, "?origin=0")
    assert (item.given[0].box, item.note) == ((0, 21, 40, 60), None)
    with pytest.raises(SourceError, match="origin=2 is neither"):
        open_source(f"voc:{tmp_path}?origin=2")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("<object><name>x</name></object>", "object 1 has no bndbox"),
        ("<object><name>x</name><robndbox><cx>1</cx></robndbox></object>", "object 1 has no bndbox"),
        (thing(corners=("a", 1, 2, 3)), "not four numbers"),
        ("<object><bndbox><xmin>1</xmin></bndbox></object>", "not four numbers"),
    ],
)
def test_a_bad_object_is_a_region_with_a_problem_beside_the_good_ones(tmp_path, entry, words):
    first, bad, last = read_one(tmp_path, xml(thing(), entry, thing())).given
    assert (first.problem, last.problem, bad.id) == (None, None, "1")
    assert bad.problem and words in bad.problem


LAUGHS = b'<!DOCTYPE a [<!ENTITY x "yyyyyyyy"><!ENTITY z "&x;&x;&x;">]>'
BROKEN = {
    "a bomb": (LAUGHS + xml("<object><name>&z;</name></object>"), "has a document type"),
    "another file": (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + xml("&x;"), "has a document type"),
    "an undeclared entity": (xml("<object><name>&nbsp;</name></object>"), "undefined entity"),
    "cut": (xml(thing())[:80], "a.xml: "),
    "empty": (b"", "no element"),
    "another format": (b"<annotations><image/></annotations>", "begins with <annotations>"),
    "an odd encoding": (b'<?xml version="1.0" encoding="gbk"?>' + xml(), "encoding"),
    "an unknown encoding": (b'<?xml version="1.0" encoding="nonsense"?>' + xml(), "encoding"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_cannot_be_read_costs_its_own_picture(tmp_path, kind):
    data, words = BROKEN[kind]
    item = read_one(tmp_path, data)
    assert item.drop and item.drop.reason is Reason.BAD_RECORD
    assert words in item.drop.message and "a.xml" in item.drop.message


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-8-sig"])
def test_encodings_are_those_that_the_file_says(tmp_path, encoding):
    said = encoding.removesuffix("-sig")
    accented = xml(thing("caf\u00e9")).decode()
    text = f'<?xml version="1.0" encoding="{said}"?>{accented}'
    assert read_one(tmp_path, text.encode(encoding)).given[0].label == "caf\u00e9"


def test_sets_choose_pictures_and_what_they_name_in_vain_is_missing(tmp_path):
    sets = {
        "ImageSets/Main/train.txt": b"a\ngone\n",
        "ImageSets/Main/cat_train.txt": b"a  1\nb -1\n",
        "ImageSets/Segmentation/train.txt": b"b\n",
        "ImageSets/Main/all.txt": b"a\nb\nc\n",
    }
    stray = {"Annotations/c.xml": xml().replace(b"a.jpg", b"c.jpg")}
    folder = write_files(tmp_path, CHALLENGE | sets | stray)
    items = read_all(f"voc:{folder}?set=train")
    assert [(item.uri, item.drop and item.drop.reason) for item in items] == [
        ("JPEGImages/a.jpg", None), ("gone", Reason.MISSING),
    ]  # fmt: skip
    assert [item.uri for item in read_all(f"voc:{folder}?set=cat_train")] == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]
    assert reasons(read_all(f"voc:{folder}?set=all")) == [None, None, Reason.MISSING]
    assert "ImageSets/Main/train.txt" in {file.uri for file in open_source(f"voc:{folder}?set=train").files()}
    with pytest.raises(SourceError, match=r"names 0 lists; there are all, cat_train, train"):
        read_all(f"voc:{folder}?set=val")


def test_two_files_of_one_picture_are_not_added_up(tmp_path):
    write_files(tmp_path, {"JPEGImages/a.jpg": JPEG, "Annotations/a.xml": xml(thing()), "old/a.xml": xml(thing())})
    item, lost = read_all(f"voc:{tmp_path}")
    assert len(item.given) == 1
    assert lost.drop and lost.drop.reason is Reason.BAD_RECORD and "has Annotations/a.xml already" in lost.drop.message


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.jpg": JPEG}, "found no .xml file"),
        ({"a.jpg": JPEG, "b.xml": xml().replace(b"a.jpg", b"b.jpg")}, "no picture of its name, nor one called 'b.jpg'"),
        ({"a.jpg": JPEG, "b.xml": b"<x/>"}, "begins with <x>"),
    ],
)
def test_folders_that_are_no_voc_are_refused(tmp_path, files, words):
    with pytest.raises(SourceError) as caught:
        read_all(f"voc:{write_files(tmp_path, files)}")
    assert words in str(caught.value)
    with pytest.raises(SourceError, match="a VOC input is a folder"):
        open_source(f"voc:{tmp_path}/a.jpg")


def test_a_remote_data_set(bucket, store):
    store.pipe("/bucket/JPEGImages/a.jpg", JPEG)
    store.pipe("/bucket/Annotations/a.xml", xml(thing()))
    assert [len(item.given) for item in read_all(f"voc:{bucket}")] == [1]


def test_boxes_are_stored_to_the_pixel_and_totals_balance(tmp_path):
    wrong = "<size><width>64</width><height>96</height></size>"
    files = {
        "a.jpg": jpeg(0), "a.xml": xml(thing(), thing(corners=("x", 1, 2, 3)), thing(corners=(9, 9, 5, 5))),
        "b.jpg": jpeg(1), "b.xml": xml(thing(), size=wrong), "c.jpg": jpeg(2), "d.jpg": jpeg(3), "d.xml": LAUGHS,
        "e.jpg": jpeg(4), "e.xml": xml(thing(), size=""),
    }  # fmt: skip
    annotate(f"voc:{write_files(tmp_path / 'in', files)}", tmp_path / "out", "--max-dead", "0.9")
    rows = read_rows(tmp_path / "out")
    images = {row["key"]: row["reason"] for row in rows if not row["region_id"]}
    assert images == {"a": None, "b": "size_mismatch", "c": None, "d": "bad_record", "e": None}
    found = {(row["key"], row["source_id"]): row["reason"] for row in rows if row["region_id"]}
    assert found == {("a", "0"): None, ("a", "1"): "bad_record", ("a", "2"): "invalid_box", ("e", "0"): None}
    boxes = [
        [row[edge] for edge in ("x0", "y0", "x1", "y1")] for row in rows if row["status"] == "ok" and row["region_id"]
    ]
    assert boxes == [[10, 20, 40, 60]] * 2
    check_balance(tmp_path / "out")


def test_names_that_differ_in_capitals_alone_have_an_xml_file_each(tmp_path):
    files = {"a.jpg": JPEG, "A.jpg": JPEG, "a.xml": xml(thing("small")), "A.xml": xml(thing("large"))}
    write_files(tmp_path, files)
    labels = {item.uri: [region.label for region in item.given] for item in read_all(f"voc:{tmp_path}")}
    assert labels == {"a.jpg": ["small"], "A.jpg": ["large"]}


@pytest.mark.parametrize(
    "line", ["my pet", '"my pet"', "my pet -1", '"my pet"  1', "my pet.jpg", "x/my pet", "\ufeffmy pet"]
)
def test_a_name_in_a_set_may_hold_blanks_folders_or_a_suffix(tmp_path, line):
    files = {"JPEGImages/my pet.jpg": JPEG, "JPEGImages/my.jpg": JPEG, "Annotations/my pet.xml": xml(thing())}
    write_files(tmp_path, files | {"ImageSets/Main/train.txt": f"{line}\r\n".encode()})
    (item,) = read_all(f"voc:{tmp_path}?set=train")
    assert (item.uri, len(item.given), item.drop) == ("JPEGImages/my pet.jpg", 1, None)


def test_a_name_that_ends_like_a_column_is_itself_where_it_is_there(tmp_path):
    files = {"JPEGImages/pet 1.jpg": JPEG, "JPEGImages/pet.jpg": JPEG, "Annotations/pet.xml": xml(thing())}
    write_files(tmp_path, files | {"ImageSets/Main/train.txt": b"pet 1\npet 0\ngone 1\n"})
    *found, missing = read_all(f"voc:{tmp_path}?set=train")
    assert [item.uri for item in found] == ["JPEGImages/pet 1.jpg", "JPEGImages/pet.jpg"]
    assert missing.drop and missing.drop.message.startswith("gone: the set train names it")


def test_sets_of_layout_and_action_number_their_people(tmp_path):
    layout = b"a 1\na 2\nb 3\ngone 2\n"
    action = b"a  1  1\na  2 -1\nb 12  0\nb gone\n"
    lists = {"ImageSets/Layout/train.txt": layout, "ImageSets/Action/jumping_train.txt": action}
    folder = write_files(tmp_path, CHALLENGE | lists)
    for name, lost in (("train", "gone 2"), ("jumping_train", "b gone")):
        assert [item.uri for item in read_all(f"voc:{folder}?set={name}")] == [
            "JPEGImages/a.jpg", "JPEGImages/b.jpg", lost
        ]  # fmt: skip
