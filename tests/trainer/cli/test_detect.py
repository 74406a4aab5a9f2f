"""`fineclip detect` as a user gives it: train, evaluate, probe, predict, back into `annotate`; and bad input."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import run
from tests.trainer.detection.pictures import COLOURS, IDS, annotation, data_of, write_json, write_pictures
from tests.trainer.towers import VIT, add_plain_model
from trainer.evaluate.figure import COLOURS as DRAWN

CPU = ("--device", "cpu", "--workers", "0")
SMALL = (
    *("--recipe", "scenes", "--taps", "[0,1,2]", "--channels", "16", "--image-size", "64", "--log-every", "1"),
    *("--batch-size", "4", "--epochs", "1", "--threads", "1", *CPU),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "data")


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps, made by the command."""
    out = tmp_path_factory.mktemp("run") / "RUN"
    outcome = run("detect", "train", "--model", VIT, "--data", data_of(folder), "--out", out, *_split(folder), *SMALL)
    assert outcome.code == 0, outcome.err
    assert "12 boxes in 9 images" in outcome.err
    assert "left out: 12, box of no base class" in outcome.err
    assert "Done: 2 steps. The detector is in" in outcome.err
    return out


def _split(folder: Path) -> tuple[str, str]:
    return "--split-classes", str(folder / "split.json")


def _evaluate(model: object, folder: Path, out: Path, *flags: str) -> dict:
    arguments = ("detect", "evaluate", "--model", str(model), "--data", data_of(folder), "--out", out, *CPU, *flags)
    outcome = run(*arguments)
    assert outcome.code == 0, outcome.err
    return json.loads(out.read_text())


def test_the_run_goes_on_where_it_was_stopped(folder, trained, tmp_path):
    given = ("--model", VIT, "--data", data_of(folder), "--out", tmp_path / "RUN", *_split(folder), *SMALL)
    stopped = run("detect", "train", *given, "--stop-after", "1")
    assert stopped.code == 0 and "the command without --stop-after goes on from there" in stopped.err
    went_on = run("detect", "train", *given)
    assert "going on after step 1" in went_on.err
    ours, theirs = ((path / "metrics.jsonl").read_text().splitlines() for path in (tmp_path / "RUN", trained))
    for one, other in zip(ours, theirs, strict=True):
        assert {**json.loads(one), "images_per_s": 0} == {**json.loads(other), "images_per_s": 0}
    refused = run("detect", "train", *given, "--lr", "0.5")
    assert refused.code == 3 and "lr is 0.5, where it was 0.001" in refused.err


def test_a_run_is_measured_by_ap50_of_its_own_classes(folder, trained, tmp_path):
    found = _evaluate(trained, folder, tmp_path / "m.json", "--score-threshold", "0")
    metrics = found["metrics"]
    assert list(metrics)[:3] == ["base_AP50", "novel_AP50", "all_AP50"]
    assert (metrics["num_images"], metrics["num_base_boxes"], metrics["num_novel_boxes"]) == (12, 12, 6)
    assert list(found["by_class"]) == ["blue", "red", "green"], "in the order of their ids"
    shown = {name: value or 0 for name, value in found["by_class"].items()}
    assert metrics["base_AP50"] == pytest.approx((shown["red"] + shown["green"]) / 2)
    assert metrics["all_AP50"] == pytest.approx(sum(shown.values()) / 3)
    assert found["left_out"] == {"box of no class of the split": 6}
    assert found["command"].startswith("fineclip detect evaluate --model")


def test_without_a_head_true_boxes_are_scored_and_nothing_is_trained(folder, trained, tmp_path):
    flags = ("--head", "none", *_split(folder), "--image-size", "64", "--normalisation", "clip", "--templates", "plain")
    of_clip = _evaluate(VIT, folder, tmp_path / "clip.json", *flags)
    of_run = _evaluate(trained, folder, tmp_path / "run.json", *flags)
    assert of_clip["metrics"]["num_novel_boxes"] == 6
    assert 0 <= of_clip["metrics"]["all_accuracy@1"] <= 1
    assert of_clip["metrics"].keys() == of_run["metrics"].keys()


