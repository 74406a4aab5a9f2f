"""Benchmarks by command, as a user gives it, on files that the tests make."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch

import fineclip
from schemas.class_sentences import VILD, sentences
from tests.trainer.evaluate.coco_files import CATEGORIES, write_coco, write_fgovd, write_lists
from tests.trainer.towers import VIT, add_plain_model, random_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmarks")
    write_coco(path)
    write_fgovd(path)
    write_lists(path)
    return path


def evaluate(out: Path, model: str, data: str, *flags: str, code: int = 0) -> dict:
    arguments = ["evaluate", model, "--data", data, "--out", str(out), "--workers", "0", "--device", "cpu"]
    assert fineclip.main([*arguments, "--resamples", "50", *flags]) == code
    return json.loads(out.read_text()) if code == 0 else {}


SMALL = ("--image-size", "32", "--templates", "short")


def test_panoptic_by_box_crop_and_mask(folder, tmp_path, capsys):
    data = f"coco:{folder}/panoptic.json?images={folder}/val2017"
    flags = ("--task", "regions", "--region-feature", "roi", "crop", "mask", "--scores", str(tmp_path / "rows.parquet"))
    found = evaluate(tmp_path / "m.json", VIT, data, *flags, *SMALL)
    for name in ("regions", "regions:crop", "regions:mask"):
        assert (found[name]["num_regions"], found[name]["num_things"], found[name]["num_stuffs"]) == (7, 4, 3)
        low, high = found["intervals"][name]["region_accuracy@1"]
        assert low <= found[name]["region_accuracy@1"] <= high
    assert found["regions"]["region_chance@1"] == 1 / 3
    assert found["command"].startswith(f"fineclip evaluate {VIT} --data")
    table = (tmp_path / "m.md").read_text()
    assert found["command"] in table and "## regions:mask" in table and "| thing_accuracy@1 |" in table
    told = capsys.readouterr().err
    assert "embedded 4 of 4 images in" in told and "measuring regions, task 1 of 1" in told
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    mine = [r["score"] for r in rows if (r["task"], r["metric"]) == ("regions:crop", "region_accuracy@1")]
    assert np.mean(mine) == pytest.approx(found["regions:crop"]["region_accuracy@1"])


def test_captions_longer_than_the_text_tower_takes_are_counted(folder, tmp_path, capsys):
    """The tower takes 16 tokens, two of them marks."""
    lines = (folder / "results.token").read_text().splitlines()
    name, _, _ = lines[0].partition("\t")
    tokens = tmp_path / "results.token"
    tokens.write_text("\n".join([f"{name}\t{'cat ' * 15}", *lines[1:]]) + "\n")
    data = f"captions:{tokens}?images={folder}/val2017"
    found = evaluate(tmp_path / "m.json", VIT, data, "--task", "retrieval", *SMALL)
    assert (found["num_cut_captions"], found["num_captions"]) == (1, 6)
    assert "1 of 6 captions have more tokens than the text tower takes, and are cut" in capsys.readouterr().err
    assert "Cut: 1 of 6 captions" in (tmp_path / "m.md").read_text()


@pytest.mark.parametrize(
    ("task", "data", "name", "count"),
    [
        ("regions", "coco:{0}/instances.json?images={0}/val2017", "num_regions", 4),
        ("regions", "coco:{0}/lvis.json?images={0}", "num_regions", 4),
        ("retrieval", "coco:{0}/captions.json?images={0}/val2017", "num_texts", 6),
        ("retrieval", "coco:{0}/instances.json?images={0}/val2017&captions={0}/captions.json", "num_images", 3),
        ("retrieval", "karpathy:{0}/dataset_coco.json", "num_texts", 5),
        ("retrieval", "captions:{0}/results.token?images={0}/val2017", "num_texts", 6),
        ("attributes", "fgovd:{0}/hard.json?images={0}/val2017", "num_wrong_captions", 5),
        ("attributes", "fgovd:{0}/hard.jsonl?images={0}", "num_attribute_regions", 3),
    ],
)
def test_every_kind_of_data_by_command(folder, tmp_path, task, data, name, count):
    found = evaluate(tmp_path / "m.json", VIT, data.format(folder), "--task", task, *SMALL)
    assert found[task][name] == count
    assert found["num_skipped_images"] == 0


def test_the_command_from_a_shell_on_crowds(folder, tmp_path):
    data = f"coco:{folder}/instances.json?images={folder}/val2017"
    code = "import sys; from tests.trainer.towers import add_tiny_models; from pathlib import Path; import fineclip;"
    code += f"add_tiny_models(Path({str(tmp_path)!r})); sys.exit(fineclip.main(sys.argv[1:]))"
    flags = ["--task", "regions", "--data", data, "--out", str(tmp_path / "m.json"), "--workers", "2", "--crowds"]
    command = [sys.executable, "-c", code, "evaluate", VIT, *flags, *SMALL]
    found_here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    ran = subprocess.run(command, capture_output=True, text=True, env=found_here)
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "m.json").read_text())
    assert (found["regions"]["num_regions"], found["left_out"]) == (5, {"box without area": 1})


def test_a_tower_without_a_value_path_has_crops_alone(folder, tmp_path, capsys):
    model = add_plain_model(tmp_path)
    data = f"coco:{folder}/panoptic.json?images={folder}/val2017"
    flags = ("--task", "regions", "retrieval", "--templates", "short", "--region-feature")
    data += f"&captions={folder}/captions.json"
    found = evaluate(tmp_path / "m.json", model, data, *flags, "roi", "crop")
    assert found["regions"] is None
    assert found["regions:crop"]["num_regions"] == 7
    assert found["retrieval"]["num_texts"] == 6
    assert "| all | – |" in (tmp_path / "m.md").read_text()
    capsys.readouterr()
    evaluate(tmp_path / "m.json", model, data, *flags, "roi", code=2)
    assert "no dense map: take --region-feature crop" in " ".join(capsys.readouterr().err.split())
    evaluate(tmp_path / "m.json", model, data, *flags, "crop", "--image-size", "64", code=2)
    assert "--image-size 64" in capsys.readouterr().err


def test_class_features_of_a_file_are_those_used(folder, tmp_path, capsys):
    data = f"coco:{folder}/panoptic.json?images={folder}/val2017"
    model = open_clip.create_model(VIT)
    random_weights(model)  # the same in every run, and large enough that the order of the classes shows
    tokenize = open_clip.get_tokenizer(VIT)
    open_clip_weights = tmp_path / "weights.pt"
    torch.save(model.state_dict(), open_clip_weights)
    rows = []
    with torch.no_grad():
        for category in sorted(CATEGORIES, key=lambda category: category["id"]):
            features = model.encode_text(tokenize(sentences(VILD, category["name"])), normalize=True)
            rows.append(torch.nn.functional.normalize(features.mean(dim=0), dim=0).numpy())
    np.save(tmp_path / "classes.npy", np.stack(rows))
    name, size = f"{VIT}:{open_clip_weights}", ("--task", "regions", "--image-size", "32")
    ours = evaluate(tmp_path / "a.json", name, data, *size)
    theirs = evaluate(tmp_path / "b.json", name, data, *size, "--class-features", str(tmp_path / "classes.npy"))
    assert ours["regions"] == theirs["regions"]
    assert ours["settings"]["templates"] == "vild"
    np.save(tmp_path / "others.npy", np.stack(rows)[[1, 2, 0]])
    others = evaluate(tmp_path / "c.json", name, data, *size, "--class-features", str(tmp_path / "others.npy"))
    assert others["regions"] != ours["regions"]
    np.save(tmp_path / "few.npy", np.stack(rows)[:2])
    capsys.readouterr()
    evaluate(tmp_path / "d.json", name, data, *size, "--class-features", str(tmp_path / "few.npy"), code=2)
    assert "2 x 8 numbers, where there are 3 classes" in capsys.readouterr().err


def test_a_fixed_list_of_classes(folder, tmp_path, capsys):
    data = f"coco:{folder}/panoptic.json?images={folder}/val2017"
    (tmp_path / "classes.txt").write_text("cat\ngrass-merged\tgrass\nhouse\nsky\n")
    flags = ("--task", "regions", "--classes", str(tmp_path / "classes.txt"), *SMALL)
    found = evaluate(tmp_path / "m.json", VIT, data, *flags)
    assert (found["regions"]["num_classes"], found["regions"]["num_regions"]) == (4, 5)
    assert found["left_out"]["label that is none of --classes"] == 2
    (tmp_path / "classes.txt").write_text("cat\ncat\n")
    evaluate(tmp_path / "m.json", VIT, data, *flags, code=2)
    assert "'cat' is there twice" in capsys.readouterr().err


def test_images_that_are_not_there_are_counted_and_named(folder, tmp_path, capsys):
    content = json.loads((folder / "instances.json").read_text())
    content["images"][1]["file_name"] = "gone.jpg"
    (tmp_path / "some.json").write_text(json.dumps(content))
    data = f"coco:{tmp_path}/some.json?images={folder}/val2017"
    found = evaluate(tmp_path / "m.json", VIT, data, "--task", "regions", *SMALL)
    assert (found["num_skipped_images"], found["regions"]["num_regions"]) == (1, 3)
    assert "1 of 4 images were skipped" in capsys.readouterr().err
    assert "gone.jpg: cannot be read" in (tmp_path / "m.md").read_text()


def test_masks_that_nothing_has_are_refused(folder, tmp_path, capsys):
    data = f"fgovd:{folder}/hard.jsonl?images={folder}"
    evaluate(tmp_path / "m.json", VIT, data, "--task", "attributes", "--region-feature", "mask", *SMALL, code=2)
    assert "--region-feature mask: no region of" in " ".join(capsys.readouterr().err.split())


def test_a_task_that_the_data_cannot_answer_is_named(folder, tmp_path, capsys):
    data = f"fgovd:{folder}/hard.jsonl?images={folder}"
    evaluate(tmp_path / "m.json", VIT, data, "--task", "attributes", "zeroshot", *SMALL, code=2)
    assert "--task zeroshot: " in " ".join(capsys.readouterr().err.split())


def test_the_tables_are_not_written_over_the_figures(tmp_path, capsys):
    with pytest.raises(SystemExit):
        fineclip.main(["evaluate", VIT, "--task", "regions", "--data", "d", "--out", str(tmp_path / "m.md")])
    assert "name a JSON file" in capsys.readouterr().err


def test_vild_s_sentences():
    assert len(VILD) == len(set(VILD)) == 63
    spoken = sentences(VILD, "fire_hydrant/apple")
    assert spoken[0] == "There is a fire hydrant or apple in the scene."
    assert "This is a photo of a fire hydrant or apple." in spoken
    assert "itap of an apple." in sentences(VILD, "apple")
    assert all(text.startswith(("This is ", "There is ", "itap of ")) for text in spoken)
