"""`yolo`, `crops`, `hf` and `grounding`, each read by whatever real reader is installed."""

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from PIL import Image

from pipeline.caption.crop import window
from pipeline.propose.ultralytics import import_ultralytics
from schemas.dataset import Dataset, Sample
from tests.pipeline.export.conftest import Export

WEBDATASET = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")


def stored(data: str, split: str) -> dict[str, Sample]:
    dataset = Dataset.open(data)
    shards = [shard for shard in dataset.shards if shard.split == split]
    return {sample.key: sample for shard in shards for sample in dataset.samples(shard)}


def test_yolo_s_labels_are_the_boxes_to_a_sixteenth(data: str, export: Export, tmp_path: Path) -> None:
    assert export("yolo").code == 0
    out = tmp_path / "out"
    config = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))
    assert config == {"train": "images/train", "val": "images/val", "names": {0: "region", 1: "shape"}}
    for split in ("train", "val"):
        for key, sample in stored(data, split).items():
            assert (out / config[split] / f"{key}.{sample.suffix}").read_bytes() == sample.image
            lines = (out / "labels" / split / f"{key}.txt").read_text().splitlines()
            assert len(lines) == sample.record.num_regions
            for line, region in zip(lines, sample.record.regions, strict=True):
                number, *shares = line.split()
                assert config["names"][int(number)] == (region.label or "region")
                x, y, w, h = map(float, shares)
                wide, high = sample.record.width, sample.record.height
                box = ((x - w / 2) * wide, (y - h / 2) * high, (x + w / 2) * wide, (y + h / 2) * high)
                assert tuple(round(corner * 16) / 16 for corner in box) == region.box


def test_yolo_is_accepted_by_ultralytics_own_check(export: Export, tmp_path: Path) -> None:
    import_ultralytics()  # or its import would replace `PIL.Image.open` for the tests after this one
    ultralytics = pytest.importorskip("ultralytics.data.utils")
    assert export("yolo").code == 0
    checked = ultralytics.check_det_dataset(str(tmp_path / "out" / "data.yaml"), autodownload=False)
    assert checked["nc"] == 2
    for split, shapes in (("train", 4), ("val", 1)):
        folder = Path(checked[split])
        images = sorted(folder.iterdir())
        assert len(images) == shapes
        for image, label in zip(images, ultralytics.img2label_paths([str(path) for path in images]), strict=True):
            found = ultralytics.verify_image_label((str(image), label, "", False, 2, 0, 0, False))
            assert found[0] is not None, found
            assert found[-1] == "", found


@WEBDATASET
def test_crops_are_samples_to_webdataset(data: str, export: Export, tmp_path: Path) -> None:
    import webdataset

    assert export("crops").code == 0
    out = tmp_path / "out"
    sizes = json.loads((out / "sizes.json").read_text())
    assert sizes == {"train-000000.tar": 4, "train-000001.tar": 3, "val-000000.tar": 1}
    urls = [str(out / name) for name in ("train-000000.tar", "train-000001.tar")]
    seen = list(webdataset.WebDataset(urls, shardshuffle=False))
    wanted = [(sample, region) for sample in stored(data, "train").values() for region in sample.record.regions]
    assert [sample["__key__"] for sample in seen] == [f"{s.key}-{r.id}" for s, r in wanted]
    assert [sample["txt"].decode() for sample in seen] == [region.caption for _, region in wanted]
    for found, (sample, region) in zip(seen, wanted, strict=True):
        facts = json.loads(found["json"])
        assert (facts["key"], facts["region_id"], tuple(facts["box"])) == (sample.key, region.id, region.box)
        x0, y0, x1, y1 = window(region.box, width=sample.record.width, height=sample.record.height)
        crop = Image.open(io.BytesIO(found["jpg"]))
        assert crop.size == (x1 - x0, y1 - y0)