def test_a_data_set_of_scenes_is_measured_as_it_is(tmp_path):
    made, exported = tmp_path / "data", tmp_path / "exported"
    given = ("scenes:5?seed=3&classes=open24", made, "--proposer", "manual", "--captioner", "rule")
    assert run("annotate", *given).code == 0
    assert run("export", made, exported, "--to", "coco").code == 0
    coco = f"coco:{exported}/annotations/instances_train.json?images={exported}/images/train"
    split = tmp_path / "split.json"
    names = json.loads((exported / "annotations/instances_train.json").read_text())["categories"]
    write_json(split, {"base": [names[0]["name"]], "novel": [one["name"] for one in names[1:]]})
    found = []
    for data in (made, coco):
        flags = ("--head", "none", "--image-size", "64", "--split-classes", split, "--out", tmp_path / "m.json", *CPU)
        outcome = run("detect", "evaluate", "--model", VIT, "--data", data, *flags)
        assert outcome.code == 0, outcome.err
        found.append(json.loads((tmp_path / "m.json").read_text())["metrics"])
    assert found[0] == found[1] and found[0]["num_images"] == 5


def test_found_boxes_are_drawn_and_annotate_makes_regions_of_them(folder, trained, tmp_path):
    images, out = tmp_path / "images", tmp_path / "found"
    images.mkdir()
    for number in (1, 2):
        (images / f"{number}.png").write_bytes((folder / "images" / f"{number}.png").read_bytes())
    (images / "broken.jpg").write_bytes(b"no image")
    names = ("a red thing", "something new")
    flags = ("--names", *names, "--score-threshold", "0.001", "--max-detections", "3", "--device", "cpu")
    outcome = run("detect", "predict", "--model", trained, "--images", images, "--out", out, *flags)
    assert outcome.code == 0, outcome.err
    assert "skipped broken.jpg: cannot be decoded" in outcome.err and "6 boxes in 2 images" in outcome.err
    found = json.loads((out / "detections.json").read_text())
    assert [category["name"] for category in found["categories"]] == list(names)
    assert len(found["annotations"]) == 6 and all(0 < one["score"] <= 1 for one in found["annotations"])
    before, after = (np.asarray(Image.open(path)) for path in (images / "1.png", out / "1.png.png"))
    changed = (before != after).any(axis=2)
    used = {DRAWN[one["category_id"] - 1] for one in found["annotations"] if one["image_id"] == 1}
    assert changed.any() and used & {tuple(pixel) for pixel in after[changed].tolist()}

    made = tmp_path / "data"
    given = f"coco:{out}/detections.json?images={images}"
    outcome = run("annotate", given, made, "--proposer", "manual", "--captioner", "label", "--max-dead", "1")
    assert outcome.code == 0, outcome.err
    exported = tmp_path / "exported"
    assert run("export", made, exported, "--to", "coco").code == 0
    again = json.loads((exported / "annotations/instances_train.json").read_text())
    labels = {category["id"]: category["name"] for category in again["categories"]}
    kept = sorted((labels[one["category_id"]], *(round(x) for x in one["bbox"])) for one in again["annotations"])
    told = sorted((names[one["category_id"] - 1], *(round(x) for x in one["bbox"])) for one in found["annotations"])
    assert kept and set(kept) <= set(told)


def _bad(tmp_path: Path, folder: Path, change) -> str:
    content = json.loads((folder / "boxes.json").read_text())
    change(content)
    write_json(tmp_path / "bad.json", content)
    return f"coco:{tmp_path}/bad.json?images={folder}/images"


def _crowds_only(content: dict) -> None:
    for one in content["annotations"]:
        one["iscrowd"] = 1


def _without_boxes(content: dict) -> None:
    content["annotations"] = []


def _other_classes_only(content: dict) -> None:
    content["annotations"] = [annotation(1, 1, IDS["grey"], [4, 4, 20, 20])]


def _without_images(content: dict) -> None:
    content["images"], content["annotations"] = [], []


