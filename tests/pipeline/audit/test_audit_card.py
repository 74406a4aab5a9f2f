"""The command `card`: numbers that are those of the rows, licences of all models, and text that stays text."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pipeline.audit.census import Distribution, take_census
from schemas.dataset import Dataset
from tests.builders import annotate, image_rows, run, write_tars
from tests.shards import tiny_sample, write_shard


@pytest.fixture
def data(tmp_path: Path) -> Path:
    annotate(write_tars(tmp_path / "tars", num_tars=2, num_images=3), tmp_path / "data")
    return tmp_path / "data"


def written(data: Path, *flags: str) -> str:
    outcome = run("card", data, *flags)
    assert outcome.code == 0, outcome
    return (data / "README.md").read_text()


def test_the_card_says_what_was_counted(data: Path) -> None:
    text = written(data)
    front = yaml.safe_load(text.split("---")[1])
    assert front["size_categories"] == ["n<1K"] and front["configs"]
    assert "6 images, 12 regions" in text
    assert "1 labels; the most frequent: cat 12." in text
    assert "| regions per image | 2 | 2 | 2 | 2 | 2 |" in text
    assert "fineclip-regions | Apache-2.0" in text
    assert "100% of the images whose records were looked at state no licence." in text
    with Image.open(data / "_card/example.jpg") as picture:
        assert picture.size == (960, 320), "the three images of the first shard"
    assert "![Images with numbered boxes](_card/example.jpg)" in text


def test_the_same_data_give_the_same_card_and_annotate_still_goes_on(data: Path, tmp_path: Path) -> None:
    first = written(data)
    assert written(data) == first
    annotate(tmp_path / "tars", data)
    assert "## Numbers" not in (data / "README.md").read_text()


def test_the_picture_of_a_card_is_no_input(data: Path, tmp_path: Path) -> None:
    written(data)
    annotate(data, tmp_path / "again")
    assert set(image_rows(tmp_path / "again")) == set(image_rows(data))


def test_filters_overlays_and_an_audit_are_told(data: Path, tmp_path: Path) -> None:
    assert run("score-regions", data, "--model", "mini", "--as", "fit").code == 0
    assert run("audit", data, tmp_path / "out", "--overlay", "fit", "--threshold", "min_side=35").code == 0
    text = written(data, "--audit", str(tmp_path / "out"), "--filter", str(tmp_path / "out/filter.parquet"))
    assert "| Shorter side, pixels | side at least 35 |" in text
    assert "As filter list `filter.parquet` shows it." in text
    assert "| score-regions | weights | mini | Apache-2.0 |" in written(data, "--overlay", "fit")
    assert run("card", data, "--audit", tmp_path).code == 2


def test_captions_cannot_write_markdown(tmp_path: Path) -> None:
    sample = tiny_sample("a", num_regions=1)
    region = sample.record.regions[0]
    fields = {name: getattr(region, name) for name in region.__struct_fields__}
    hostile = "# big [link](javascript:x)\n<script>"
    sample.record.regions[0] = type(region)(**fields | {"caption": hostile, "label": "`x`|y"})
    write_shard(str(tmp_path), [sample])
    outcome = run("card", tmp_path)
    assert outcome.code == 2 and "the same annotate writes it" in outcome.err
    counts = {"inputs": 1, "ok": 1, "filtered": {}, "dead": {}}
    dataset = {"schema_version": "1", "shards": ["train-000000"], "images": counts, "regions": counts, "complete": True}
    names = {"proposer": {"name": "p"}, "captioner": {"name": "c"}}
    dataset |= {"inputs": [], "provenance": [], "configuration": names}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    text = written(tmp_path)
    assert "<script>" not in text and "[link](" not in text and "\n# big" not in text


def test_data_without_a_caption_or_a_region_have_a_card(tmp_path: Path) -> None:
    write_shard(str(tmp_path), [tiny_sample("a", num_regions=0)])
    census = take_census(Dataset.open(tmp_path))
    assert (census.images, census.regions, census.captioned) == (1, 0, 0)
    assert census.words.quantiles() is None


def test_quantiles_are_of_the_counts() -> None:
    found = Distribution()
    found.counts.update([1] * 90 + [7] * 9 + [100])
    assert found.quantiles() == [1, 1, 1, 1, 7]
