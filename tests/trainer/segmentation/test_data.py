"""Classes of pixels from every kind of data, and what is wrong with files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.segmentation.pictures import (
    HEIGHT,
    NAMES,
    SPLIT,
    WIDTH,
    maps_of,
    masks_of,
    write_json,
    write_pictures,
)
from trainer.data.decode import UnusableSampleError
from trainer.errors import TrainingError
from trainer.evaluate.class_split import read_class_split
from trainer.segmentation.data import SegmentData, open_data
from trainer.segmentation.outlines import PC59_IDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "data")


def write_kind(folder: Path, values: np.ndarray, num_names: int, *, label: str = "1.png", image: str = "1.jpg") -> str:
    """Write an image, a label map of `values` and a list of so many names; return what follows the kind."""
    for name in ("images", "maps"):
        (folder / name).mkdir()
    Image.new("RGB", (values.shape[1], values.shape[0])).save(folder / "images" / image)
    Image.fromarray(values).save(folder / "maps" / label)
    write_json(folder / "classes.json", [f"name {number}" for number in range(num_names)])
    return f"{folder}/maps?images={folder}/images&classes={folder}/classes.json"


def opened(data: str, **options) -> SegmentData:
    return open_data(data, **{"split": None, "to_train": False, "background": None, **options})


def test_a_label_map_has_places_in_the_list_and_255(folder):
    data = opened(maps_of(folder))
    pixels, labels = data.read(0)
    assert (data.classes, data.groups, len(data)) == (NAMES, {"all": [0, 1, 2, 3]}, 8)
    assert pixels.shape == (HEIGHT, WIDTH, 3) and labels.dtype == np.int64
    assert set(np.unique(labels)) == {-1, 0, 2, 3} and (labels[:2] == -1).all()


def test_coco_stuff_ranks_the_171_ids_that_are_used(tmp_path):
    values = np.array([[0, 10, 12], [24, 91, 181], [255, 26, 27]], dtype=np.uint8)
    data = opened("coco-stuff:" + write_kind(tmp_path, values, 171))
    assert data.read(0)[1].tolist() == [[0, 10, 11], [23, 80, 170], [-1, 24, 25]]


@pytest.mark.parametrize("unused", [11, 90])
def test_places_in_the_list_are_not_taken_for_cocos_ids(tmp_path, unused):
    """Other tools write such maps under the same names: each pixel would be of a wrong class."""
    rest = write_kind(tmp_path, np.array([[0, unused]], dtype=np.uint8), 171)
    with pytest.raises(TrainingError, match=rf"1.png has {unused} at x 1, y 0, where .* places in the list: `maps:`"):
        opened(f"coco-stuff:{rest}")


def test_ade20k_counts_from_one(tmp_path):
    data = opened("ade150:" + write_kind(tmp_path, np.array([[0, 1, 150]], dtype=np.uint8), 150))
    assert data.read(0)[1].tolist() == [[-1, 0, 149]]


def test_the_full_ade20k_is_coded_in_red_and_green(tmp_path):
    rest = write_kind(tmp_path, np.array([[[110, 162, 7], [10, 56, 0], [0, 0, 9]]], dtype=np.uint8), 1)
    (tmp_path / "maps" / "1.png").rename(tmp_path / "maps" / "1_seg.png")
    entries = [{"name": f"n{number}", "id": 4000 + number, "trainId": number} for number in range(847)]
    entries[3]["id"], entries[5]["id"] = 11 * 256 + 162, 256 + 56
    write_json(tmp_path / "classes.json", entries[::-1])
    data = opened("ade847:" + rest)
    assert data.read(0)[1].tolist() == [[3, 5, -1]]
    assert data.classes[:2] == ("n0", "n1"), "in the order of trainId"


def test_large_images_of_the_full_ade20k_become_smaller_and_their_parts_are_no_images(tmp_path):
    rest = write_kind(tmp_path, np.full((1024, 1300, 3), 20, dtype=np.uint8), 1)
    (tmp_path / "maps" / "1.png").rename(tmp_path / "maps" / "1_seg.png")
    write_json(tmp_path / "classes.json", [{"name": str(n), "id": n} for n in range(847)])
    pixels, labels = opened("ade847:" + rest).read(0)
    assert pixels.shape == (512, 650, 3) and labels.shape == (512, 650)
    assert (labels == 2 * 256 + 20).all()


def test_label_maps_of_sixteen_bits_and_of_palettes_are_values(tmp_path):
    rest = write_kind(tmp_path, np.array([[0, 2, 65535]], dtype=np.uint16), 3, label="1.tif")
    assert opened(f"maps:{rest}&ignore=65535").read(0)[1].tolist() == [[0, 2, -1]]
    palette = Image.fromarray(np.array([[2, 1, 255]], dtype=np.uint8)).convert("P")
    palette.putpalette([9] * 768)
    (tmp_path / "maps" / "1.tif").unlink()
    palette.save(tmp_path / "maps" / "1.png")
    assert opened(f"maps:{rest}").read(0)[1].tolist() == [[2, 1, -1]]


def write_context(folder: Path, **changes) -> str:
    """Write Pascal Context in small: a mask of a class that counts, over one of a class that does not."""
    images = [
        {"image_id": 2008000002, "file_name": "a.jpg", "phase": "val", "width": 3, "height": 2},
        {"image_id": 2008000003, "file_name": "b.jpg", "phase": "train", "width": 3, "height": 2},
    ]
    masks = [(2, "06"), (3, "06"), (458, "24")]  # all pixels; all; the middle and right column: runs 2, 4
    annotations = [
        {"image_id": 2008000002, "category_id": category, "segmentation": {"size": [2, 3], "counts": counts}}
        for category, counts in masks
    ]
    write_json(folder / "merged.json", {"images": images, "annos_segmentation": annotations} | changes)
    (folder / "JPEGImages").mkdir()
    Image.new("RGB", (3, 2)).save(folder / "JPEGImages" / "a.jpg")
    write_json(folder / "classes.json", [f"name {number}" for number in range(59)])
    return f"pc59:{folder}/merged.json?classes={folder}/classes.json"


def test_pascal_context_has_59_of_its_classes_and_phase_val(tmp_path):
    data = opened(write_context(tmp_path))
    assert (len(data), data.key(0), len(set(PC59_IDS))) == (1, "a.jpg", 59)
    assert data.read(0)[1].tolist() == [[0, 58, 58], [0, 58, 58]]


def test_regions_are_painted_the_small_over_the_large(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "1.png")
    square = {"image_id": 1, "iscrowd": 0}
    annotations = [
        square | {"id": 1, "category_id": 1, "bbox": [2, 2, 2, 2], "segmentation": [[2, 2, 4, 2, 4, 4, 2, 4]]},
        square | {"id": 2, "category_id": 2, "bbox": [0, 0, 6, 6], "segmentation": [[0, 0, 6, 0, 6, 6, 0, 6]]},
    ]
    categories = [{"id": 1, "name": "dot"}, {"id": 2, "name": "disc"}]
    images = [{"id": 1, "file_name": "1.png", "width": 8, "height": 8}]
    write_json(tmp_path / "m.json", {"images": images, "annotations": annotations, "categories": categories})
    where = f"coco:{tmp_path}/m.json?images={tmp_path}/images"
    bare, named = opened(where), opened(where, background="air")
    labels = bare.read(0)[1]
    assert (bare.classes, named.classes) == (("dot", "disc"), ("dot", "disc", "air"))
    assert labels[3, 3] == 0 and labels[5, 5] == 1 and labels[7, 7] == -1
    assert (named.read(0)[1] == np.where(labels == -1, 2, labels)).all()
    with pytest.raises(TrainingError, match="--background 'dot' is a class of the data too"):
        opened(where, background="dot")


def test_pixels_of_novel_classes_are_not_trained_on(folder):
    split = read_class_split(str(folder / "split.json"))
    train = opened(masks_of(folder), split=split, to_train=True, background="rest")
    measured = opened(masks_of(folder), split=split, background="rest")
    assert (train.classes, measured.classes) == (("red", "green", "rest"), ("red", "green", "blue", "rest"))
    assert train.groups == {"base": [0, 1], "all": [0, 1]}
    assert measured.groups == {"base": [0, 1], "novel": [2], "all": [0, 1, 2]}
    for image in range(len(train)):
        mine, all_of_them = train.read(image)[1], measured.read(image)[1]
        assert (mine[all_of_them == 2] == -1).all()
        assert (mine[all_of_them == 3] == 2).all() and (mine[all_of_them < 2] == all_of_them[all_of_them < 2]).all()
    maps = opened(maps_of(folder), split=split, to_train=True)
    assert maps.classes == ("red", "green") and set(np.unique(maps.read(0)[1])) == {-1, 1}
    assert len(SPLIT) == 2


def test_a_fingerprint_knows_classes_and_files(folder, tmp_path):
    other = write_pictures(tmp_path / "other", 7)
    found = {opened(data).fingerprint() for data in (maps_of(folder), masks_of(folder), maps_of(other))}
    assert len(found) == 3
    assert opened(maps_of(folder)).fingerprint() in found


def test_wrong_values_are_told_with_their_place(folder, tmp_path):
    copy = write_pictures(tmp_path / "copy")
    values = np.array(Image.open(copy / "maps" / "3.png"))
    values[5, 7] = 77
    Image.fromarray(values).save(copy / "maps" / "3.png")
    data = opened(maps_of(copy))
    with pytest.raises(UnusableSampleError, match=r"3.png has 77 at x 7, y 5, where 0 to 3 and 255 may be"):
        data.read(2)
    assert data.read(0)[1].max() == 3


@pytest.mark.parametrize("kind", ["coco-stuff", "ade150"])
def test_values_that_no_class_has_are_told(tmp_path, kind):
    rest = write_kind(tmp_path, np.array([[1, 200]], dtype=np.uint8), 171 if kind == "coco-stuff" else 150)
    with pytest.raises(TrainingError, match=r"1.jpg: its label map .*1.png has 200 at x 1, y 0, where 0 to 1"):
        opened(f"{kind}:{rest}")


def test_json_that_is_not_pascal_contexts_is_told(tmp_path):
    data = write_context(tmp_path, annos_segmentation=[{"image_id": 2008000002}])
    with pytest.raises(TrainingError, match=r"merged.json: KeyError: 'category_id'; trainval_merged.json of Pascal"):
        opened(data)
    content = json.loads((tmp_path / "merged.json").read_text()) | {"annos_segmentation": []}
    content["images"][0]["phase"] = "train"
    write_json(tmp_path / "merged.json", content)
    with pytest.raises(TrainingError, match=r"no image is there: none of phase val"):
        opened(data)


def test_a_list_with_a_name_twice_is_refused(tmp_path):
    rest = write_kind(tmp_path, np.array([[0, 1]], dtype=np.uint8), 2)
    write_json(tmp_path / "classes.json", ["cat", "dog", "cat"])
    with pytest.raises(TrainingError, match=r"classes.json has 'cat' twice: no pixel can be told"):
        opened(f"maps:{rest}")
    (tmp_path / "classes.json").write_bytes(b'\xef\xbb\xbf["cat", "dog"]')
    assert opened(f"maps:{rest}").classes == ("cat", "dog")


def test_label_maps_are_not_taken_for_their_images(tmp_path):
    write_kind(tmp_path, np.array([[0, 1]], dtype=np.uint8), 2)
    for images in ("", f"images={tmp_path}/images/../maps&"):
        with pytest.raises(TrainingError, match="say where the images are by images=FOLDER"):
            opened(f"maps:{tmp_path}/maps?{images}classes={tmp_path}/classes.json")


@pytest.mark.parametrize(("folder", "name", "what"), [("images", "1.png", "image"), ("maps", "1.tif", "label map")])
def test_two_files_of_one_name_are_told(tmp_path, folder, name, what):
    rest = write_kind(tmp_path, np.array([[0, 1]], dtype=np.uint8), 2)
    Image.new("RGB", (2, 1)).save(tmp_path / folder / name)
    with pytest.raises(TrainingError, match=rf"1\.\w+ and .*{name} are the {what} of one name: take one of them away"):
        opened(f"maps:{rest}")


def test_numbers_that_the_full_ade20k_cannot_code_are_refused(tmp_path):
    values = np.zeros((2, 2, 3), dtype=np.uint8)
    rest = write_kind(tmp_path, values, 847, label="1_seg.png")
    write_json(tmp_path / "classes.json", [{"name": f"name {n}", "id": n * 9} for n in range(847)])
    with pytest.raises(TrainingError, match="ids are from 0 to 6655"):
        opened(f"ade847:{rest}")


def test_files_of_one_name_in_two_folders_are_two_images(tmp_path):
    rest = write_kind(tmp_path, np.array([[0, 1]], dtype=np.uint8), 2)
    for name in ("images", "maps"):
        (tmp_path / name / "b").mkdir()
    (tmp_path / "images" / "b" / "1.jpg").write_bytes((tmp_path / "images" / "1.jpg").read_bytes())
    (tmp_path / "maps" / "b" / "1.png").write_bytes((tmp_path / "maps" / "1.png").read_bytes())
    data = opened(f"maps:{rest}")
    assert [data.key(image) for image in range(len(data))] == ["1.jpg", "b/1.jpg"]