def _no_area(content: dict) -> None:
    for one in content["annotations"]:
        one["bbox"][2] = 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_crowds_only, "all 24 boxes are crowds, which no object can be told from, of 12 images: nothing is left to"),
        (_without_boxes, "there is no box in any of 12 images: nothing is left to"),
        (_other_classes_only, "none of 1 boxes is of a class that --split-classes wants of 12 images"),
        (_without_images, "its 'images' are empty"),
        (_no_area, "there is no box in any of 12 images"),
    ],
)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_data_with_nothing_to_learn_or_measure_are_refused(folder, tmp_path, change, said, command):
    data = _bad(tmp_path, folder, change)
    flags = SMALL if command == "train" else ("--head", "none", *CPU)
    out = tmp_path / ("RUN" if command == "train" else "m.json")
    outcome = run("detect", command, "--model", VIT, "--data", data, "--out", out, *_split(folder), *flags)
    assert outcome.code == 2 and said in outcome.err, outcome.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"base": ["red", "cat"], "novel": ["blue"]}, "'cat': no such category in --data coco:"),
        ({"base": ["red"]}, "it has no 'novel': give names of classes for it"),
        ({"base": ["red"], "novel": ["red"]}, "'red' is there twice"),
    ],
)
def test_a_class_list_that_does_not_match_is_refused(folder, tmp_path, content, said):
    write_json(tmp_path / "split.json", content)
    given = ("--data", data_of(folder), "--out", tmp_path / "RUN", "--split-classes", tmp_path / "split.json")
    outcome = run("detect", "train", "--model", VIT, *given, *SMALL)
    assert outcome.code == 2 and said in outcome.err, outcome.err


def test_missing_files_are_named(folder, trained, tmp_path):
    train = ("detect", "train", "--model", VIT, "--out", tmp_path / "RUN", *_split(folder), *SMALL)
    missing = run(*train, "--data", f"coco:{tmp_path}/instances_val2017.json")
    assert missing.code == 2 and "instances_val2017.json" in missing.err
    no_pictures = run(*train, "--data", f"coco:{folder}/boxes.json?images={tmp_path}")
    assert no_pictures.code == 2 and "say where they are by ?images=FOLDER" in no_pictures.err
    no_split = run(*train, "--data", data_of(folder), "--split-classes", tmp_path / "none.json")
    assert no_split.code == 2 and "none.json" in no_split.err and "give ov-coco, scenes" in no_split.err
    evaluate = ("detect", "evaluate", "--data", data_of(folder), "--out", tmp_path / "m.json", *CPU)
    no_run = run(*evaluate, "--model", tmp_path)
    assert no_run.code == 2 and "no detector is there" in no_run.err and "--head none" in no_run.err
    predict = ("detect", "predict", "--model", trained, "--names", "cat", "--out", tmp_path / "found")
    assert "there is no such folder" in run(*predict, "--images", tmp_path / "none").err
    (tmp_path / "empty").mkdir()
    assert "no image is in it" in run(*predict, "--images", tmp_path / "empty").err


def test_images_that_cannot_be_read_are_counted_and_all_of_them_are_an_error(folder, trained, tmp_path):
    (tmp_path / "images").mkdir()
    for path in (folder / "images").iterdir():
        (tmp_path / "images" / path.name).write_bytes(b"" if path.name == "3.png" else path.read_bytes())
    data = f"coco:{folder}/boxes.json?images={tmp_path}/images"
    evaluate = ("detect", "evaluate", "--model", trained, "--out", tmp_path / "m.json", *CPU)
    outcome = run(*evaluate, "--data", data)
    assert outcome.code == 0 and "skipped 3.png: cannot be decoded" in outcome.err
    found = json.loads((tmp_path / "m.json").read_text())
    assert found["metrics"]["num_images"] == 11 and found["skipped"][0]["key"] == "3.png"
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"")
    outcome = run(*evaluate, "--data", data)
    assert outcome.code == 2 and "none of 12 images can be used; the first, 1.png" in outcome.err
    train = ("detect", "train", "--model", VIT, "--data", data, "--out", tmp_path / "RUN", *_split(folder), *SMALL)
    outcome = run(*train)
    assert outcome.code == 1 and "4 of 4 images cannot be used; one of them, " in outcome.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("trian",), "'trian' is none of train, evaluate, predict"),
        (("predict", "--names", "cat", "cat"), "'cat' is given twice"),
        (("predict", "--names", " "), "a name is empty"),
        (("evaluate", "--alpha", "2"), "--alpha 2.0 --beta 0.8: shares from 0 to 1"),
        (("evaluate", "--image-size", "64"), "--image-size: for --head none alone"),
        (("evaluate", "--batch-size", "0"), "--batch-size 0: give 1 or more"),
        (("train", "--tap-scales", "[4,3]"), "--tap-scales [4.0, 3.0]: each of 4, 2, 1 or 0.5"),
        (("train", "--taps", "[1,2]"), "--taps [1, 2]: give 4, one for each of --tap-scales"),
        (("train", "--recipe", "best"), "invalid choice: 'best' (choose from 'f_vit', 'scenes')"),
    ],
)
def test_wrong_usage_is_told(arguments, said):
    needed = {
        "predict": ("--model", "RUN", "--images", "DIR", "--out", "OUT"),
        "evaluate": ("--model", "RUN", "--data", "coco:x.json", "--out", "m.json"),
        "train": ("--model", "RUN", "--data", "coco:x.json", "--out", "OUT"),
    }
    outcome = run("detect", *arguments, *needed.get(arguments[0], ()))
    assert outcome.code == 2 and said in outcome.err.replace("\n", " "), outcome.err


