"""From the cells that are there to a table: Markdown for people, JSON for programs, a plot."""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.errors import TrainingError
from trainer.study.cell import Cell, Contrast, Metric, Study
from trainer.study.plot import Mark, Panel, draw
from trainer.study.scores import numbers
from trainer.study.statistics import Hits, Interval, difference, images_wanted, interval, seeds_wanted

_OTHER_IMAGES = (
    "its cells were evaluated on different images, as if the data had changed between them: take away the older ones "
    "from cells/, and the same command runs them again"
)
Found = Mapping[str, Any]
"""A finished cell, as its file has it."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: its finished cells, by seed."""

    name: str
    cells: Sequence[Found]
    num_cells: int
    """With those that are missing."""
    shared: frozenset[str] = frozenset()
    """Keys of the steps that all cells of the study have: no row's cost."""

    def values(self, metric: Metric) -> list[float]:
        """Return the metric of each finished cell that has it."""
        found = (self._cost(cell, metric.name) or cell["figures"].get(metric.name) for cell in self.cells)
        return [value for value in found if value is not None]

    def _cost(self, cell: Found, name: str) -> float | None:
        """Return `cost.KIND.FIELD` of the cell's own steps of a kind: their sum, or the largest peak; else None."""
        if not name.startswith("cost."):
            return None
        _, kind, field = name.split(".")
        own = [step[field] for step in cell["steps"] if step["kind"] == kind and step["key"] not in self.shared]
        return (max(own) if field.startswith("peak") else sum(own)) if own else None

    def hits(self, metric: Metric) -> Hits | None:
        """Return what the finished cells told right by image; None where they do not say."""
        if not self.cells or any(metric.name not in cell["by_image"] for cell in self.cells):
            return None
        found = [cell["by_image"][metric.name] for cell in self.cells]
        images = {one["images"] for one in found}
        if len(images) > 1:
            raise TrainingError(f"{self.name}: {_OTHER_IMAGES}")
        return Hits(
            images=images.pop(), hits=np.stack([numbers(one["hits"]) for one in found]), asked=numbers(found[0]["rows"])
        )


def rows_of(study: Study, found: Mapping[str, Found]) -> list[Row]:
    """Return the rows in the order of the study; `found` are the finished cells by name."""
    cells: dict[str, list[Cell]] = {}
    for cell in study.cells:
        cells.setdefault(cell.row, []).append(cell)
    shared = frozenset.intersection(*(frozenset(step.key for step in cell.steps) for cell in study.cells))
    return [
        Row(name=name, cells=[found[c.name] for c in own if c.name in found], num_cells=len(own), shared=shared)
        for name, own in cells.items()
    ]


def write_report(study: Study, found: Mapping[str, Found], out: Path, name: str, command: Sequence[str]) -> str:
    """Write `NAME.md`, `NAME.json` and, where two rows have figures, `NAME.svg` to `out`; return the Markdown."""
    rows = rows_of(study, found)
    parts = [f"# {study.title}", "", f"`{shlex.join(command)}`", "", *_table(study, rows), ""]
    if study.contrasts:
        parts += [f"Primary contrast: {told_contrast(study.contrasts[0], study, rows)}", ""]
        parts += [*_differences(study, rows), ""]
    parts += [*_by_seed(study, rows), "", *_costs(rows)]
    text = "\n".join(parts).rstrip() + "\n"
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    (out / f"{name}.json").write_text(json.dumps(_as_json(study, rows), indent=1) + "\n", encoding="utf-8")
    panels = [_panel(metric, rows) for metric in study.metrics if metric.unit == "%"]
    if panels := [panel for panel in panels if len(panel.marks) > 1]:
        (out / f"{name}.svg").write_text(draw(study.title, panels), encoding="utf-8")
    return text


def told_contrast(contrast: Contrast, study: Study, rows: Sequence[Row]) -> str:
    """Return a contrast in a sentence: the difference, its interval, and where it drowns, how much more it wants."""
    metric = next(metric for metric in study.metrics if metric.title == contrast.metric)
    by_name = {row.name: row for row in rows}
    told = f"{contrast.row} against {contrast.against}, {contrast.metric}"
    row, against = (by_name[name].hits(metric) for name in (contrast.row, contrast.against))
    if row is None or against is None:
        return f"{told}: not run yet."
    found, num_images = difference(row, against), int((row.asked > 0).sum())
    told += f": {100 * found.value:+.1f} points (95 % of draws of {num_images} images: {_range(found, '+')})"
    told += f", seed by seed {_listed(row.share_by_seed())} against {_listed(against.share_by_seed())}."
    if found.excludes_zero:
        return told
    wanted = f"{images_wanted(found, num_images):,} images"
    seeds = seeds_wanted(row.share_by_seed(), against.share_by_seed())
    if seeds is not None and seeds > min(len(row.hits), len(against.hits)):
        wanted += f" and {seeds:,} seeds"
    return f"{told} The range holds 0: to be shown four times in five, such a difference would want some {wanted}."


