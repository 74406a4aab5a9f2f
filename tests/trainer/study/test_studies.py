"""The studies as lists of cells: what they share, what follows from what, and that every command parses."""

import dataclasses

import pytest

from trainer.cli.options import parse_evaluate, parse_train
from trainer.errors import TrainingError
from trainer.study import grounds
from trainer.study.cell import Step
from trainer.study.grounds import Ground, data_set, scenes
from trainer.study.studies import STUDIES
from trainer.study.subset import keeps, left_out

PARSERS = {"train": parse_train, "evaluate": parse_evaluate}


def ground_of(name: str, tmp_path) -> Ground:
    if name == "scenes":
        return scenes()
    return data_set("DATA", tmp_path, recipe="vitb16", inputs=["IMAGES"], flags=["--epochs", "2"], seeds=1)


@pytest.mark.parametrize("ground", ["scenes", "data"])
@pytest.mark.parametrize("name", STUDIES)
def test_every_training_and_evaluation_parses(name, ground, tmp_path):
    if (name, ground) == ("filtered", "data"):
        with pytest.raises(TrainingError, match="--data scenes"):
            STUDIES[name](ground_of(ground, tmp_path))
        return
    study = STUDIES[name](ground_of(ground, tmp_path))
    assert len({cell.name for cell in study.cells}) == len(study.cells) > 0
    for step in {step for cell in study.cells for step in cell.steps}:
        subcommand, *arguments = step.command
        if subcommand in PARSERS:
            PARSERS[subcommand](arguments)
    titles = {metric.title for metric in study.metrics}
    rows = {cell.row for cell in study.cells}
    for contrast in study.contrasts:
        assert contrast.metric in titles and {contrast.row, contrast.against} <= rows


def test_equal_cells_of_two_studies_are_one():
    ground = scenes()
    methods, losses = ({cell.name: cell for cell in STUDIES[name](ground).cells} for name in ("methods", "losses"))
    assert sum(cell.row == "FineCLIP" and methods.get(name) == cell for name, cell in losses.items()) == 3


def test_filtered_trains_on_true_captions_as_methods_does_and_scores_by_the_start():
    ground = scenes()
    study, methods = (
        STUDIES["filtered"](ground),
        {cell.name.split("-", 1)[1] for cell in STUDIES["methods"](ground).cells},
    )
    true = [cell for cell in study.cells if cell.row == "true captions"]
    assert len(true) == 3 and {cell.key for cell in true} <= {name.rsplit("-", 1)[-1] for name in methods}
    scored = [step for cell in study.cells for step in cell.steps if step.kind == "scores"]
    assert any(f"local-dir:{ground.start}/model" in step.arguments for step in scored)
    for cell in study.cells:
        filters = [step.arguments for step in cell.steps if step.kind == "train"][-1]
        assert ("--filter" in filters) == ("margin" in cell.row)


def test_what_a_step_makes_depends_on_all_that_went_into_it(monkeypatch):
    def cells(**changes: object) -> dict[tuple[str, int | None], str]:
        ground = dataclasses.replace(scenes(), **changes)
        return {(cell.row, cell.seed): cell.name for cell in STUDIES["methods"](ground).cells}

    before = cells()
    other_start = Step(kind="train", arguments=("train", "other"))
    changed = cells(before=(other_start,))
    assert before.keys() == changed.keys() and all(before[row] != changed[row] for row in before)
    recipe = grounds.RECIPES["scenes"]()
    longer = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, epochs=7))
    monkeypatch.setitem(grounds.RECIPES, "scenes", lambda: longer)
    retrained = cells()
    assert before[("the start", None)] == retrained[("the start", None)]
    assert before[("FineCLIP", 0)] != retrained[("FineCLIP", 0)]


def test_shares_are_nested_and_of_their_size():
    keys = [f"key-{number}" for number in range(4000)]
    quarter, half = (set(keys) - set(left_out(keys, share)) for share in (0.25, 0.5))
    assert quarter < half
    assert len(quarter) == pytest.approx(1000, abs=100) and len(half) == pytest.approx(2000, abs=120)
    assert all(keeps(key, 1.0) for key in keys)
