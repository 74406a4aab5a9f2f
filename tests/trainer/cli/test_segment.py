"""`fineclip segment` as a user gives it: train, evaluate, probe, predict, back into `annotate`; and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import run
from tests.trainer.segmentation.pictures import maps_of, masks_of, write_json, write_pictures
from tests.trainer.towers import VIT, add_plain_model
from trainer.evaluate.masks import decode_rle
from trainer.segmentation.predict import run_lengths

CPU = ("--device", "cpu", "--workers", "0")
SMALL = (
    *("--recipe", "scenes", "--guides", "[1]", "--dim", "32", "--image-size", "64", "--crop-px", "64", "--window", "2"),
    *("--batch-size", "4", "--steps", "2", "--most-classes", "8", "--threads", "1", "--log-every", "1", *CPU),
)
WHOLE = ("--canvas-px", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "data")


def _split(folder: Path) -> tuple[str, str]:
    return "--split-classes", str(folder / "split.json")


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps, made by the command."""
    out = tmp_path_factory.mktemp("run") / "RUN"
    outcome = run("segment", "train", "--model", VIT, "--data", masks_of(folder), "--out", out, *_split(folder), *SMALL)
    assert outcome.code == 0, outcome.err
    assert "8 images, 3 classes" in outcome.err
    assert "Done: 2 steps. The segmenter is in" in outcome.err
    return out


def _evaluate(model: object, data: str, out: Path, *flags: str) -> dict:
    outcome = run("segment", "evaluate", "--model", str(model), "--data", data, "--out", out, *CPU, *flags)
    assert outcome.code == 0, outcome.err
    return json.loads(out.read_text())


def test_the_run_goes_on_where_it_was_stopped(folder, trained, tmp_path):
    given = ("--model", VIT, "--data", masks_of(folder), "--out", tmp_path / "RUN", *_split(folder), *SMALL)
    stopped = run("segment", "train", *given, "--stop-after", "1")
    assert stopped.code == 0 and "the command without --stop-after goes on from there" in stopped.err
    went_on = run("segment", "train", *given)
    assert "going on after step 1" in went_on.err
    ours, theirs = ((path / "metrics.jsonl").read_text().splitlines() for path in (tmp_path / "RUN", trained))
    for one, other in zip(ours, theirs, strict=True):
        assert {**json.loads(one), "images_per_s": 0} == {**json.loads(other), "images_per_s": 0}
    refused = run("segment", "train", *given, "--lr", "0.5")
    assert refused.code == 3 and "lr is 0.5, where it was 0.004" in refused.err


def test_a_run_is_measured_by_the_mean_iou_of_its_own_classes(folder, trained, tmp_path):
    found = _evaluate(trained, masks_of(folder), tmp_path / "m.json", "--canvas-px", "96", "--stride-px", "32")
    metrics = found["metrics"]
    assert list(metrics)[:4] == ["base_mIoU", "base_mIoU_predicted", "novel_mIoU", "novel_mIoU_predicted"]
    assert (metrics["num_images"], metrics["num_classes_in_truth"]) == (8, 4)
    assert list(found["by_class"]) == ["red", "green", "blue", "background"]
    shown = found["by_class"]
    assert metrics["base_mIoU"] == pytest.approx((shown["red"] + shown["green"]) / 2)
    assert metrics["novel_mIoU"] == pytest.approx(shown["blue"])
    assert metrics["all_mIoU"] == pytest.approx((shown["red"] + shown["green"] + shown["blue"]) / 3)
    assert found["command"].startswith("fineclip segment evaluate --model")


def test_what_no_region_covers_can_be_left_out(folder, trained, tmp_path):
    found = _evaluate(trained, masks_of(folder), tmp_path / "m.json", *WHOLE, "--background", "")
    assert list(found["by_class"]) == ["red", "green", "blue"]


