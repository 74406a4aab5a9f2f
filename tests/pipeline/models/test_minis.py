"""The shipped checkpoints: they load, they reach their figures on a few scenes, they fit their budget."""

import json

import pytest

from pipeline.minis.cards import outside_interval
from pipeline.models.minis import CARD, FIGURES, MINIS, RECIPE, REPEATS, mini_folder
from pipeline.scenes.layout import VERSION

pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("name", MINIS)
def test_a_mini_belongs_to_this_version_of_the_generator(name):
    assert json.loads((mini_folder(name) / RECIPE).read_text())["scenes_version"] == VERSION


@pytest.mark.parametrize("name", MINIS)
def test_the_card_states_the_measured_figures(name):
    text = (mini_folder(name) / CARD).read_text()
    for figure, value in json.loads((mini_folder(name) / FIGURES).read_text()).items():
        assert f"| {figure} | {value:g} |" in text


@pytest.mark.parametrize("name", MINIS)
def test_repeats_of_the_recipe_lie_within_the_stated_interval(name):
    shipped, repeats = (json.loads((mini_folder(name) / file).read_text()) for file in (FIGURES, REPEATS))
    assert repeats
    for figures in repeats.values():
        assert figures != shipped
        assert outside_interval(shipped, figures) == []


def test_all_minis_together_stay_below_20_mb():
    assert sum(file.stat().st_size for name in MINIS for file in mini_folder(name).rglob("*")) < 20e6


@pytest.mark.parametrize(
    ("name", "figure", "slack"),
    [("detector", "recall_at_iou_0.5", 0.05), ("captioner", "shape_colour_size", 0.1), ("clip", "all", 0.12)],
)
def test_a_mini_reaches_its_figures_on_a_few_scenes(name, figure, slack):
    """Thirty scenes hold about a hundred regions, hence the slack."""
    pytest.importorskip(f"pipeline.minis.{name}", exc_type=ImportError)
    from pipeline.minis.evaluate import fresh_scenes, measure

    stated = json.loads((mini_folder(name) / FIGURES).read_text())
    reached = measure(name, mini_folder(name), fresh_scenes(30, seed=0))
    assert reached[figure] >= stated[figure] - slack
