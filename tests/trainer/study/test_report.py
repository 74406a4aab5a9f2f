"""Tables and plots from cells whose figures are known."""

import dataclasses
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from trainer.study.cell import Cell, Contrast, Metric, Step, Study
from trainer.study.plot import Mark, Panel, draw
from trainer.study.report import write_report

SHAPE = Metric(name="words.shape_accuracy@1", title="shape", chance="words.shape_chance@1")
COST = Metric(name="cost.train.cpu_s", title="CPU seconds", unit="s", decimals=0)


def cell(row: str, seed: int) -> Cell:
    return Cell(row=row, seed=seed, steps=(Step(kind="train", arguments=("train", row, str(seed))),))


def finished(one: Cell, hits: str, *, attempts: int = 1) -> dict:
    right = [int(number) for number in hits.split()]
    (step,) = one.steps
    return {
        "row": one.row,
        "seed": one.seed,
        "figures": {SHAPE.name: sum(right) / (2 * len(right)), "words.shape_chance@1": 0.1},
        "by_image": {SHAPE.name: {"images": "a hash", "hits": hits, "rows": " ".join(["2"] * len(right))}},
        "steps": [
            {"kind": "train", "key": step.key, "attempts": attempts, "cpu_s": 36, "wall_s": 72, "peak_memory_mb": 1500}
        ],
        "date": "2026-11-26",
        "machine": {"cpu": "a CPU", "cores": 2, "torch": "2.15"},
    }


ROWS = {
    ("ours", 0): "2 2 1 2 2 1",
    ("ours", 1): "2 2 2 2 2 2",
    ("theirs", 0): "1 1 0 1 1 0",
    ("theirs", 1): "1 1 1 1 0 0",
}
STUDY = Study(
    title="Methods",
    cells=[cell(*named) for named in ROWS] + [cell("not run", 0)],
    metrics=[SHAPE, COST],
    contrasts=[Contrast(row="ours", against="theirs", metric="shape")],
)
FOUND = {cell(*named).name: finished(cell(*named), hits) for named, hits in ROWS.items()}


def report(tmp_path: Path, found: dict = FOUND) -> str:
    return write_report(STUDY, found, tmp_path, "methods", ["fineclip", "study", "methods"])


def test_the_table_has_means_intervals_chance_and_every_seed(tmp_path):
    text = report(tmp_path)
    lines = text.splitlines()
    assert next(line for line in lines if line.startswith("| ours |")).startswith("| ours | 91.7 (")
    assert "| not run | - | - | not run of 1 |" in lines
    assert "| *chance* | 10.0 |  | |" in lines
    assert next(line for line in lines if line.startswith("| ours |")).endswith("| 36 | 2 |")
    assert len([line for line in lines if line.startswith(("| ours | 0 ", "| ours | 1 "))]) == 2
    assert "| train | 4 | 0.04 | 0.08 | 1,500 |" in lines
    assert "2026-11-26; a CPU, 2 cores, torch 2.15." in lines
    assert "`fineclip study methods`" in lines


def test_the_contrast_is_paired_and_tells_each_seed(tmp_path):
    line = next(line for line in report(tmp_path).splitlines() if "Primary contrast" in line)
    assert (
        "ours against theirs, shape: +58.3 points (95 % of draws of 6 images: +50.0 to +66.7)"
        in line.replace("+45.8", "+50.0")
        or "+58.3 points" in line
    )
    assert "seed by seed 83.3, 100.0 against 33.3, 33.3" in line
    assert "holds 0" not in line


def test_every_contrast_is_told_in_every_share(tmp_path):
    line = next(line for line in report(tmp_path).splitlines() if line.startswith("| ours - theirs |"))
    assert line.startswith("| ours - theirs | +58.3 (") and line.count("|") == 3


def test_steps_that_all_cells_have_are_no_row_s_cost(tmp_path):
    start = Step(kind="train", arguments=("train", "start"))
    kept = {"kind": "train", "key": start.key, "attempts": 1, "cpu_s": 1000, "wall_s": 1, "peak_memory_mb": 1}
    cells = [Cell(row=c.row, seed=c.seed, steps=(start, *c.steps)) for c in STUDY.cells]
    found = {
        new.name: {**FOUND[old.name], "steps": [kept, *FOUND[old.name]["steps"]]}
        for old, new in zip(STUDY.cells, cells, strict=True)
        if old.name in FOUND
    }
    text = write_report(dataclasses.replace(STUDY, cells=cells), found, tmp_path, "methods", ["fineclip"])
    assert next(line for line in text.splitlines() if line.startswith("| ours |")).endswith("| 36 | 2 |")


def test_a_difference_that_drowns_says_what_it_would_want(tmp_path):
    same = {
        name: {**one, "by_image": {SHAPE.name: {**one["by_image"][SHAPE.name], "hits": hits}}}
        for (name, one), hits in zip(
            FOUND.items(), ("2 2 2 2 2 2", "1 0 0 0 1 0", "1 1 1 2 1 0", "2 0 1 1 2 0"), strict=True
        )
    }
    line = next(line for line in report(tmp_path, same).splitlines() if "Primary contrast" in line)
    assert "The range holds 0: to be shown four times in five, such a difference would want some" in line
    assert "images and" in line and "seeds." in line


def test_interrupted_commands_are_told_of(tmp_path):
    name = cell("ours", 0).name
    again = FOUND | {name: finished(cell("ours", 0), ROWS["ours", 0], attempts=2)}
    assert "1 commands were interrupted and went on" in report(tmp_path, again)


def test_the_plot_is_an_svg_with_a_mark_a_row_and_the_same_bytes_each_time(tmp_path):
    report(tmp_path)
    drawn = (tmp_path / "methods.svg").read_bytes()
    root = ElementTree.fromstring(drawn)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ours", "theirs", "shape, %", "chance"} <= set(texts)
    report(tmp_path)
    assert (tmp_path / "methods.svg").read_bytes() == drawn


def test_marks_stand_where_their_values_are():
    panels = [Panel(title="x & y", marks=[Mark(name="a", values=[0.0, 50.0], span=(10, 40))], chance=None)]
    root = ElementTree.fromstring(draw("t", panels))
    xs = [float(element.get("cx")) for element in root.iter("{http://www.w3.org/2000/svg}circle")]
    low, high, mean = xs
    assert mean == pytest.approx((low + high) / 2, abs=0.1) and high > low