def test_a_run_takes_other_data_with_names_of_its_own(folder, trained, tmp_path):
    split = tmp_path / "split.json"
    write_json(split, {"base": ["ground", "red"], "novel": ["green"]})
    found = _evaluate(trained, maps_of(folder), tmp_path / "m.json", *WHOLE, "--split-classes", str(split))
    assert list(found["by_class"]) == ["ground", "red", "green"]


def test_without_a_head_the_raw_cost_volume_is_measured_and_nothing_is_trained(folder, trained, tmp_path):
    flags = ("--head", "none", *_split(folder), "--image-size", "64", "--template", "{article} {}")
    of_clip = _evaluate(VIT, masks_of(folder), tmp_path / "clip.json", *flags)
    other = _evaluate(VIT, masks_of(folder), tmp_path / "cls.json", *flags, "--residual", "cls", "--background", "wall")
    assert list(of_clip["by_class"]) == ["red", "green", "blue"]
    assert list(other["by_class"]) == ["red", "green", "blue", "wall"]
    assert 0 <= of_clip["metrics"]["all_mIoU"] <= 1
    assert of_clip["settings"]["residual"] == "own"


def test_a_data_set_of_scenes_and_its_export_have_the_same_masks(tmp_path):
    made, exported = tmp_path / "data", tmp_path / "exported"
    given = ("scenes:4?seed=3&classes=open24", made, "--proposer", "manual", "--captioner", "rule")
    assert run("annotate", *given).code == 0
    assert run("export", made, exported, "--to", "coco").code == 0
    coco = f"coco:{exported}/annotations/instances_train.json?images={exported}/images/train"
    split = tmp_path / "split.json"
    names = json.loads((exported / "annotations/instances_train.json").read_text())["categories"]
    write_json(split, {"base": [names[0]["name"]], "novel": [one["name"] for one in names[1:]]})
    flags = ("--head", "none", "--image-size", "64", "--split-classes", str(split))
    found = [_evaluate(VIT, str(data), tmp_path / "m.json", *flags)["metrics"] for data in (made, coco)]
    assert found[0] == found[1] and found[0]["num_images"] == 4


def test_found_masks_are_drawn_and_annotate_makes_regions_of_them(folder, trained, tmp_path):
    images, out = tmp_path / "images", tmp_path / "found"
    images.mkdir()
    for number in (1, 2):
        (images / f"{number}.png").write_bytes((folder / "images" / f"{number}.png").read_bytes())
    (images / "broken.jpg").write_bytes(b"no image")
    names = ("a red thing", "something new")
    flags = ("--names", *names, "--threshold", "0", "--min-area-px", "40", *WHOLE, "--device", "cpu")
    outcome = run("segment", "predict", "--model", trained, "--images", images, "--out", out, *flags)
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "masks.json").read_text())
    count = len(found["annotations"])
    assert "skipped broken.jpg: cannot be decoded" in outcome.err and f"{count} regions in 2 images" in outcome.err
    assert [category["name"] for category in found["categories"]] == list(names)
    assert count and all(0 < one["score"] <= 1 and one["area"] >= 40 for one in found["annotations"])
    before, after = (np.asarray(Image.open(path)) for path in (images / "1.png", out / "1.png.png"))
    assert after.shape[0] > before.shape[0], "a legend is below"
    assert (before != after[: before.shape[0]]).any()

    made, exported = tmp_path / "data", tmp_path / "exported"
    given = f"coco:{out}/masks.json?images={images}"
    outcome = run("annotate", given, made, "--proposer", "manual", "--captioner", "label", "--max-dead", "1")
    assert outcome.code == 0, outcome.err
    assert run("export", made, exported, "--to", "coco").code == 0
    again = json.loads((exported / "annotations/instances_train.json").read_text())
    labels = {category["id"]: category["name"] for category in again["categories"]}
    told = {(names[one["category_id"] - 1], one["segmentation"]["counts"]) for one in found["annotations"]}
    back = {(labels[one["category_id"]], one["segmentation"]["counts"]) for one in again["annotations"]}
    assert back and back <= told, "the masks come through as they were"


