"""COCO's JSON as truth, against pycocotools and the pictures themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from schemas.coco import Rle, compress_runs
from tests.trainer.evaluate.coco_files import SIZES, THINGS, TURNED, write_coco
from trainer.errors import TrainingError
from trainer.evaluate.batches import MeasuredBatches
from trainer.evaluate.masks import Outlines, draw_polygons
from trainer.evaluate.read.source import Wanted, open_truth
from trainer.evaluate.settings import TruthSettings
from trainer.evaluate.truth import Truth

MASKS = Wanted(masks=True)
ITS_OWN = "ignore:__array__ implementation:DeprecationWarning"
"""pycocotools', at numpy 2."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("coco")
    write_coco(path)
    return path


def truth_of(folder: Path, name: str, *options: str, **settings: object) -> Truth:
    data = f"coco:{folder}/{name}?" + "&".join([f"images={folder}/val2017", *options])
    return open_truth(data, split="train", settings=TruthSettings(**settings), wanted=MASKS)


@pytest.mark.filterwarnings(ITS_OWN)
def test_instances_are_those_of_pycocotools(folder, capsys):
    truth, coco = truth_of(folder, "instances.json"), COCO(str(folder / "instances.json"))
    capsys.readouterr()
    wanted = [a for a in coco.loadAnns(coco.getAnnIds(iscrowd=False)) if a["bbox"][2] > 0]
    assert truth.boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in wanted)]
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    assert list(truth.labels) == [names[annotation["category_id"]] for annotation in wanted]
    assert list(truth.classes) == [names[number] for number in sorted(coco.getCatIds())]
    assert truth.region_image.tolist() == [a["image_id"] - 1 for a in wanted]
    assert truth.left_out == {"crowd": 1, "box without area": 1}
    assert truth.is_thing is None
    for region, annotation in enumerate(wanted):
        size = SIZES[annotation["image_id"]]
        assert (truth.masks.of(region, size) == coco.annToMask(annotation)).all()


def test_crowds_are_measured_where_that_is_asked_for(folder):
    truth = truth_of(folder, "instances.json", crowds=True)
    crowd = truth.boxes.tolist().index([0, 0, 60, 5])
    assert truth.masks.of(crowd, SIZES[1]).sum() == 60 * 5
    assert truth_of(folder, "instances.json", min_area_px=250, max_area_px=600).num_regions == 1


def test_panoptic_has_things_and_stuff_and_the_masks_of_its_pngs(folder):
    truth = truth_of(folder, "panoptic.json")
    assert truth.is_thing.tolist() == [True, True, False, True, False, True, False]
    assert list(truth.classes) == ["traffic light", "cat", "grass-merged"]
    masks = [truth.masks.of(region, (0, 0)) for region in range(truth.num_regions)]
    assert [int(mask.sum()) for mask in masks[:3]] == [200, 192, 60 * 40 - 392]
    assert masks[0][6:16, 4:24].all()
    with pytest.raises(TrainingError, match=r"say where the PNGs are by \?segments=FOLDER"):
        truth_of(folder, "panoptic.json", "segments=nowhere")


def test_lvis_names_its_images_by_their_address(folder):
    truth = truth_of(folder, "lvis.json")
    assert [truth.images.key(i) for i in range(4)] == [f"val2017/{i:012}.jpg" for i in SIZES]
    assert truth.num_regions == 4


def test_captions_of_a_file_beside_it(folder):
    alone, beside = (
        truth_of(folder, "captions.json"),
        truth_of(folder, "instances.json", f"captions={folder}/captions.json"),
    )
    assert list(alone.captions) == list(beside.captions)
    assert alone.caption_start.tolist() == [0, 2, 5, 6, 6]
    assert len(set(alone.caption_text_ids.tolist())) == 6
    assert (alone.num_regions, beside.num_regions) == (0, 4)


def test_a_picture_that_lies_is_turned_with_its_boxes_and_masks(folder):
    truth = truth_of(folder, "instances.json")
    batches = MeasuredBatches(truth, batch_size=4, crop_scale=1.0, grid=(48, 32))
    batch = batches[0]
    assert batch.skipped == ()
    turned = TURNED - 1
    assert batch.image_sizes[turned].tolist() == [48, 32]
    _, _, x, y, w, h, _ = THINGS[4]
    # Turned clockwise by a quarter: what was at the left is at the top, what was at the bottom is at the left.
    box = np.array([32 - y - h, x, 32 - y, x + w])
    mine = (batch.region_image_index == turned).nonzero().squeeze(1)
    assert batch.boxes_norm[mine][0].numpy() == pytest.approx(box / [32, 48, 32, 48])
    shares = batch.mask_shares[mine][0].reshape(48, 32).numpy()
    covered = np.zeros((48, 32))
    covered[box[1] : box[3], box[0] : box[2]] = 1
    assert (shares == covered).all()
    start = int(3 * batch.image_sizes[:turned].prod(dim=1).sum())
    pixels = batch.pixels[start : start + 3 * 48 * 32].reshape(48, 32, 3).numpy()
    assert np.abs(pixels[covered > 0].mean(axis=0) - (240, 220, 30)).max() < 20  # the light's yellow


