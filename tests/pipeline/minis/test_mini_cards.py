import pytest

from pipeline.minis.cards import card, outside_interval
from pipeline.models.minis import MINIS, MiniError, mini_folder

RECIPE = {
    "scenes_version": "1",
    "steps": 10,
    "batch_size": 4,
    "threads": 1,
    "test_seed": 1,
    "training_seconds": 120.0,
}


def test_a_card_says_which_targets_are_reached():
    figures = {"recall_at_iou_0.5": 0.96, "boxes_per_object": 1.7, "num_scenes": 500}
    text = card("detector", recipe=RECIPE, figures=figures, versions={"libreyolo": "1.6.0"}, repeats={})
    assert "| recall_at_iou_0.5 | 0.96 | >= 0.95: reached |" in text
    assert "| boxes_per_object | 1.7 | <= 1.5: falls short |" in text
    assert "libreyolo 1.6.0" in text and "2 minutes" in text


@pytest.mark.parametrize("name", MINIS)
def test_every_card_warns_of_photographs_and_names_its_licence(name):
    text = card(name, recipe=RECIPE, figures={"num_scenes": 500}, versions={}, repeats={})
    assert text.startswith("---\nlicense: apache-2.0\n---\n")
    assert "finds nothing of use in photographs" in text
    assert ("AGPL" in text) == (name == "detector")


def test_a_card_shows_repeats_beside_the_figures():
    figures = {"colour": 0.99, "num_scenes": 500}
    text = card(
        "captioner", recipe=RECIPE, figures=figures, versions={}, repeats={"1": {"colour": 0.98, "num_scenes": 500}}
    )
    assert "| figure | reached | target | seed 1 |" in text
    assert "| colour | 0.99 | >= 0.98: reached | 0.98 |" in text
    assert "repeated with seed 1" in text and "±0.03" in text


def test_figures_outside_the_interval_are_named():
    shipped = {"colour": 0.9, "colour_held_out": 0.7, "num_scenes": 500}
    assert outside_interval(shipped, {"colour": 0.92, "colour_held_out": 0.61, "num_scenes": 30}) == []
    assert outside_interval(shipped, {"colour": 0.86, "colour_held_out": 0.59, "num_scenes": 500}) == [
        "colour",
        "colour_held_out",
    ]


def test_an_unknown_mini_is_refused_by_name():
    with pytest.raises(MiniError, match="'sam'; there are detector, captioner, clip"):
        mini_folder("sam")
