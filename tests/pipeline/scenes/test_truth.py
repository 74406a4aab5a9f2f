"""`fineclip truth`: the captions of scenes as they were drawn."""

import json
from pathlib import Path

from pipeline.scenes.score import scene_of_key
from pipeline.scenes.words import parse_region_caption
from schemas.dataset import Dataset
from tests.builders import annotate, run, write_photos


def test_regions_get_the_captions_of_their_objects(tmp_path: Path) -> None:
    annotate("scenes:5?seed=3", tmp_path / "out")
    outcome = run("truth", tmp_path / "out")
    assert outcome.code == 0, outcome
    seen = Dataset.open(tmp_path / "out", overlays=["truth"])
    for sample in seen.samples("train-000000"):
        scene = scene_of_key(sample.key)
        said = [region.caption for region in sample.record.regions]
        assert sorted(said) == sorted(scene.captions)
        assert all(parse_region_caption(caption) for caption in said)
    words = json.loads((tmp_path / "out/_overlays/truth/words.json").read_text())
    assert words["words"]["shape"][0] == "circle" and "a {size} {colour} {texture} {shape}" in words["sentences"]
    before = (tmp_path / "out/train-000000.truth.parquet").stat().st_mtime_ns
    assert run("truth", tmp_path / "out").code == 0
    assert (tmp_path / "out/train-000000.truth.parquet").stat().st_mtime_ns == before


def test_boxes_without_an_object_are_filtered_and_counted(tmp_path: Path) -> None:
    proposed = ("--proposer", "selective_search", "--captioner", "rule", "--select.max-regions", "8")
    assert run("annotate", "scenes:4?seed=3", tmp_path / "out", *proposed).code == 0
    outcome = run("truth", tmp_path / "out")
    assert outcome.code == 0 and "regions filtered: excluded" in outcome.out
    regions = Dataset.open(tmp_path / "out", overlays=["truth"]).regions(["region_id", "status", "reason", "caption"])
    rows = [row for row in regions.to_pylist() if row["region_id"] and row["reason"] in (None, "excluded")]
    assert {row["status"] for row in rows} == {"ok", "filtered"}
    assert all((row["caption"] is None) == (row["status"] == "filtered") for row in rows)


def test_pictures_that_are_no_scenes_have_no_truth(tmp_path: Path) -> None:
    annotate(write_photos(tmp_path / "photos", 1), tmp_path / "out")
    outcome = run("truth", tmp_path / "out")
    assert outcome.code == 2 and "names no scene" in outcome.err
