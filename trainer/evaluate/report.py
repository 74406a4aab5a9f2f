"""What an evaluation found, as JSON and as a Markdown table; and what each row scored, as Parquet."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.evaluate.intervals import Interval, interval
from trainer.evaluate.metrics import Scores
from trainer.evaluate.settings import IntervalSettings
from trainer.evaluate.truth import Truth

Found = Mapping[str, Mapping[str, Scores | float] | None]
"""Metrics by task; a further `--region-feature` has `TASK:FEATURE`, None where the model has none."""

_DASH = "–"


@dataclass(frozen=True, kw_only=True)
class Report:
    """An evaluation, as it is written."""

    about: Mapping[str, Any]
    """Checkpoint, data, command, settings."""
    metrics: dict[str, dict[str, float] | None]
    intervals: dict[str, dict[str, Interval]]
    skipped: tuple[tuple[str, str], ...]

    def as_json(self) -> str:
        """Return the report as JSON: metrics by task beside what they are of."""
        content = {
            **self.about,
            **self.metrics,
            "intervals": self.intervals,
            "num_skipped_images": len(self.skipped),
            "skipped_images": [": ".join(pair) for pair in self.skipped[:10]],
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def as_markdown(self) -> str:
        """Return the report as tables, one a task, per cent with their intervals."""
        lines = [f"# {self.about['checkpoint']} on {self.about['data']}", "", "```", self.about["command"], "```", ""]
        for task, metrics in self.metrics.items():
            lines += [f"## {task}", "", "| metric | value | 95 % interval |", "|---|---|---|"]
            if metrics is None:
                lines.append(f"| all | {_DASH} | the model's vision tower has no dense map |")
            for name, value in (metrics or {}).items():
                low_high = self.intervals.get(task, {}).get(name)
                lines.append(f"| {name} | {_shown(name, value)} | {_range(low_high)} |")
            lines.append("")
        told = ", ".join(f"{name} {value}" for name, value in self.about["settings"].items())
        lines += [f"Settings: {told}.", ""]
        for reason, count in self.about["left_out"].items():
            lines.append(f"Left out: {count}, {reason}.")
        if self.about["num_cut_captions"]:
            of = f"{self.about['num_cut_captions']} of {self.about['num_captions']}"
            lines.append(f"Cut: {of} captions, which have more tokens than the text tower takes.")
        for key, why in self.skipped[:10]:
            lines.append(f"Skipped: {key}: {why}.")
        if len(self.skipped) > 10:
            lines.append(f"Skipped: {len(self.skipped)} images in all.")
        return "\n".join(lines).rstrip() + "\n"


def report(
    found: Found, *, about: Mapping[str, Any], intervals: IntervalSettings, skipped: tuple[tuple[str, str], ...]
) -> Report:
    """Return metrics with their intervals. Values that are no number become null in JSON."""
    metrics: dict[str, dict[str, float] | None] = {}
    ranges: dict[str, dict[str, Interval]] = {}
    for task, by_name in found.items():
        metrics[task] = None if by_name is None else {name: _number(value) for name, value in by_name.items()}
        for name, value in (by_name or {}).items():
            drawn = None
            if isinstance(value, Scores):
                drawn = interval(value, resamples=intervals.resamples, seed=intervals.seed)
            if drawn is not None:
                ranges.setdefault(task, {})[name] = drawn
    return Report(about=about, metrics=metrics, intervals=ranges, skipped=skipped)


def write_scores(path: Path, found: Found, truth: Truth) -> None:
    """Write what each row scored: task, metric, key of its image, and score, for paired comparisons of models."""
    tables = []
    for task, by_name in found.items():
        for name, value in (by_name or {}).items():
            if isinstance(value, Scores) and value.classes is None:
                keys = {int(image): truth.images.key(int(image)) for image in np.unique(value.images)}
                columns = {
                    "task": pa.repeat(pa.scalar(task), len(value.hits)),
                    "metric": pa.repeat(pa.scalar(name), len(value.hits)),
                    "key": pa.array([keys[int(image)] for image in value.images], pa.string()),
                    "score": pa.array(value.hits, pa.float32()),
                }
                tables.append(pa.table(columns))
    pq.write_table(pa.concat_tables(tables), path, compression="zstd")


def _number(value: Scores | float) -> float:
    return value.value if isinstance(value, Scores) else value


def _shown(name: str, value: float) -> str:
    if math.isnan(value):
        return _DASH
    return f"{value:,.0f}" if name.startswith("num_") else f"{100 * value:.1f} %"


def _range(drawn: Interval | None) -> str:
    return "" if drawn is None else f"{100 * drawn[0]:.1f} to {100 * drawn[1]:.1f} %"
