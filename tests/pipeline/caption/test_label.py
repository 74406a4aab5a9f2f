import numpy as np
import pytest

from pipeline.caption.label import Label, LabelConfig
from pipeline.sample import Caption, Crop, Drop
from pipeline.scenes.words import SHAPES
from schemas.dataset import Dataset
from schemas.reasons import Reason
from tests.builders import run, write_tars


def _crop(label: str | None) -> Crop:
    pixels = np.zeros((4, 4, 3), np.uint8)
    return Crop(region_id="r", pixels=pixels, box=(0, 0, 4, 4), image_width=8, image_height=8, label=label)


def test_a_label_is_the_caption_and_a_region_without_one_is_dropped_with_the_reason():
    found = Label(LabelConfig()).caption([_crop("red bicycle"), _crop(None), _crop("")], [None] * 3)
    assert found[0] == Caption(text="red bicycle", score=None)
    for drop in found[1:]:
        assert isinstance(drop, Drop)
        assert drop.reason is Reason.EMPTY_CAPTION
        assert "no label" in drop.message


@pytest.mark.parametrize("proposer", ["rpn", "sam", "fastsam", "selective_search"])
def test_a_proposer_without_labels_is_refused_before_any_work(tmp_path, proposer):
    source = write_tars(tmp_path / "in", num_tars=1, num_images=1)
    outcome = run("annotate", source, tmp_path / "out", "--proposer", proposer, "--captioner", "label")
    assert outcome.code == 2
    assert f"--captioner label says the label of a region, and --proposer {proposer} gives none" in outcome.err
    assert not (tmp_path / "out").exists()


def test_labels_of_the_source_become_captions(tmp_path):
    outcome = run("annotate", "scenes:2", tmp_path / "out", "--proposer", "manual", "--captioner", "label")
    assert outcome.code == 0, outcome
    samples = Dataset.open(tmp_path / "out").samples("train-000000")
    regions = [region for sample in samples for region in sample.record.regions]
    assert regions
    assert {region.caption for region in regions} <= {*SHAPES}
    assert all(region.caption == region.label for region in regions)
