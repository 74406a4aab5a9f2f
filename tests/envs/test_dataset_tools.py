"""supervision and FiftyOne, each in an environment of its own: what they write is read, what is exported they read.

Skipped, saying why, where a package cannot be installed. FiftyOne's importers and exporters are run without its
database, a MongoDB that not every system can have.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.builders import annotate, jpeg, read_rows, run, write_files

pytestmark = pytest.mark.envs
FLAGS = ("--proposer", "manual", "--captioner", "rule", "--select.max-iou", "1")
BOXES = {
    "first.jpg": [("dog", (2.0, 2.0, 30.0, 40.0)), ("cat", (50.0, 10.0, 90.0, 60.0))],
    "second.jpg": [("cat", (8.0, 8.0, 41.0, 33.0))],
}
"""xyxy in whole pixels, which Pascal VOC can say too, by picture of 96 x 64."""
TO_A_SIXTEENTH = 1 / 32


def installed(tmp: Path, *packages: str) -> Path:
    """Return the Python of a new environment with the packages; skips where they cannot be installed."""
    subprocess.run([sys.executable, "-m", "venv", tmp / "env"], check=True)
    python = tmp / "env" / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{', '.join(packages)} cannot be installed here: {done.stderr.strip()[-300:]}")
    return python


@pytest.fixture(scope="module")
def supervision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("supervision"), "supervision")


@pytest.fixture(scope="module")
def fiftyone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("fiftyone"), "fiftyone")


def asked(python: Path, code: str, folder: Path) -> Any:
    """Return what a program prints last, as JSON; it runs in `folder`, and has `BOXES` as `boxes`."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HOME": str(home), "FIFTYONE_DO_NOT_TRACK": "true",
        "FIFTYONE_DISABLE_SERVICES": "1",  # its importers and exporters need no MongoDB
    }  # fmt: skip
    head = f"import json, sys\nboxes = json.loads({json.dumps(json.dumps(BOXES))})\n"
    done = subprocess.run([python, "-c", head + code], cwd=folder, capture_output=True, text=True, env=environment)
    if done.returncode and any(
        word in done.stderr for word in ("ServiceListenTimeout", "mongod", "DatabaseConfigError")
    ):
        pytest.skip(f"FiftyOne's database does not start here: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def check(found: dict[str, list[tuple[str, Any]]]) -> None:
    """Boxes are those of `BOXES` to 1/16 pixel, in any order; names and keys have the picture's name in them."""
    assert len(found) == len(BOXES)
    for name, boxes in BOXES.items():
        (of_name,) = (those for path, those in found.items() if Path(name).stem in path.rpartition("/")[2])
        seen = sorted((label, tuple(box)) for label, box in of_name)
        assert [label for label, _ in seen] == [label for label, _ in sorted(boxes)]
        for (_, box), (_, wanted) in zip(seen, sorted(boxes), strict=True):
            assert box == pytest.approx(wanted, abs=TO_A_SIXTEENTH)


WRITE_SUPERVISION = """
import numpy, supervision
classes = ["cat", "dog"]
annotations = {
    f"in/{name}": supervision.Detections(
        xyxy=numpy.array([box for _, box in found]), class_id=numpy.array([classes.index(label) for label, _ in found])
    )
    for name, found in boxes.items()
}
data = supervision.DetectionDataset(classes=classes, images=list(annotations), annotations=annotations)
data.as_coco(images_directory_path="coco/images", annotations_path="coco/instances.json")
data.as_yolo("yolo/images", "yolo/labels", "yolo/data.yaml")
data.as_pascal_voc(images_directory_path="voc/JPEGImages", annotations_directory_path="voc/Annotations")
print(json.dumps(len(data)))
"""
READ_SUPERVISION = """
import supervision
found, known = {}, supervision.DetectionDataset
read = {
    "coco": lambda: known.from_coco("coco/images/train", "coco/annotations/instances_train.json"),
    "yolo": lambda: known.from_yolo("yolo/images/train", "yolo/labels/train", "yolo/data.yaml"),
}
for kind, open_data in read.items():
    data = open_data()
    found[kind] = {
        path: [(data.classes[number], box.tolist()) for box, number in zip(detections.xyxy, detections.class_id)]
        for path, _, detections in data
    }
print(json.dumps(found))
"""


def keyed(output: Path) -> dict[str, list[tuple[str, Any]]]:
    """Return the stored boxes by the key of their picture, which has its name in it."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for row in read_rows(output):
        if row["region_id"] and row["status"] == "ok":
            box = tuple(row[edge] for edge in ("x0", "y0", "x1", "y1"))
            found.setdefault(row["key"], []).append((row["label"], box))
    return found


@pytest.mark.timeout(1800)
def test_supervision_writes_what_is_read_and_reads_what_is_written(supervision: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "in", {"first.jpg": jpeg(1), "second.jpg": jpeg(2)})
    assert asked(supervision, WRITE_SUPERVISION, tmp_path) == 2
    specs = {"coco": "coco:{}/instances.json?images=images", "yolo": "yolo:{}", "voc": "voc:{}"}
    for kind, spec in specs.items():
        annotate(spec.format(tmp_path / kind), tmp_path / f"data-{kind}", flags=FLAGS)
        check(keyed(tmp_path / f"data-{kind}"))
    out = tmp_path / "out"
    out.mkdir()
    for kind in ("coco", "yolo"):
        assert run("export", tmp_path / "data-coco", out / kind, "--to", kind).code == 0
    for found in asked(supervision, READ_SUPERVISION, out).values():
        check(found)


FIFTYONE = """
import fiftyone.utils.coco as coco, fiftyone.utils.voc as voc, fiftyone.utils.yolo as yolo
found, samples = {}, []
importer = coco.COCODetectionDatasetImporter(
    data_path="out/images/train", labels_path="out/annotations/instances_train.json", label_types=["detections"]
)
with importer:
    for path, metadata, label in importer:
        label = label["detections"] if isinstance(label, dict) else label
        samples.append((path, metadata, label))
        found[path] = [
            (one.label, [x * 96, y * 64, (x + width) * 96, (y + height) * 64])
            for one in label.detections
            for x, y, width, height in [one.bounding_box]
        ]
exporters = {
    "coco": coco.COCODetectionDatasetExporter(export_dir="fo/coco", classes=["cat", "dog"]),
    "yolo": yolo.YOLOv5DatasetExporter(export_dir="fo/yolo", split="val", classes=["cat", "dog"]),
    "voc": voc.VOCDetectionDatasetExporter(export_dir="fo/voc"),
}
for exporter in exporters.values():
    with exporter:
        for path, metadata, label in samples:
            exporter.export_sample(path, label, metadata=metadata)
print(json.dumps(found))
"""


@pytest.mark.timeout(1800)
def test_fiftyone_imports_the_export_and_what_it_exports_is_read(fiftyone: Path, tmp_path: Path) -> None:
    annotations = [
        {"id": number, "image_id": ord(name[0]), "category_id": 1 + (label == "dog"),
         "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0}
        for number, (name, label, (x0, y0, x1, y1)) in enumerate(
            (name, label, box) for name, boxes in BOXES.items() for label, box in boxes
        )
    ]  # fmt: skip
    images = [{"id": ord(name[0]), "file_name": name, "width": 96, "height": 64} for name in BOXES]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    files = {"first.jpg": jpeg(1), "second.jpg": jpeg(2), "x.json": json.dumps(coco).encode()}
    write_files(tmp_path / "in", files)
    annotate(f"coco:{tmp_path}/in/x.json", tmp_path / "data", flags=FLAGS)
    assert run("export", tmp_path / "data", tmp_path / "out", "--to", "coco").code == 0
    check(asked(fiftyone, FIFTYONE, tmp_path))
    for kind, spec in {"coco": "coco:{}", "yolo": "yolo:{}", "voc": "voc:{}?origin=0"}.items():
        annotate(spec.format(tmp_path / "fo" / kind), tmp_path / f"again-{kind}", flags=FLAGS)
        check(keyed(tmp_path / f"again-{kind}"))