def _differences(study: Study, rows: Sequence[Row]) -> list[str]:
    """Return the paired differences of all contrasts in all metrics that are shares of rows, in points."""
    by_name = {row.name: row for row in rows}
    metrics = [metric for metric in study.metrics if metric.unit == "%"]
    lines = ["| points, paired | " + " | ".join(metric.title for metric in metrics) + " |"]
    lines.append("|---" * (len(metrics) + 1) + "|")
    for contrast in study.contrasts:
        texts = []
        for metric in metrics:
            row, against = (by_name[name].hits(metric) for name in (contrast.row, contrast.against))
            found = None if row is None or against is None else difference(row, against)
            texts.append("-" if found is None else f"{100 * found.value:+.1f} ({_range(found, '+')})")
        lines.append(f"| {contrast.row} - {contrast.against} | {' | '.join(texts)} |")
    return lines


def _table(study: Study, rows: Sequence[Row]) -> list[str]:
    lines = ["| | " + " | ".join(metric.title for metric in study.metrics) + " | seeds |"]
    lines.append("|---" * (len(study.metrics) + 2) + "|")
    for row in rows:
        cells = [_cell_text(row, metric) for metric in study.metrics]
        seeds = "not run" if not row.cells else str(len(row.cells))
        missing = f" of {row.num_cells}" if len(row.cells) < row.num_cells else ""
        lines.append(f"| {row.name} | {' | '.join(cells)} | {seeds}{missing} |")
    chances = [_chance(rows, metric) for metric in study.metrics]
    if any(chances):
        told = ["" if chance is None else f"{100 * chance:.1f}" for chance in chances]
        lines.append(f"| *chance* | {' | '.join(told)} | |")
    return lines


def _cell_text(row: Row, metric: Metric) -> str:
    values = row.values(metric)
    if not values:
        return "-"
    if metric.unit != "%":
        return f"{np.mean(values):,.{metric.decimals}f}"
    hits = row.hits(metric)
    return f"{100 * np.mean(values):.1f}" + ("" if hits is None else f" ({_range(interval(hits))})")


def _by_seed(study: Study, rows: Sequence[Row]) -> list[str]:
    lines = ["| seed by seed | seed | " + " | ".join(metric.title for metric in study.metrics) + " |"]
    lines.append("|---" * (len(study.metrics) + 2) + "|")
    for row in rows:
        for cell in row.cells:
            alone = dataclasses.replace(row, cells=[cell])
            seed = "-" if cell["seed"] is None else cell["seed"]
            lines.append(f"| {row.name} | {seed} | {' | '.join(_cell_text(alone, m) for m in study.metrics)} |")
    return lines


def _costs(rows: Sequence[Row]) -> list[str]:
    """Return what the steps cost, each counted once, and on what."""
    steps = {step["key"]: step for row in rows for cell in row.cells for step in cell["steps"]}
    if not steps:
        return []
    kinds: dict[str, list[dict[str, Any]]] = {}
    for step in steps.values():
        kinds.setdefault(step["kind"], []).append(step)
    lines = ["| cost | commands | CPU hours | hours by the clock | peak memory, MB |", "|---|---|---|---|---|"]
    for kind, own in (*kinds.items(), ("all", list(steps.values()))):
        cpu, wall = (sum(step[name] for step in own) / 3600 for name in ("cpu_s", "wall_s"))
        peak = max(step["peak_memory_mb"] for step in own)
        lines.append(f"| {kind} | {len(own)} | {cpu:.2f} | {wall:.2f} | {peak:,} |")
    cells = [cell for row in rows for cell in row.cells]
    machines = sorted(
        {f"{c['machine']['cpu']}, {c['machine']['cores']} cores, torch {c['machine']['torch']}" for c in cells}
    )
    dates = sorted({cell["date"] for cell in cells})
    lines += ["", f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}; {'; '.join(machines)}."]
    if again := [step for step in steps.values() if step["attempts"] > 1]:
        lines.append(f"{len(again)} commands were interrupted and went on: their cost is that of the last attempt.")
    return lines


def _as_json(study: Study, rows: Sequence[Row]) -> dict[str, Any]:
    names = {metric.title: metric.name for metric in study.metrics}
    listed = [
        {"row": row.name, "cells": [{"seed": c["seed"], "figures": c["figures"]} for c in row.cells]} for row in rows
    ]
    return {"title": study.title, "metrics": names, "rows": listed}


def _panel(metric: Metric, rows: Sequence[Row]) -> Panel:
    marks = []
    for row in rows:
        if values := row.values(metric):
            hits = row.hits(metric)
            found = None if hits is None else interval(hits)
            span = None if found is None else (100 * found.low, 100 * found.high)
            marks.append(Mark(name=row.name, values=[100 * value for value in values], span=span))
    chance = _chance(rows, metric)
    return Panel(title=metric.title, marks=marks, chance=None if chance is None else 100 * chance)


def _chance(rows: Sequence[Row], metric: Metric) -> float | None:
    if metric.chance is None:
        return None
    return next((c["figures"][metric.chance] for row in rows for c in row.cells if metric.chance in c["figures"]), None)


def _range(found: Interval, sign: str = "") -> str:
    return f"{100 * found.low:{sign}.1f} to {100 * found.high:{sign}.1f}"


def _listed(shares: Any) -> str:
    return ", ".join(f"{100 * share:.1f}" for share in shares)
