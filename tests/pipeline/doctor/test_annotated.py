"""What `annotate` writes is healthy, and what the doctor says to do brings a broken shard back."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.api import annotate
from pipeline.doctor.command import doctor_main

PHOTOGRAPHS = Path(__file__).parents[3] / "pipeline" / "golden" / "photographs"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    output = tmp_path_factory.mktemp("doctor") / "scenes"
    annotate_scenes(output)
    return output


def annotate_scenes(output: Path) -> None:
    annotate("scenes:12", str(output), profile="weightless", proposer="manual", shard_size=5)


def test_annotated_photographs_have_no_error(tmp_path, capsys):
    annotate(str(PHOTOGRAPHS), str(tmp_path / "photographs"), profile="weightless", limit=3)
    assert doctor_main([str(tmp_path / "photographs")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("healthy: 1 shard, 3 images")


def test_annotated_scenes_have_no_error(scenes, capsys):
    assert doctor_main([str(scenes), "--world-size", "3"]) == 0
    assert " in 3 shards" in capsys.readouterr().out


def coco(folder: Path, form: str, rng: np.random.Generator) -> str:
    """Write images with annotations whose boxes are in `form` where COCO's x, y, width, height are due."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(8):
        name = f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": 320, "height": 240})
        for _ in range(6):
            width, height = rng.uniform(20, 120), rng.uniform(20, 90)
            x, y = rng.uniform(0, 320 - width), rng.uniform(0, 240 - height)
            box = {
                "xywh": [x, y, width, height],
                "xyxy": [x, y, x + width, y + height],
                "shares": [x / 320, y / 240, width / 320, height / 240],
            }[form]
            annotations.append({"id": len(annotations), "image_id": number, "category_id": 1, "bbox": box})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return f"coco:{folder}/instances.json?images={folder}/images"


@pytest.mark.parametrize(
    ("form", "said"),
    [("xywh", None), ("xyxy", "corners x0, y0, x1, y1, where x, y, width, height are due"), ("shares", "within 0..1")],
)
def test_boxes_that_cannot_be_right_are_told_of(tmp_path, form, said, capsys):
    source = coco(tmp_path / "in", form, np.random.default_rng(5))
    annotate(source, str(tmp_path / "out"), profile="weightless", proposer="manual")
    assert doctor_main([str(tmp_path / "out")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert ("warning given-boxes" in out) == (said is not None) and (said or "") in out


def test_the_remedy_brings_a_shard_back(scenes):
    tar, marker = scenes / "train-000001.tar", scenes / "train-000001.json"
    sound = tar.read_bytes()
    tar.write_bytes(sound[:-2000])
    assert doctor_main([str(scenes)]) == 1
    marker.unlink()
    (scenes / "_commit" / marker.name).unlink()
    annotate_scenes(scenes)
    assert tar.read_bytes() == sound
    assert doctor_main([str(scenes)]) == 0


def test_a_planned_shard_that_is_not_there_is_a_warning(scenes, capsys):
    contents = {path: path.read_bytes() for path in scenes.glob("*train-000002.*")} | {
        path: path.read_bytes() for path in (scenes / "_commit").glob("train-000002.*")
    }
    contents[scenes / "dataset.json"] = (scenes / "dataset.json").read_bytes()
    for path in contents:
        path.unlink()
    code = doctor_main([str(scenes)])
    for path, content in contents.items():
        path.write_bytes(content)
    assert code == 0
    assert "1 of 3 planned shards are not there" in " ".join(capsys.readouterr().out.split())
