"""`fineclip score`: the options that every reader of a data set takes."""

import json
from pathlib import Path

import pytest

from schemas.dataset import Dataset
from tests.builders import Outcome, annotate, run, write_photos


def figure(outcome: Outcome, name: str) -> float:
    assert outcome.code == 0, outcome
    line = next(line for line in outcome.out.splitlines() if line.startswith(name))
    return float(line.split()[-1])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes with their true boxes."""
    output = tmp_path_factory.mktemp("scenes") / "out"
    annotate("scenes:3?split=test&seed=3", output)
    return output


def test_a_filter_list_takes_images_and_boxes_out_of_the_figures(scenes: Path, tmp_path: Path) -> None:
    first, second, _ = Dataset.open(scenes).samples("train-000000")
    rows = [(first.key, None)] + [(second.key, region.id) for region in second.record.regions]
    marks = tmp_path / "marks.jsonl"
    marks.write_text("".join(json.dumps({"key": k, "region_id": r, "keep": False}) + "\n" for k, r in rows))
    whole, less = run("score", scenes), run("score", scenes, "--filter", marks)
    assert (figure(whole, "scenes"), figure(whole, "recall")) == (3, 1)
    assert figure(less, "scenes") == 2 and 0 < figure(less, "recall") < 1


def test_what_cannot_be_scored_is_wrong_usage(scenes: Path, tmp_path: Path) -> None:
    assert "there is no overlay 'nothing', and no other" in run("score", scenes, "--overlay", "nothing").err
    annotate(write_photos(tmp_path / "photos", 1), tmp_path / "out")
    outcome = run("score", tmp_path / "out")
    assert outcome.code == 2 and "names no scene" in outcome.err
    assert run("score").code == 2


def test_figures_are_written_for_programs(scenes: Path, tmp_path: Path) -> None:
    assert run("score", scenes, "--out", tmp_path / "figures.json").code == 0
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["num_scenes"] == 3
    boxes = written["boxes"]
    assert boxes["recall"] == boxes["recall@10"] == 1 >= boxes["recall@4"]
    num_objects = sum(len(sample.record.regions) for sample in Dataset.open(scenes).samples("train-000000"))
    assert boxes["boxes_per_image"] == num_objects / 3
