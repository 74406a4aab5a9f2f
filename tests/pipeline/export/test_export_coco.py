"""`coco`, read by pycocotools and by our own source: COCO -> shards -> COCO loses nothing that shards hold."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pycocotools import mask
from pycocotools.coco import COCO

from pipeline.export import coco
from pipeline.export.part import Counts
from pipeline.export.survey import survey
from schemas.dataset import Dataset
from tests.builders import annotate, jpeg, run, write_files
from tests.pipeline.export.conftest import Export
from tests.shards import HEIGHT, WIDTH

CATEGORIES = {7: "cat", 3: "dog"}
RLE = {"size": [64, 96], "counts": [0, 6144]}
BOXES = {  # by annotation id: image id, category, bbox, crowd
    501: (139, 7, [2.0, 2.0, 28.3125, 38.0], 0),
    17: (139, 3, [50.0, 10.0, 40.0625, 50.5], 0),
    900100000017: (285, 3, [0.0, 0.0, 96.0, 64.0], 1),
    42: (285, 7, [10.0, 10.0, 20.0, 20.0], 0),
}


def coco_source(folder: Path) -> Path:
    """Write images and the two files as COCO has them: ids far from a count, a crowd with its mask, two captions."""
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "width": 96, "height": 64} for n in (139, 285, 632)]
    annotations: list[dict[str, Any]] = [
        {"id": n, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
        for n, (image, label, box, crowd) in BOXES.items()
    ]
    annotations[2]["segmentation"] = RLE
    for annotation in annotations:
        annotation["caption"] = f"the region {annotation['id']}"
    categories = [{"id": n, "name": name} for n, name in CATEGORIES.items()]
    captions = [
        {"id": 1, "image_id": 139, "caption": "two animals"},
        {"id": 2, "image_id": 139, "caption": "a cat and a dog"},
        {"id": 3, "image_id": 285, "caption": "many of them"},
    ]
    return write_files(
        folder,
        {
            **{image["file_name"]: jpeg(image["id"]) for image in images},
            "instances.json": json.dumps(
                {"images": images, "annotations": annotations, "categories": categories}
            ).encode(),
            "captions.json": json.dumps({"images": images, "annotations": captions}).encode(),
        },
    )


def facts(instances: Path, captions: Path) -> dict[str, Any]:
    """Return what two files say, as pycocotools reads them, categories by name."""
    boxes, texts = COCO(str(instances)), COCO(str(captions))
    names = {number: entry["name"] for number, entry in boxes.cats.items()}
    said = {
        number: (a["image_id"], names[a["category_id"]], a["bbox"], a["iscrowd"], a.get("caption"))
        for number, a in boxes.anns.items()
    }
    by_image = {image: [a["caption"] for a in texts.loadAnns(texts.getAnnIds(image))] for image in texts.imgs}
    sizes = {image: (entry["width"], entry["height"]) for image, entry in boxes.imgs.items()}
    return {"boxes": said, "captions": by_image, "images": sizes, "names": set(names.values())}


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, Path]:
    source = coco_source(tmp_path / "source")
    spec = f"coco:{source / 'instances.json'}?captions=captions.json"
    annotate(spec, tmp_path / "data", flags=("--proposer", "manual", "--captioner", "rule"))
    outcome = run("export", tmp_path / "data", tmp_path / "out", "--to", "coco")
    assert outcome.code == 0, outcome
    assert "3 images, 4 regions" in outcome.out
    return source, tmp_path / "out"


def test_ids_boxes_crowds_labels_and_captions_come_back(exported: tuple[Path, Path]) -> None:
    source, out = exported
    before = facts(source / "instances.json", source / "captions.json")
    after = facts(out / "annotations" / "instances_train.json", out / "annotations" / "captions_train.json")
    for side in (before, after):  # `rule` writes the captions of regions anew
        side["boxes"] = {number: values[:4] for number, values in side["boxes"].items()}
    assert after == before


def test_a_crowds_mask_comes_back(exported: tuple[Path, Path]) -> None:
    boxes = COCO(str(exported[1] / "annotations" / "instances_train.json"))
    (crowd,) = boxes.loadAnns(boxes.getAnnIds(iscrowd=True))
    assert mask.area(boxes.annToRLE(crowd)) == crowd["area"] == 96 * 64


def test_what_is_exported_is_read_again_with_its_captions(exported: tuple[Path, Path], tmp_path: Path) -> None:
    out = exported[1]
    spec = f"coco:{out}/annotations/instances_train.json?images={out}/images/train&captions=captions_train.json"
    annotate(spec, tmp_path / "again", flags=("--proposer", "manual", "--captioner", "rule"))
    assert run("export", tmp_path / "again", tmp_path / "twice", "--to", "coco").code == 0
    for name in ("instances_train.json", "captions_train.json"):
        first, second = (
            json.loads((folder / "annotations" / name).read_text()) for folder in (out, tmp_path / "twice")
        )
        for file in (first, second):
            for image in file["images"]:
                del image["source"]
            for annotation in file["annotations"]:
                annotation.pop("region_id", None)
        assert first == second


def test_images_and_regions_of_all_shards_are_numbered_where_there_are_no_ids(export: Export, tmp_path: Path) -> None:
    assert export("coco").code == 0
    train, val = (COCO(str(tmp_path / "out" / "annotations" / f"instances_{split}.json")) for split in ("train", "val"))
    assert (sorted(train.imgs), sorted(val.imgs)) == ([1, 2, 3, 4], [5])
    assert (sorted(train.anns), sorted(val.anns)) == ([1, 2, 3, 4, 5, 6, 7], [8])
    assert train.cats == val.cats
    assert {entry["name"] for entry in train.cats.values()} == {"region", "shape"}
    for entry in train.imgs.values():
        assert (tmp_path / "out" / "images" / "train" / entry["file_name"]).is_file()
        assert (entry["width"], entry["height"]) == (WIDTH, HEIGHT)
    (second,) = (a for a in train.anns.values() if a["caption"] == "naïve 日本")
    assert second["bbox"] == [0.0, 2.0, 10.5, 18.0625]


def test_a_crowd_without_a_usable_box_is_counted_and_not_written(data: str) -> None:
    dataset = Dataset.open(data)
    rows = dataset.regions(shards=["train-000000"]).to_pylist()
    crowds = [row | {"reason": "crowd"} for row in rows if row["status"] == "filtered"]
    crowds[0]["x0"], crowds[1]["y1"] = None, float("nan")
    table = pa.Table.from_pylist([*crowds, crowds[0] | {"x0": 0.0}])
    fake_dataset = SimpleNamespace(regions=lambda columns, shards: table)
    part = SimpleNamespace(dataset=fake_dataset, shard="train-000000", survey=survey(dataset), counts=Counts())
    assert [len(found) for found in coco._crowds(part).values()] == [1]  # type: ignore[arg-type]
    assert part.counts.left_out == {coco.NO_BOX: 2}