def test_a_tower_without_a_dense_map_is_refused(folder, tmp_path):
    model = add_plain_model(tmp_path)
    given = ("--data", data_of(folder), "--out", tmp_path / "RUN", *_split(folder), *SMALL)
    outcome = run("detect", "train", "--model", model, *given)
    assert outcome.code == 2 and "a vision tower of timm's VisionTransformer" in outcome.err, outcome.err


def test_help_needs_no_torch():
    assert "fineclip detect train --model MODEL" in run("detect").out
    assert set(COLOURS) == set(IDS)


def test_the_message_s_command_works_for_odd_folders_and_folders_in_them(folder, trained, tmp_path):
    """Blanks, quotes, what ends an option of an INPUT, equal names, a picture on its side."""
    images, out = tmp_path / "it's 50% ?&=", tmp_path / "found 'it'"
    (images / "sub a").mkdir(parents=True)
    (images / "1.png").write_bytes((folder / "images" / "1.png").read_bytes())
    (images / "sub a" / "1.png").write_bytes((folder / "images" / "2.png").read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "images" / "2.png").crop((0, 0, 60, 40)).save(images / "line\nend, ü.jpg", exif=exif)
    flags = ("--names", "a red thing", "--score-threshold", "0.001", "--max-detections", "3", "--device", "cpu")
    outcome = run("detect", "predict", "--model", trained, "--images", images, "--out", out, *flags)
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "detections.json").read_text())
    assert [one["file_name"] for one in found["images"]] == ["1.png", "line\nend, ü.jpg", "sub a/1.png"]
    assert all((out / f"{one['file_name']}.png").is_file() for one in found["images"])
    said = shlex.split(outcome.err[outcome.err.index("fineclip annotate") :])
    assert said[3] == "DATA"
    given = (said[2], tmp_path / "data", *said[4:], "--captioner", "label", "--select.min-image-side", "1")
    again = run("annotate", *given, "--max-dead", "0")
    assert again.code == 0, again.err
    assert "3 images: 2 .png, 1 .jpg" in again.err or " 3 (" in again.err, again.err
    assert run("detect", "predict", "--model", trained, "--images", images, "--out", images, *flags).code == 2


def test_nothing_found_says_which_flag_to_change(folder, trained, tmp_path):
    flags = ("--names", "a red thing", "--score-threshold", "1", "--out", tmp_path / "found", "--device", "cpu")
    outcome = run("detect", "predict", "--model", trained, "--images", folder / "images", *flags)
    assert outcome.code == 0, outcome.err
    assert "Nothing reaches --score-threshold 1.0: try less, or other names" in outcome.err
    assert "annotate" not in outcome.err


def test_a_clip_that_a_killed_run_left_is_written_anew(folder, tmp_path):
    out = tmp_path / "RUN"
    (out / "clip").mkdir(parents=True)
    (out / "clip" / "open_clip_config.json").write_text("{")
    (out / "clip.partial").mkdir()
    given = ("--model", VIT, "--data", data_of(folder), "--out", out, *_split(folder), *SMALL)
    assert run("detect", "train", *given, "--stop-after", "1").code == 0
    assert not (out / "clip.partial").exists()
    written = (out / "clip" / "open_clip_model.safetensors").stat().st_mtime_ns
    assert run("detect", "train", *given).code == 0
    assert (out / "clip" / "open_clip_model.safetensors").stat().st_mtime_ns == written
    assert _evaluate(out, folder, tmp_path / "m.json")["metrics"]["num_images"] == 12