def _copy(folder: Path, tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "copy")


def _rgb(path: Path) -> None:
    Image.open(path).convert("RGB").save(path)


def _other_size(path: Path) -> None:
    Image.fromarray(np.zeros((10, 20), dtype=np.uint8)).save(path)


def _out_of_range(path: Path) -> None:
    Image.fromarray(np.full((64, 96), 9, dtype=np.uint8)).save(path)


def _no_png(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_rgb, "has 3 channels of uint8, where one whole number a pixel should be: it is a picture of labels"),
        (_other_size, "is 20 x 10 pixels, the image 96 x 64"),
        (_out_of_range, "has 9 at x 0, y 0, where 0 to 3 and 255 may be"),
        (_no_png, "cannot be decoded"),
    ],
)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_wrong_label_maps_are_told(folder, tmp_path, command, spoil, said):
    copy = _copy(folder, tmp_path)
    for path in (copy / "maps").iterdir():
        spoil(path)
    flags = (*SMALL, *_split(copy)) if command == "train" else ("--head", "none", "--image-size", "64", *CPU)
    out = tmp_path / ("RUN" if command == "train" else "m.json")
    outcome = run("segment", command, "--model", VIT, "--data", maps_of(copy), "--out", out, *flags)
    assert outcome.code == 2 and said in outcome.err.replace("\n", " "), outcome.err
    assert not out.exists()


def test_one_wrong_label_map_is_skipped_and_told(folder, tmp_path):
    copy = _copy(folder, tmp_path)
    _other_size(copy / "maps" / "3.png")
    (copy / "maps" / "4.png").unlink()
    flags = ("--head", "none", "--image-size", "64", *CPU)
    outcome = run("segment", "evaluate", "--model", VIT, "--data", maps_of(copy), "--out", tmp_path / "m.json", *flags)
    assert outcome.code == 0, outcome.err
    assert "skipped 3.png: its label map" in outcome.err and "left out: 1, image without a label map" in outcome.err
    found = json.loads((tmp_path / "m.json").read_text())
    assert found["metrics"]["num_images"] == 6 and found["left_out"] == {"image without a label map": 1}
    (copy / "images" / "5.png").unlink()
    outcome = run("segment", "evaluate", "--model", VIT, "--data", maps_of(copy), "--out", tmp_path / "m.json", *flags)
    assert outcome.code == 2 and "1 of 7 label maps have no image, the first" in outcome.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (["ground", "red"], "where 0 to 1 and 255 may be"),
        ({"red": 1}, "it is no list of names: one is wanted, as JSON"),
        ([], "it is no list of names"),
        (None, "a list of names is wanted, as JSON"),
    ],
)
def test_a_class_list_that_does_not_match_is_refused(folder, tmp_path, content, said):
    path = tmp_path / "classes.json"
    path.write_text("no json") if content is None else write_json(path, content)
    data = f"maps:{folder}/maps?images={folder}/images&classes={path}"
    flags = ("--head", "none", "--image-size", "64", "--out", tmp_path / "m.json", *CPU)
    outcome = run("segment", "evaluate", "--model", VIT, "--data", data, *flags)
    assert outcome.code == 2 and said in outcome.err.replace("\n", " "), outcome.err


@pytest.mark.parametrize(("kind", "wanted"), [("coco-stuff", 171), ("ade150", 150), ("ade847", 847), ("pc59", 59)])
def test_a_class_list_of_another_data_set_is_refused(folder, tmp_path, kind, wanted):
    data = f"{kind}:{folder}/maps?images={folder}/images&classes={folder}/classes.json"
    flags = ("--head", "none", "--out", tmp_path / "m.json", *CPU)
    outcome = run("segment", "evaluate", "--model", VIT, "--data", data, *flags)
    assert outcome.code == 2 and f"classes.json has 4 names, and {kind} has {wanted} classes" in outcome.err


