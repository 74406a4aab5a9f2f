"""YOLO's folders as Ultralytics, Roboflow, FiftyOne, Label Studio, supervision and people write them."""

from pathlib import Path

import pytest

from pipeline.propose.ultralytics import import_ultralytics
from pipeline.read import open_source
from pipeline.read.base import SourceError
from pipeline.read.summary import check_boxes, summarise
from pipeline.sample import SourceItem
from schemas.reasons import Reason
from tests.builders import annotate, check_balance, image_bytes, jpeg, read_rows, write_files
from tests.pipeline.read.source_builders import JPEG, read_all, reasons

LINE = b"1 0.5 0.5 0.25 0.5\n"
"""The middle of an image: a box of 24 x 32 pixels at 36, 16 where the image is 96 x 64."""


def write(folder: Path, yaml: str, files: dict[str, bytes]) -> str:
    write_files(folder, {"data.yaml": yaml.encode(), **files})
    return f"yolo:{folder}/data.yaml"


def boxed(items: list[SourceItem]) -> dict[str, int]:
    return {item.uri: len(item.given) for item in items}


COCO8 = {"images/train/a.jpg": JPEG, "images/val/b.jpg": JPEG, "labels/train/a.txt": LINE, "labels/val/b.txt": LINE}
ROBOFLOW = {"train/images/a.jpg": JPEG, "valid/images/b.jpg": JPEG, "train/labels/a.txt": LINE}
LAYOUTS = {
    "ultralytics": ("path: ../datasets/coco8\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}", COCO8, 2),
    "no path": ("train: images/train\nval: images/val\nnames: [cat, dog]", COCO8, 2),
    "another machine": (
        "path: /home/x/coco8\ntrain: ./images/train/\nvalidation: images/val\nnames: [a, dog]",
        COCO8,
        2,
    ),
    "windows": ("path: .\ntrain: images\\train\nval: images\\val\nnames: [a, dog]", COCO8, 2),
    "a list of folders": ("train: [images/train, images/val]\nval:\nnames: [a, dog]", COCO8, 2),
    "one folder above": ("train: images\nnames: [a, dog]", COCO8, 2),
    "roboflow": ("train: ../train/images\nval: ../valid/images\ntest: null\nnc: 2\nnames: ['cat', 'dog']", ROBOFLOW, 1),
    "supervision, no splits": ("nc: 2\nnames: [cat, dog]", COCO8, 2),
    "beside the pictures": ("train: p\nnames: {'0': cat, '1': dog}", {"p/a.jpg": JPEG, "p/a.txt": LINE}, 1),
    "below a folder of its name": (
        "path: coco8\ntrain: images/train\nnames: [cat, dog]",
        {f"coco8/{uri}": data for uri, data in COCO8.items()},
        1,
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_tools_are_read(tmp_path, layout):
    yaml, files, num_boxes = LAYOUTS[layout]
    spec = write(tmp_path / "coco8", yaml, files)
    items = read_all(spec)
    assert set(reasons(items)) == {None} and sum(boxed(items).values()) == num_boxes
    (region,) = items[0].given
    assert (region.box, region.label, region.id, region.problem) == ((0.375, 0.25, 0.625, 0.75), "dog", "1", None)
    assert items[0].given_in_shares
    read = {file.uri for file in open_source(spec).files() if "labels/" in file.uri or file.uri.endswith(".txt")}
    assert len(read) == num_boxes, "a changed label file is a changed input"


@pytest.mark.parametrize("names", ["train: train.txt\nnames: [a, b]", "path: .\ntrain: [train.txt]\nnames: [a, b]"])
@pytest.mark.parametrize("line", ["./images/a.jpg", "images/a.jpg", "{root}/images/a.jpg"])
def test_lists_of_pictures_are_followed(tmp_path, names, line):
    files = {"images/a.jpg": JPEG, "images/b.jpg": JPEG, "labels/a.txt": LINE}
    lines = f"\ufeff{line}\n\nimages/gone.jpg\n".format(root=tmp_path)
    items = read_all(write(tmp_path, names, {**files, "train.txt": lines.encode()}))
    assert boxed(items) == {"images/a.jpg": 1, "images/gone.jpg": 0}
    assert reasons(items) == [None, Reason.MISSING]


def test_a_folder_stands_for_its_data_yaml_and_for_classes_txt(tmp_path):
    write(tmp_path / "a", "train: images/train\nnames: [cat, dog]", COCO8)
    assert boxed(read_all(f"yolo:{tmp_path}/a")) == {"images/train/a.jpg": 1}
    write_files(tmp_path / "b", {"classes.txt": b"cat\ndog\n", "images/a.jpg": JPEG, "labels/a.txt": LINE})
    (item,) = read_all(f"yolo:{tmp_path}/b")
    assert item.given[0].label == "dog"
    with pytest.raises(SourceError, match=r"found none of data\.yaml"):
        open_source(f"yolo:{tmp_path}")


def test_splits_are_chosen_by_name(tmp_path):
    spec = write(tmp_path, "train: images/train\nval: images/val\nnames: [cat, dog]", COCO8)
    assert boxed(read_all(f"{spec}?split=val")) == {"images/val/b.jpg": 1}
    assert len(read_all(f"{spec}?split=val,train")) == 2
    with pytest.raises(SourceError, match=r"names no split 'test'; it has train, val"):
        read_all(f"{spec}?split=test")


def test_no_label_file_and_an_empty_one_are_pictures_without_objects_and_told(tmp_path):
    files = {
        "images/a.jpg": JPEG,
        "images/b.jpg": JPEG,
        "images/c.jpg": JPEG,
        "labels/a.txt": LINE,
        "labels/b.txt": b"",
    }
    source = open_source(write(tmp_path, "train: images\nnames: [a, b]", {**files, "notes.json": b"{}"}))
    assert boxed(read_all(source)) == {"images/a.jpg": 1, "images/b.jpg": 0, "images/c.jpg": 0}
    told = source.describe()
    assert told.boxes == ("2 label files",)
    assert "1 pictures have no label file" in told.notes[1]
    assert [entry.name for entry in told.unread] == [".json"]
    check_boxes("x", summarise(source, told, next(iter(source.parts(10, False)))))


BAD = {
    "words": (b"cat 0.5 0.5 0.2 0.2", "is not all numbers"),
    "too short": (b"1 0.5 0.5", "has 3 columns"),
    "class beyond": (b"7 0.5 0.5 0.2 0.2", "the class 7 is none of the 2 of 'names'"),
    "class below": (b"-1 0.5 0.5 0.2 0.2", "no whole number"),
    "half a class": (b"1.5 0.5 0.5 0.2 0.2", "no whole number"),
    "no class": (b"nan 0.5 0.5 0.2 0.2", "no whole number"),
    "pixels": (b"1 50 30 20 10", "lies outside the image; shares in 0..1 are due"),
    "infinite": (b"1 inf 0.5 0.2 0.2", "lies outside the image"),
    "commas": (b"1,0.5,0.5,0.2,0.2", "is not all numbers"),
    "not text": (b"1 \xff 0.5 0.5 0.5", "is not all numbers"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_line_is_a_region_with_a_problem_beside_the_good_ones(tmp_path, kind):
    line, words = BAD[kind]
    files = {"images/a.jpg": JPEG, "labels/a.txt": b"\n".join([LINE, line, LINE])}
    (item,) = read_all(write(tmp_path, "train: images\nnames: [cat, dog]", files))
    first, bad, last = item.given
    assert (first.problem, last.problem) == (None, None)
    assert bad.problem and bad.problem.startswith(f"labels/a.txt, line {bad.id}: ") and words in bad.problem


GOOD = {
    "a box": (b"1.0 0.5 0.5 0.25 0.5", (0.375, 0.25, 0.625, 0.75), None),
    "a score": (b"1 0.5 0.5 0.25 0.5 0.75", (0.375, 0.25, 0.625, 0.75), 0.75),
    "an outline": (b"1 0.25 0.5 0.75 0.25 0.5 1", (0.25, 0.25, 0.75, 1.0), None),
    "an outline's score": (b"1 0.25 0.5 0.75 0.25 0.5 1 0.5", (0.25, 0.25, 0.75, 1.0), 0.5),
    "turned": (b"1 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5", (0.25, 0.25, 0.75, 0.75), None),
    "tabs, bom": (b"\xef\xbb\xbf1\t0.5\t0.5\t0.25\t0.5\r", (0.375, 0.25, 0.625, 0.75), None),
    "a little outside": (b"1 0.5 0.5 1.015625 1", (-0.0078125, 0, 1.0078125, 1), None),
}


@pytest.mark.parametrize("kind", GOOD)
def test_lines_of_all_tasks_are_boxes(tmp_path, kind):
    line, box, score = GOOD[kind]
    (item,) = read_all(write(tmp_path, "train: images\nnames: [a, b]", {"images/a.jpg": JPEG, "labels/a.txt": line}))
    (region,) = item.given
    assert (region.box, region.score, region.problem) == (box, score, None)


def test_keypoints_are_no_outline_where_data_yaml_says_so(tmp_path):
    files = {"images/a.jpg": JPEG, "labels/a.txt": b"1 0.5 0.5 0.25 0.5 0.1 0.9 2 0.9 0.1 2"}
    (item,) = read_all(write(tmp_path, "train: images\nkpt_shape: [2, 3]\nnames: [a, b]", files))
    assert item.given[0].box == (0.375, 0.25, 0.625, 0.75)


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("", "where Ultralytics' keys"),
        ("[1]", "where Ultralytics' keys"),
        ("a: [", "no YAML"),
        ("a: &x [1]\nb: *x", "holds aliases"),
        ("train: images\nnames: cat", "'names' is 'cat'"),
        ("train: images\nnames: {a: cat}", "'names' has 'a': 'cat'"),
        ("train: images\nnames: [cat, [dog]]", "'names' has 1: ['dog']"),
        ("train: 5", "'train' is 5, not a path"),
        ("train: images\nkpt_shape: 3", "'kpt_shape' is 3"),
        ("train: photos\nnames: [a]", "no picture is at "),
        ("train: images\nval: gone\nnames: [a]", "gone; mend 'path' and the splits"),
    ],
)
def test_a_data_yaml_that_cannot_be_used_is_refused(tmp_path, yaml, words):
    spec = write(tmp_path, yaml, {"images/a.jpg": JPEG, "labels/a.txt": LINE})
    with pytest.raises(SourceError, match=r"data\.yaml: ") as caught:
        read_all(spec)
    assert words in str(caught.value)


def test_pictures_without_any_label_are_refused_with_where_labels_would_lie(tmp_path):
    with pytest.raises(SourceError, match=r"the first, images/a\.jpg, would have labels/a\.txt"):
        read_all(write(tmp_path, "train: images\nnames: [a]", {"images/a.jpg": JPEG}))


def test_a_downloaded_data_yaml_reads_nothing_of_this_machine_unless_allowed(tmp_path):
    write_files(tmp_path / "own", {"images/secret.jpg": JPEG, "labels/secret.txt": LINE})
    spec = write(tmp_path / "in", f"path: {tmp_path}/own\ntrain: images\nnames: [a, b]", {})
    with pytest.raises(SourceError, match=rf"--read\.allow {tmp_path}/own"):
        read_all(spec)
    items = read_all(open_source(spec, allow=[f"{tmp_path}/own"]))
    assert boxed(items) == {"../own/images/secret.jpg": 1} and items[0].data == JPEG


def test_a_remote_data_set(bucket, store):
    files = {"/bucket/data.yaml": b"train: ../images\nnames: [cat, dog]", "/bucket/images/a.jpg": JPEG}
    for path, data in {**files, "/bucket/labels/a.txt": LINE}.items():
        store.pipe(path, data)
    assert boxed(read_all(f"yolo:{bucket}/data.yaml")) == {"images/a.jpg": 1}


@pytest.mark.parametrize("kind", ["a box", "an outline", "turned", "tabs, bom"])
def test_ultralytics_reads_the_same_box_from_the_same_place(tmp_path, kind):
    import_ultralytics()  # or its import would replace `PIL.Image.open` for the tests after this one
    data = pytest.importorskip("ultralytics.data.utils")
    line, box, _ = GOOD[kind]
    write_files(tmp_path, {"images/images/a.jpg": jpeg(0), "images/labels/a.txt": line})
    (path,) = data.img2label_paths([str(tmp_path / "images/images/a.jpg")])
    _, labels, *_ = data.verify_image_label((str(tmp_path / "images/images/a.jpg"), path, "", False, 2, 0, 0, False))
    ((_, x, y, width, height),) = labels.tolist()
    assert (x - width / 2, y - height / 2, x + width / 2, y + height / 2) == box
    (item,) = read_all(write(tmp_path, "train: images/images\nnames: [a, b]", {}))
    assert item.given[0].box == box


def test_boxes_are_those_of_the_upright_picture_to_the_pixel_and_totals_balance(tmp_path):
    turned = image_bytes(
        "JPEG", width=64, height=96, exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    )
    files = {"images/a.jpg": jpeg(0), "images/b.jpg": turned, "images/c.jpg": jpeg(1), "labels/b.txt": LINE}
    files["labels/a.txt"] = LINE + b"9 0.5 0.5 0.1 0.1\n0 0.5 0.5 0 0.5\n0 0.1 0.1 0.2 nan\n"
    spec = write(tmp_path / "in", "train: images\nnames: [cat, dog]", files)
    outcome = annotate(spec, tmp_path / "out", "--max-dead", "0.9")
    assert "Warning" not in outcome.out + outcome.err
    rows = [row for row in read_rows(tmp_path / "out") if row["region_id"]]
    found = {(row["key"][:8], row["source_id"]): (row["reason"], row["label"]) for row in rows}
    assert found == {
        ("images-a", "1"): (None, "dog"), ("images-a", "2"): ("bad_record", None),
        ("images-a", "3"): ("invalid_box", "cat"), ("images-a", "4"): ("invalid_box", "cat"),
        ("images-b", "1"): (None, "dog"),
    }  # fmt: skip
    boxes = {(row["x0"], row["y0"], row["x1"], row["y1"]) for row in rows if row["status"] == "ok"}
    assert boxes == {(36, 16, 60, 48)}
    check_balance(tmp_path / "out")


def test_a_blank_line_of_classes_txt_is_a_class_without_a_name(tmp_path):
    files = {"classes.txt": b"cat\r\n\r\ndog\r\n\r\n", "images/a.jpg": JPEG}
    files["labels/a.txt"] = b"0 .5 .5 .2 .2\n2 .5 .5 .2 .2\n1 .5 .5 .2 .2\n"
    (item,) = read_all(f"yolo:{write_files(tmp_path, files)}")
    assert [region.label for region in item.given] == ["cat", "dog", None]
    assert "the class 1 is none of the 2 of 'names'" in (item.given[2].problem or "")


@pytest.mark.parametrize("angle", ["45.5", "1.5", "-0.5", "-3", "nan"])
def test_an_angle_is_no_score(tmp_path, angle):
    (item,) = read_all(write(tmp_path, "train: images\nnames: [a]", {
        "images/a.jpg": JPEG, "labels/a.txt": f"0 .5 .5 .2 .1 {angle}\n0 .5 .5 .2 .1 1\n".encode()}))  # fmt: skip
    turned, scored = item.given
    assert turned.problem and "is no score, and angles are not read" in turned.problem
    assert (scored.score, scored.problem) == (1.0, None)


def test_a_number_of_a_track_is_no_score_and_its_box_is_kept(tmp_path):
    labels = b"0 .5 .5 .2 .2 3\n0 .5 .5 .2 .2 0.5\n0 .5 .5 .2 .2 12\n"
    files = {"images/a.jpg": JPEG, "labels/a.txt": labels, "images/b.jpg": JPEG, "labels/b.txt": b"0 .5 .5 .2 .2 1"}
    item, other = read_all(write(tmp_path, "train: images\nnames: [a]", files))
    assert [(region.score, region.problem) for region in item.given] == [(None, None), (0.5, None), (None, None)]
    assert {region.box for region in item.given} == {(0.4, 0.4, 0.6, 0.6)}
    assert "2 of its boxes have a whole number above 1" in (item.note or "") and other.note is None