def test_a_stated_size_that_is_not_the_picture_s_is_named(folder, tmp_path):
    content = json.loads((folder / "instances.json").read_text())
    content["images"][0] |= {"width": 600, "height": 400}
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    data = f"coco:{tmp_path}/wrong.json?images={folder}/val2017"
    truth = open_truth(data, split="train", settings=TruthSettings(), wanted=Wanted())
    ((key, why),) = MeasuredBatches(truth, batch_size=4, crop_scale=1.0, grid=None)[0].skipped
    assert (key, why) == ("000000000001.jpg", "the annotation states 600 x 400 pixels, the image has 60 x 40")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.json", None, "No such file"),
        ("list.json", [], "not a COCO file"),
        (
            "none.json",
            {"images": [{"id": 1, "file_name": "a.jpg"}]},
            r"no image is there: .*a.jpg; say .*images=FOLDER",
        ),
        (
            "twice.json",
            {"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": n, "name": "cat"} for n in (1, 2)]},
            "two categories are called 'cat'",
        ),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(TrainingError, match=message):
        open_truth(f"coco:{tmp_path / name}", split="train", settings=TruthSettings(), wanted=Wanted())


@pytest.mark.filterwarnings(ITS_OWN)
def test_polygons_cover_what_pycocotools_says():
    star = [[30, 2, 37, 22, 58, 22, 41, 34, 48, 55, 30, 42, 12, 55, 19, 34, 2, 22, 23, 22], [5, 50, 15, 50, 10, 58]]
    theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(star, 60, 60))).astype(bool)
    ours = draw_polygons(star, (60, 60))
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95


@pytest.mark.parametrize("width", ["NaN", "Infinity", "-60", "0", "null"])
def test_a_stated_size_that_is_none_is_as_if_it_were_not_stated(folder, tmp_path, width):
    content = (folder / "instances.json").read_text().replace('"width": 60', f'"width": {width}', 1)
    assert content != (folder / "instances.json").read_text()
    (tmp_path / "odd.json").write_text(content)
    data = f"coco:{tmp_path}/odd.json?images={folder}/val2017"
    truth = open_truth(data, split="train", settings=TruthSettings(), wanted=Wanted())
    assert truth.images.size(0) is None and truth.images.size(1) == (40, 60)
    assert truth.num_regions == truth_of(folder, "instances.json").num_regions


def test_what_cannot_be_used_is_counted_and_the_first_of_it_told(folder, tmp_path):
    content = json.loads((folder / "instances.json").read_text())
    content["annotations"] += [{"id": 70, "image_id": 999, "category_id": 7, "bbox": [1, 1, 5, 5]}, 5]
    content["images"] += [content["images"][0] | {"file_name": "another.jpg"}, content["images"][1] | {"id": 50}]
    content["images"][-1]["file_name"] = "x" * 300 + ".jpg"
    (tmp_path / "odd.json").write_text(json.dumps(content))
    data = f"coco:{tmp_path}/odd.json?images={folder}/val2017"
    left_out = open_truth(data, split="train", settings=TruthSettings(), wanted=Wanted()).left_out
    place = len(THINGS)
    assert left_out["image of an id that is there already"] == 1
    assert left_out[f"annotation that cannot be used; the first, annotations[{place}]: no image has its image_id"] == 2


def test_a_segment_without_a_png_takes_no_other_one_s_mask(folder, tmp_path):
    content = json.loads((folder / "panoptic.json").read_text())
    content["annotations"][0]["file_name"] = None
    content["annotations"][1]["segments_info"][0]["id"] = "no number"
    (tmp_path / "odd.json").write_text(json.dumps(content))
    options = (f"images={folder}/val2017", f"segments={folder}/panoptic")
    data = f"coco:{tmp_path}/odd.json?" + "&".join(options)
    truth = open_truth(data, split="train", settings=TruthSettings(), wanted=MASKS)
    whole = truth_of(folder, "panoptic.json", f"segments={folder}/panoptic")
    assert truth.num_regions == whole.num_regions
    first, second = truth.region_start[1], truth.region_start[1]
    assert all(truth.masks.of(region, SIZES[1]) is None for region in range(first))
    assert truth.masks.of(second, SIZES[2]) is None
    for region in range(second + 1, truth.num_regions):
        size = SIZES[int(truth.region_image[region]) + 1]
        assert (truth.masks.of(region, size) == whole.masks.of(region, size)).all()


@pytest.mark.parametrize("far", [float("nan"), float("inf"), -1e15])
def test_corners_that_no_picture_reaches_are_no_mask(far):
    with pytest.raises(ValueError, match="a corner of a polygon is no number of pixels"):
        draw_polygons([[1, 1, 5, far, 3, 3]], (10, 10))
    assert draw_polygons([[-50, -50, 5, -50, 5, 5, -50, 5]], (10, 10)).sum() == 25


def test_a_mask_of_another_size_is_not_unpacked():
    huge = Outlines(shapes=[Rle(counts=compress_runs([10**12]), height=10**6, width=10**6)])
    with pytest.raises(ValueError, match="of 1000000 x 1000000 pixels, the image of 10 x 10"):
        huge.of(0, (10, 10))


@pytest.mark.parametrize("size", ["[Infinity, 4]", "[4, NaN]", "[1e300, 4]"])
def test_run_lengths_of_a_size_that_is_none_are_no_mask(folder, tmp_path, size):
    content = json.loads((folder / "instances.json").read_text())
    content["annotations"][0]["segmentation"] = {"size": "SIZE", "counts": [4]}
    (tmp_path / "odd.json").write_text(json.dumps(content).replace('"SIZE"', size))
    data = f"coco:{tmp_path}/odd.json?images={folder}/val2017"
    truth = open_truth(data, split="train", settings=TruthSettings(), wanted=MASKS)
    assert truth.masks.of(0, SIZES[1]) is None