def test_missing_files_are_named(folder, trained, tmp_path):
    evaluate = ("segment", "evaluate", "--model", VIT, "--head", "none", "--image-size", "64", *CPU)
    out = ("--out", tmp_path / "m.json")
    (tmp_path / "empty").mkdir()
    classes = f"classes={folder}/classes.json"
    said = {
        f"maps:{folder}/none?{classes}": "none: there is no such folder",
        f"maps:{tmp_path}/empty?{classes}": "no label map is in it (.png, .tif, .tiff)",
        f"maps:{folder}/maps?images={tmp_path}/empty&{classes}": "no image is in it",
        f"maps:{folder}/maps?images={folder}/images": "name the classes by classes=FILE.json",
        f"maps:{folder}/maps?image={folder}/images": "is none of its options once: images, classes, ignore",
        f"maps:{folder}/maps?images={folder}/images&{classes}&ignore=x": "ignore=x: a value of pixels is wanted",
    }
    for data, sentence in said.items():
        outcome = run(*evaluate, "--data", data, *out)
        assert outcome.code == 2 and sentence in outcome.err.replace("\n", " "), outcome.err
    no_run = run("segment", "evaluate", "--model", tmp_path, "--data", maps_of(folder), *out, *CPU)
    assert no_run.code == 2 and "no segmenter is there" in no_run.err and "--head none" in no_run.err
    predict = ("segment", "predict", "--model", trained, "--names", "cat", "--out", tmp_path / "found")
    assert "there is no such folder" in run(*predict, "--images", tmp_path / "none").err
    assert "no image is in it" in run(*predict, "--images", tmp_path / "empty").err


def test_data_without_masks_regions_or_pixels_of_a_class_are_refused(folder, tmp_path):
    content = json.loads((folder / "masks.json").read_text())
    for one in content["annotations"]:
        del one["segmentation"]
    write_json(tmp_path / "boxes.json", content)
    write_json(tmp_path / "none.json", content | {"annotations": []})
    copy = _copy(folder, tmp_path)
    for path in (copy / "maps").iterdir():
        Image.fromarray(np.full((64, 96), 255, dtype=np.uint8)).save(path)
    images = f"?images={folder}/images"
    said = {
        f"coco:{tmp_path}/boxes.json{images}": "its regions have no masks, which segmentation is about",
        f"coco:{tmp_path}/none.json{images}": "there is no region in any of 8 images",
        maps_of(copy): "no pixel of 8 images has a class: nothing is left to measure",
    }
    for data, sentence in said.items():
        flags = ("--head", "none", "--image-size", "64", "--out", tmp_path / "m.json", *CPU)
        outcome = run("segment", "evaluate", "--model", VIT, "--data", data, *flags)
        assert outcome.code == 2 and sentence in outcome.err.replace("\n", " "), outcome.err
    given = ("--model", VIT, "--data", maps_of(copy), "--out", tmp_path / "RUN", *SMALL)
    outcome = run("segment", "train", *given, "--split-classes", "null", "--background", "null")
    said_of_training = "no pixel of 8 images that were looked at has a class that is trained on"
    assert outcome.code == 2 and said_of_training in outcome.err.replace("\n", " "), outcome.err


