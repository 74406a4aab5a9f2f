"""A COCO file as a detector uses it: base boxes to train on, all to measure, upright pictures."""

import numpy as np
import pytest

from tests.trainer.detection.pictures import write_json
from tests.trainer.evaluate.coco_files import write_coco
from trainer.detection.annotations import open_data
from trainer.evaluate.class_split import read_class_split


@pytest.fixture
def opened(tmp_path):
    write_coco(tmp_path)
    write_json(tmp_path / "split.json", {"base": ["cat"], "novel": ["traffic light"]})
    split = read_class_split(str(tmp_path / "split.json"))
    data = f"coco:{tmp_path}/instances.json?images={tmp_path}/val2017"
    return lambda to_train: open_data(data, split, to_train=to_train)


def test_only_base_boxes_are_trained_on_and_no_crowds(opened):
    data = opened(True)
    assert data.classes == ("traffic light", "cat"), "in the order of their ids"
    assert data.is_base.tolist() == [False, True]
    assert data.labels.tolist() == [1, 1] and not data.is_crowd.any()
    assert [data.key(image) for image in range(len(data))] == ["000000000001.jpg", "000000000002.jpg"]
    assert data.left_out == {
        "crowd": 1, "box without area": 1, "image without a box of a base class": 2, "box of no base class": 2
    }  # fmt: skip


def test_all_classes_are_measured_and_crowds_are_marked(opened):
    data = opened(False)
    assert len(data) == 3 and data.labels.tolist() == [1, 0, 0, 1, 0]
    assert data.is_crowd.tolist() == [False, False, True, False, False]
    assert data.fingerprint() != opened(True).fingerprint()


def test_a_picture_that_lies_is_turned_and_its_boxes_with_it(opened):
    turned = opened(False).read(2)
    assert turned.pixels.shape[:2] == (48, 32)
    ((x0, y0, x1, y1),) = turned.boxes.astype(int).tolist()
    light = np.array([240, 220, 30])
    assert np.abs(turned.pixels[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].astype(int) - light).mean() < 10
    outside = turned.pixels.astype(int).copy()
    outside[y0:y1, x0:x1] = 0
    assert (np.abs(outside - light).sum(axis=2) < 30).mean() < 0.01
