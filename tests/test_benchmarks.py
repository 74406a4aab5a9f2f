"""Benchmarks that a bare GPU machine runs: they work there, where most of the pipeline's packages are missing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import Row

ROOT = Path(__file__).parents[1]
ABSENT = ("apache_beam", "pyarrow", "rich", "jsonargparse", "docstring_parser", "webdataset", "duckdb", "open_clip")
"""What must not be needed."""
CAPTIONER = "captioner --random-weights --crops 4 --regions 2 --batch-size 4 --runs 1"
PROPOSER = "proposer --random-weights --engine libreyolo --variant t --side 64 --images 4 --candidates 20 --runs 1"
RUN = """
import runpy, sys
sys.modules.update(dict.fromkeys({absent}))
for name, *arguments in {commands}:
    sys.argv = [name, *arguments]
    runpy.run_module("benchmarks." + name, run_name="__main__")
"""


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, Any]]:
    """The JSON lines that the benchmarks end in, by benchmark; one process, which imports torch once."""
    commands = [CAPTIONER.split(), PROPOSER.split()]
    code = RUN.format(absent=ABSENT, commands=commands)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return dict(zip(("captioner", "proposer"), lines, strict=True))


def test_captions_are_measured_with_few_packages(reports: dict[str, dict[str, Any]]):
    found = reports["captioner"]
    assert found["title"] == "captions of 12 tokens on cpu, 2 regions an image"
    batched, alone = found["rows"]
    assert batched["against"] == alone["seconds"]
    assert batched["ratio"] == pytest.approx(batched["seconds"][0] / alone["seconds"][0])
    assert batched["per_s"] == pytest.approx(4 / batched["seconds"][0])
    (busy,) = (value for name, value in found.items() if name.startswith("utilisation"))
    assert all(0 < share <= 1 for share in busy.values())


def test_proposals_are_measured_with_few_packages(reports: dict[str, dict[str, Any]]):
    found = reports["proposer"]
    assert [row["items"] for row in found["rows"]] == [4] * 4
    boxes, candidates = found["boxes per image, after NMS of candidates"]
    assert 0 < boxes <= candidates == 20


def test_a_goal_is_met_by_the_median_ratio_or_rate():
    row = Row(name="", seconds=[1.0, 2.0, 8.0], against=[4.0, 4.0, 4.0], goal=0.5, items=10, rate_goal=6.0)
    assert row.ratio == 0.5
    assert row.per_s == 5.0
    assert row.goals == [("<= 0.5", True), (">= 6/s", False)]
    assert Row(name="", seconds=[1.0], goal=0.5, rate_goal=6.0).goals == []