def test_empty_images_are_skipped_and_nothing_but_them_is_an_error(folder, tmp_path):
    copy = _copy(folder, tmp_path)
    train = ("segment", "train", "--model", VIT, "--out", tmp_path / "RUN", *_split(copy), *SMALL)
    for path in (copy / "images").iterdir():
        path.write_bytes(b"")
    outcome = run(*train, "--data", masks_of(copy))
    assert outcome.code == 1 and "4 of 4 images cannot be used; one of them, " in outcome.err
    flags = ("--head", "none", "--image-size", "64", "--out", tmp_path / "m.json", *CPU)
    outcome = run("segment", "evaluate", "--model", VIT, "--data", masks_of(copy), *flags)
    assert outcome.code == 2 and "none of 8 images can be used; the first, 1.png: cannot be decoded" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("trian",), "'trian' is none of train, evaluate, predict"),
        (("predict", "--names", "cat", "cat"), "'cat' is given twice"),
        (("predict", "--names", " "), "a name is empty"),
        (("predict", "--names", "cat", "--threshold", "2"), "--threshold 2.0 --min-area-px 64: from 0 to 1"),
        (("evaluate", "--image-size", "64"), "--image-size: for --head none alone"),
        (("evaluate", "--stride-px", "0"), "--stride-px and --views-at-once: 1 or more"),
        (("train", "--decoder-channels", "[20,16]"), "--decoder-channels [20, 16]: multiples of 16"),
        (("train", "--guides", "[1]"), "--guides, --guide-channels, --guide-kept and --decoder-channels: as many"),
        (("train", "--guide-kept", "[32,64]"), "--guide-kept [32, 64]: each fewer than the channels before its level"),
        (("train", "--steps", "0"), "--steps 0: give 1 or more"),
        (("train", "--recipe", "best"), "invalid choice: 'best' (choose from 'cat_seg', 'scenes')"),
    ],
)
def test_wrong_usage_is_told(arguments, said):
    needed = {
        "predict": ("--model", "RUN", "--images", "DIR", "--out", "OUT"),
        "evaluate": ("--model", "RUN", "--data", "coco:x.json", "--out", "m.json"),
        "train": ("--model", "RUN", "--data", "coco:x.json", "--out", "OUT"),
    }
    outcome = run("segment", *arguments, *needed.get(arguments[0], ()))
    assert outcome.code == 2 and said in outcome.err.replace("\n", " "), outcome.err


def test_towers_and_sizes_that_do_not_fit_are_refused(folder, trained, tmp_path):
    given = ("--data", masks_of(folder), "--out", tmp_path / "RUN", *_split(folder), *SMALL)
    outcome = run("segment", "train", "--model", add_plain_model(tmp_path), *given)
    assert outcome.code == 2 and "a vision tower of timm's VisionTransformer" in outcome.err, outcome.err
    outcome = run("segment", "train", "--model", VIT, *given, "--window", "3")
    assert outcome.code == 2 and "4 patches a side are not whole windows and pools" in outcome.err, outcome.err
    assert not (tmp_path / "RUN" / "segmenter.pt").exists()
    flags = ("--out", tmp_path / "m.json", *CPU, "--canvas-px", "100")
    outcome = run("segment", "evaluate", "--model", trained, "--data", masks_of(folder), *flags)
    assert outcome.code == 2 and "windows of 64 pixels do not cover it" in outcome.err.replace("\n", " "), outcome.err


def test_masks_are_read_back_as_they_were_written():
    from schemas.coco import Rle

    mask = np.random.default_rng(0).random((5, 8)) < 0.4
    assert np.array_equal(decode_rle(Rle(counts=run_lengths(mask), height=5, width=8)), mask)


def test_help_needs_no_torch():
    assert "fineclip segment train --model MODEL" in run("segment").out


def test_the_clip_under_a_run_is_measured_without_its_head(folder, trained, tmp_path):
    flags = ("--head", "none", *_split(folder), "--image-size", "64")
    of_run = _evaluate(trained, masks_of(folder), tmp_path / "run.json", *flags)
    of_clip = _evaluate(VIT, masks_of(folder), tmp_path / "clip.json", *flags)
    assert of_run["metrics"] == of_clip["metrics"]


def test_a_run_of_the_other_command_is_named(trained, tmp_path):
    flags = ("--images", tmp_path, "--names", "a", "--out", tmp_path / "out")
    outcome = run("detect", "predict", "--model", trained, *flags)
    assert outcome.code == 2 and "it is a segmenter's run: `fineclip segment` takes it" in outcome.err
