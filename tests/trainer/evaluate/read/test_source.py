"""Data by kind: captions for retrieval, FG-OVD's questions, and what is wrong with a name."""

import json
from pathlib import Path

import pytest

from tests.trainer.evaluate.coco_files import CAPTIONS, write_coco, write_fgovd, write_lists
from trainer.errors import TrainingError
from trainer.evaluate.read.source import Wanted, default_templates, open_truth
from trainer.evaluate.settings import TruthSettings
from trainer.evaluate.truth import Truth


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    write_coco(path)
    write_fgovd(path)
    write_lists(path)
    return path


def truth_of(data: str) -> Truth:
    return open_truth(data, split="train", settings=TruthSettings(), wanted=Wanted(wrong=True))


@pytest.mark.parametrize("name", ["list.json", "results.token"])
def test_lists_of_captions(folder, name):
    truth = truth_of(f"captions:{folder}/{name}?images={folder}/val2017")
    assert list(truth.captions) == [caption for captions in CAPTIONS.values() for caption in captions]
    assert truth.caption_start.tolist() == [0, 2, 5, 6]
    assert truth.images.read(0)[:2] == b"\xff\xd8"


def test_a_split_of_karpathy_s(folder):
    truth = truth_of(f"karpathy:{folder}/dataset_coco.json")
    assert truth.caption_start.tolist() == [0, 2, 5]
    assert len(truth_of(f"karpathy:{folder}/dataset_coco.json?split=train").images) == 1
    with pytest.raises(TrainingError, match="no image is of the split 'val'"):
        truth_of(f"karpathy:{folder}/dataset_coco.json?split=val")


@pytest.mark.parametrize("name", ["hard.json", "hard.jsonl"])
def test_fgovd_in_its_own_format_and_fg_clip_s(folder, name):
    images = folder / "val2017" if name == "hard.json" else folder
    truth = truth_of(f"fgovd:{folder}/{name}?images={images}")
    assert truth.boxes.tolist() == [[4, 6, 24, 16], [30, 20, 42, 36], [5, 30, 35, 55]]
    assert list(truth.region_captions) == ["a red cat", "a yellow light", "a red cat"]
    assert truth.alternatives.start.tolist() == [0, 2, 3, 5]
    assert list(truth.alternatives.captions[:3]) == ["a blue cat", "a green cat", "a pink light"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("cocoo:a.json", "no such kind of data: cocoo; there are coco, karpathy, captions, fgovd, and folders"),
        ("coco:" + "a" * 300 + ".json", "File name too long"),
        ("coco:a.json?image=b", "'image=b' is none of its options once: images, captions, segments"),
        ("captions:{}/instances.json", "is not FILE#NUMBER, a tab"),
        ("karpathy:{}/captions.json", "not one of Karpathy's files"),
        ("fgovd:{}/captions.json", "not FG-OVD's JSON"),
        ("fgovd:{}/gone.json", "No such file"),
    ],
)
def test_what_is_wrong_is_told(folder, data, message):
    with pytest.raises(TrainingError, match=message):
        truth_of(data.format(folder))


def test_coco_is_measured_with_vild_s_sentences():
    assert (default_templates("coco:a.json"), default_templates("some/folder")) == ("vild", "short")


def test_captions_without_a_word_are_counted_and_not_asked_about(folder, tmp_path):
    images = [{"filename": "a.jpg", "split": "test", "sentences": [{"raw": " "}, {"raw": " a cat"}]}]
    (tmp_path / "k.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"images": images}).encode())
    (tmp_path / "a.jpg").write_bytes(b"")
    truth = truth_of(f"karpathy:{tmp_path}/k.json")
    assert list(truth.captions) == ["a cat"] and truth.left_out == {"caption that is no text": 1}


def test_captions_hold_ends_of_lines_that_are_none_here(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "r.token").write_text("a.jpg#0\ta\u2028cat\r\na.jpg#1\ta\x85dog\n", encoding="utf-8", newline="")
    assert list(truth_of(f"captions:{tmp_path}/r.token").captions) == ["a\u2028cat", "a\x85dog"]


def test_a_box_without_wrong_captions_is_no_question(folder, tmp_path):
    content = json.loads((folder / "hard.json").read_text())
    content["annotations"][0]["neg_category_ids"] = []
    content["annotations"][1]["neg_category_ids"].append(content["annotations"][1]["category_id"])
    (tmp_path / "odd.json").write_text(json.dumps(content))
    truth = truth_of(f"fgovd:{tmp_path}/odd.json?images={folder}/val2017")
    assert truth.num_regions == 1
    ((why, count),) = truth.left_out.items()
    assert count == 2 and "no wrong captions, or the right one among them" in why


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        ("captions", "a.json", [{"image": 5, "caption": ["a cat"]}]),
        ("captions", "a.json", [{"image": "a.jpg", "caption": [None]}]),
        ("fgovd", "a.jsonl", {"img_path": 5, "bbox": [1, 1, 2, 2], "pos_expression": "a", "neg_expression": ["b"]}),
        ("fgovd", "a.json", {"images": [{"id": 1, "file_name": 7}], "categories": [{"id": 1, "name": "a"}],
                             "annotations": [{"image_id": 1, "bbox": [1, 1, 2, 2], "category_id": 1,
                                              "neg_category_ids": []}]}),
    ],
)  # fmt: skip
def test_entries_of_the_wrong_kind_are_an_error_that_names_the_file(tmp_path, kind, name, content):
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(TrainingError, match=f"{name}: not "):
        truth_of(f"{kind}:{tmp_path}/{name}")


def test_files_of_one_name_in_two_folders_are_two_images(tmp_path):
    entries = [{"image": f"{folder}/1.jpg", "caption": "a cat"} for folder in ("a", "b")]
    for entry in entries:
        (tmp_path / entry["image"]).parent.mkdir()
        (tmp_path / entry["image"]).write_bytes(b"")
    (tmp_path / "list.json").write_text(json.dumps(entries))
    images = truth_of(f"captions:{tmp_path}/list.json").images
    assert [images.key(image) for image in range(len(images))] == ["a/1.jpg", "b/1.jpg"]
