"""The scenes source: what it yields, that it is the same everywhere, and what it refuses."""

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from pipeline.read.base import SourceError
from pipeline.read.scenes import Scenes
from pipeline.sample import SourceItem
from pipeline.scenes.draw import draw_scene
from pipeline.scenes.score import scene_of_key
from pipeline.scenes.words import CLASS_LISTS, class_name, parse_region_caption
from schemas.boxes import as_boxes, is_valid
from schemas.coco import decompress_runs


def read_all(source: Scenes, shard_size: int) -> list[SourceItem]:
    return [item for parts in source.parts(shard_size, False) for part in parts for item in source.read(part)]


def test_items_carry_the_picture_and_its_truth():
    (item,) = read_all(Scenes("1?seed=3&split=test"), 10)
    scene = draw_scene(3, "test", 0)
    assert (item.key, item.index, item.given_size) == ("scene-test-s3-00000000", 0, (256, 256))
    assert item.caption == scene.caption
    assert [region.box for region in item.given] == [tuple(box) for box in scene.boxes.tolist()]
    assert [parse_region_caption(region.caption) for region in item.given] == list(scene.attributes)
    pixels = cv2.imdecode(np.frombuffer(item.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(pixels.astype(int) - scene.pixels).mean() < 4


def test_given_boxes_are_valid_and_inside():
    for item in read_all(Scenes("40?split=test"), 40):
        boxes = as_boxes([region.box for region in item.given])
        assert len(boxes) >= 1
        assert is_valid(boxes).all()
        assert boxes.min() >= 0 and boxes.max() <= 256


@pytest.mark.parametrize("shard_size", [1, 3, 7, 100])
def test_shard_size_does_not_change_the_items(shard_size):
    source = Scenes("7?seed=5")
    assert read_all(source, shard_size) == read_all(source, 7)
    assert len(list(source.parts(shard_size, True))) == -(-7 // shard_size)


def test_defaults_are_seed_0_of_train():
    source = Scenes("2")
    assert (source.num_scenes, source.seed, source.split) == (2, 0, "train")


def test_another_process_gives_the_same_bytes():
    code = (
        "import hashlib; from pipeline.read.scenes import Scenes; s = Scenes('5?seed=2');"
        "print(*(hashlib.sha256(i.data).hexdigest() for p in s.parts(5, False) for i in s.read(p[0])))"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.split() == [hashlib.sha256(item.data).hexdigest() for item in read_all(Scenes("5?seed=2"), 5)]


def test_the_etag_names_the_generator_version():
    (file,) = Scenes("3").files()
    assert (file.uri, file.etag) == ("scenes", "scenes-1")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("", "number of scenes"),
        ("0", "number of scenes"),
        ("ten", "number of scenes"),
        ("-3", "number of scenes"),
        ("5?seed=x", "seed"),
        ("5?seed=", "seed"),
        ("5?split=val", "train, test"),
        ("5?sede=1", "'sede'"),
        ("5?seed=1&seed=2", "twice"),
    ],
)
def test_a_bad_spec_is_refused_by_name(spec, problem):
    with pytest.raises(SourceError, match=problem):
        Scenes(spec)


def test_a_class_list_gives_classes_as_labels_and_masks_and_its_own_keys():
    items = read_all(Scenes("30?seed=4&classes=open24"), 10)
    scene = draw_scene(4, "train", 2, "open24")
    assert items[2].key == "scene-open24-train-s4-00000002"
    assert [region.label for region in items[2].given] == [f"{a.colour} {a.shape}" for a in scene.attributes]
    for region, mask in zip(items[2].given, scene.masks, strict=True):
        runs = decompress_runs(region.mask_rle)
        inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        assert (mask == inside.reshape(256, 256).T).all()
    names = {class_name(*pair) for pair in CLASS_LISTS["open24"]}
    assert {region.label for item in items for region in item.given} <= names
    redrawn = scene_of_key(items[2].key)
    assert (redrawn.pixels == scene.pixels).all()
    assert (draw_scene(4, "train", 2).pixels != scene.pixels).any()


def test_class_lists_are_other_inputs():
    files = [next(Scenes(spec).files()).etag for spec in ("5", "5?classes=open24", "5?classes=open34")]
    assert files[0] == "scenes-1" and len(set(files)) == 3
    with pytest.raises(SourceError, match="classes must be one of open24, open34, not 'all'"):
        Scenes("5?classes=all")
