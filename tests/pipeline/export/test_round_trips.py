"""In by a reader, out by an export: ids, boxes to 1/16 pixel, crowds and captions are what they were."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.propose.ultralytics import import_ultralytics
from tests.builders import annotate, jpeg, read_rows, run, write_files
from tests.pipeline.export.test_export_coco import coco_source, facts
from tests.pipeline.read.source_builders import read_all

GIVEN = ("--proposer", "manual", "--captioner", "given", "--select.max-iou", "1")
RULE = ("--proposer", "manual", "--captioner", "rule", "--select.max-iou", "1")
BOXES = [(2.0, 2.0, 30.3125, 40.0), (50.0, 10.0, 90.0625, 60.5), (10.0, 4.0, 26.0, 12.0)]
"""xyxy of a picture of 96 x 64, on sixteenths of a pixel."""
LABELS = ["dog", "cat", "dog"]


def test_coco_comes_back_with_the_captions_of_its_regions(tmp_path: Path) -> None:
    source = coco_source(tmp_path / "source")
    annotate(f"coco:{source}/instances.json?captions=captions.json", tmp_path / "data", flags=GIVEN)
    assert run("export", tmp_path / "data", tmp_path / "out", "--to", "coco").code == 0
    before = facts(source / "instances.json", source / "captions.json")
    after = facts(tmp_path / "out/annotations/instances_train.json", tmp_path / "out/annotations/captions_train.json")
    crowd = 900100000017  # no region is made of it, and only regions have captions
    before["boxes"][crowd] = (*before["boxes"][crowd][:4], None)
    assert after == before
    assert len(after["boxes"]) == 4 and after["boxes"][17][4] == "the region 17"


def stored_boxes(output: Path) -> list[tuple[str, tuple[float, ...]]]:
    rows = [row for row in read_rows(output) if row["region_id"] and row["status"] == "ok"]
    return sorted((row["label"], tuple(row[edge] for edge in ("x0", "y0", "x1", "y1"))) for row in rows)


def yolo_lines(boxes: list[tuple[float, ...]], labels: list[str], names: list[str]) -> bytes:
    lines = []
    for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
        shares = ((x0 + x1) / 192, (y0 + y1) / 128, (x1 - x0) / 96, (y1 - y0) / 64)
        lines.append(f"{names.index(label)} {' '.join(f'{share:.7f}' for share in shares)}\n")
    return "".join(lines).encode()


def test_labels_that_yaml_would_change_or_refuse_come_back(tmp_path: Path) -> None:
    names = ["a\u0085b", "c\u2028d", "e\x7ff", "\ufeffg", 'h: "i" # \t\n', "yes", "\U0001f408", "\u00e9", "1"]
    regions = [{"box": [n, 0, n + 20, 30], "label": name} for n, name in enumerate(names)]
    record = json.dumps({"regions": regions}).encode()
    annotate(
        f"folder:{write_files(tmp_path / 'in', {'a.jpg': jpeg(1), 'a.json': record})}", tmp_path / "data", flags=RULE
    )
    assert run("export", tmp_path / "data", tmp_path / "out", "--to", "yolo").code == 0
    found = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text(encoding="utf-8"))["names"]
    assert sorted(found.values()) == sorted(names)


def test_yolo_comes_back_twice_with_its_boxes_and_names(tmp_path: Path) -> None:
    names = ["cat", "dog", "unused"]
    files = {
        "data.yaml": f"train: images\nnames: {names}".encode(),
        "images/a.jpg": jpeg(1), "labels/a.txt": yolo_lines(BOXES, LABELS, names), "images/b.jpg": jpeg(2),
    }  # fmt: skip
    spec = f"yolo:{write_files(tmp_path / '0', files)}"
    for turn in (1, 2):
        data, out = tmp_path / f"data{turn}", tmp_path / f"out{turn}"
        annotate(spec, data, flags=RULE)
        assert stored_boxes(data) == sorted(zip(LABELS, BOXES, strict=True))
        assert run("export", data, out, "--to", "yolo").code == 0
        assert yaml.safe_load((out / "data.yaml").read_text())["names"] == {0: "cat", 1: "dog"}
        a, b = sorted((out / "labels" / "train").iterdir())
        assert (a.read_bytes().count(b"\n"), b.read_bytes()) == (3, b"")
        assert sorted((out / "images" / "train").iterdir())[0].read_bytes() == files["images/a.jpg"]
        spec = f"yolo:{out}"


def test_voc_s_corners_come_out_as_pixels_in_each_format(tmp_path: Path) -> None:
    corners = [(3, 3, 30, 40), (51, 11, 90, 60)]  # from 1, and inside
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{tag}>{c}</{tag}>" for tag, c in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>"
        for name, box in zip(("dog", "cat"), corners, strict=True)
    )
    size = "<size><width>96</width><height>64</height></size>"
    xml = f"<annotation><filename>a.jpg</filename>{size}{objects}</annotation>".encode()
    folder = write_files(tmp_path / "in", {"JPEGImages/a.jpg": jpeg(1), "Annotations/a.xml": xml})
    annotate(f"voc:{folder}", tmp_path / "data", flags=RULE)
    wanted = [("cat", (50.0, 10.0, 90.0, 60.0)), ("dog", (2.0, 2.0, 30.0, 40.0))]
    assert stored_boxes(tmp_path / "data") == wanted
    readers = {"coco": "coco:{}", "yolo": "yolo:{}", "hf": "{}/data/*.parquet"}
    for to, spec in readers.items():
        out = tmp_path / to
        assert run("export", tmp_path / "data", out, "--to", to).code == 0
        annotate(spec.format(out), tmp_path / f"again-{to}", flags=RULE)
        assert stored_boxes(tmp_path / f"again-{to}") == wanted, to


def test_labels_that_ultralytics_itself_writes_are_its_boxes_to_a_sixteenth(tmp_path: Path) -> None:
    import_ultralytics()
    converter = pytest.importorskip("ultralytics.data.converter")
    annotations: list[dict[str, Any]] = [
        {"id": n, "image_id": 1, "category_id": 1 + (label == "dog"), "iscrowd": 0,
         "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
        for n, ((x0, y0, x1, y1), label) in enumerate(zip(BOXES, LABELS, strict=True))
    ]  # fmt: skip
    images = [{"id": 1, "file_name": "a.jpg", "width": 96, "height": 64}]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    coco = json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()
    write_files(tmp_path / "json", {"instances_train.json": coco})
    converter.convert_coco(str(tmp_path / "json"), str(tmp_path / "yolo"), cls91to80=False)
    written = tmp_path / "yolo"
    (label_file,) = written.rglob("a.txt")
    files = {
        "data.yaml": b"train: images\nnames: [cat, dog]",
        "images/a.jpg": jpeg(1),
        "labels/a.txt": label_file.read_bytes(),
    }
    (item,) = read_all(f"yolo:{write_files(tmp_path / 'in', files)}")
    assert len(item.given) == len(BOXES)
    annotate(f"yolo:{tmp_path / 'in'}", tmp_path / "data", flags=RULE)
    assert stored_boxes(tmp_path / "data") == sorted(zip(LABELS, BOXES, strict=True))