@WEBDATASET
def test_crops_are_read_by_open_clip_s_training_loader(export: Export, tmp_path: Path) -> None:
    loader = pytest.importorskip("open_clip_train.data")
    torch = pytest.importorskip("torch")
    assert export("crops").code == 0
    out = tmp_path / "out"
    shards = str(out / "train-{000000..000001}.tar")
    assert loader.get_dataset_size(shards) == (7, 2)
    options = SimpleNamespace(
        train_data=shards,
        val_data=shards,
        train_num_samples=None,
        val_num_samples=7,
        dataset_resampled=False,
        train_data_upsampling_factors=None,
        batch_size=2,
        workers=0,
        world_size=1,
        seed=0,
    )

    def pixels(image: Image.Image) -> Any:
        return torch.zeros(3)

    found = loader.get_wds_dataset(options, pixels, is_train=False, tokenizer=lambda text: [text])
    texts = [text for _, batch in found.dataloader for text in batch]
    assert len(texts) == 7
    assert {"a shape 0", "naïve 日本", "d shape 2"} <= set(texts)


def test_a_crop_can_have_more_of_its_surroundings(data: str, export: Export, tmp_path: Path) -> None:
    assert export("crops").code == 0
    assert export("crops", "--crop-scale", "1.5", out="wide").code == 0
    narrow, wide = ((tmp_path / name / "val-000000.tar").read_bytes() for name in ("out", "wide"))
    (e,) = stored(data, "val").values()
    for tar, scale in ((narrow, 1.0), (wide, 1.5)):
        x0, y0, x1, y1 = window(e.record.regions[0].box, width=48, height=32, scale=scale)
        assert Image.open(io.BytesIO(tar[512:])).size == (x1 - x0, y1 - y0)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_hf_is_loaded_by_datasets(streaming: bool, data: str, export: Export, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    assert export("hf").code == 0
    loaded = datasets.load_dataset(str(tmp_path / "out"), streaming=streaming, cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "validation"}
    for split, ours in (("train", "train"), ("validation", "val")):
        samples = stored(data, ours)
        rows = list(loaded[split])
        assert [row["image_id"] for row in rows] == list(samples)
        for row in rows:
            record = samples[row["image_id"]].record
            assert row["image"].size == (record.width, record.height) == (row["width"], row["height"])
            assert (row["caption"], row["captions"]) == (record.image_caption, record.image_captions)
            objects = row["objects"]
            assert objects["id"] == [region.id for region in record.regions]
            assert objects["caption"] == [region.caption for region in record.regions]
            assert objects["label"] == [region.label for region in record.regions]
            corners = [(x, y, x + w, y + h) for x, y, w, h in objects["bbox"]]
            assert corners == [region.box for region in record.regions]


def test_grounding_says_each_box_in_the_text(data: str, export: Export, tmp_path: Path) -> None:
    outcome = export("grounding")
    assert "left out: 1 images without regions" in outcome.out
    lines = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    samples = stored(data, "train")
    assert [line["id"] for line in lines] == ["a", "b", "d"]
    for line in lines:
        record = samples[line["id"]].record
        assert (tmp_path / "out" / line["image"]).read_bytes() == samples[line["id"]].image
        assert [tuple(box) for box in line["objects"]["bbox"]] == [region.box for region in record.regions]
        question, answer = (turn["value"] for turn in line["conversations"])
        assert question.startswith("<image>\n")
        mark = r"<\|object_ref_start\|>(.*?)<\|object_ref_end\|>"
        mark += r"<\|box_start\|>\((\d+),(\d+)\),\((\d+),(\d+)\)<\|box_end\|>"
        said = re.findall(mark, answer)
        assert [caption for caption, *_ in said] == [region.caption for region in record.regions]
        for (_, *numbers), region in zip(said, record.regions, strict=True):
            sides = (record.width, record.height) * 2
            for number, corner, side in zip(numbers, region.box, sides, strict=True):
                assert abs(int(number) / 1000 - corner / side) <= 0.00051


@pytest.mark.parametrize(
    ("style", "answer"),
    [
        ("florence", "e shape 0<loc_0><loc_62><loc_218><loc_626>"),
        ("llava", "e shape 0 [0.000, 0.062, 0.219, 0.627]"),
    ],
)
def test_grounding_has_other_models_ways_of_saying_a_box(
    style: str, answer: str, export: Export, tmp_path: Path
) -> None:
    assert export("grounding", "--box-style", style).code == 0
    (line,) = map(json.loads, (tmp_path / "out" / "val.jsonl").read_text().splitlines())
    assert line["conversations"][1]["value"] == answer
