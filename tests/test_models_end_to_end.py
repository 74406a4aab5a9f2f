"""The minis on scenes, and the paper's profile on random weights, through the real command."""

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.dataset import Dataset
from tests.builders import check_balance, data_files, run, write_photos
from tests.random_models import random_blip2, random_yolov9

SCENES = ("scenes:24?split=test&seed=3", "--profile", "mini", "--shard-size", "12")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes annotated by the minis, in two shards."""
    output = tmp_path_factory.mktemp("scenes") / "out"
    outcome = run("annotate", SCENES[0], output, *SCENES[1:])
    assert outcome.code == 0, outcome
    return output


def test_the_minis_find_and_describe_the_objects_of_scenes(scenes: Path) -> None:
    check_balance(scenes)
    scored = run("score", scenes)
    assert scored.code == 0, scored
    figures = dict(line.rsplit(maxsplit=1) for line in scored.out.splitlines() if line.split()[-1:] != ["scenes"])
    by_name = {name.strip(): value for name, value in figures.items()}
    assert float(by_name["recall at IoU 0.5"]) > 0.9
    assert float(by_name["boxes per object"]) < 1.5
    assert float(by_name["right in all three"]) > 0.8


def test_provenance_names_the_weights_by_hash(scenes: Path) -> None:
    marker = next(iter(Dataset.open(scenes).markers.values()))
    for model in ("proposer", "captioner"):
        assert marker.provenance[model]["weights"]["model"] == "mini"
        assert len(marker.provenance[model]["weights"]["sha256"]) == 64


@pytest.mark.parametrize("flags", [(), ("--two-pools",)])
def test_another_run_of_the_minis_gives_the_same_bytes(scenes: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    outcome = run("annotate", SCENES[0], tmp_path / "out", *SCENES[1:], *flags)
    assert outcome.code == 0, outcome
    assert data_files(tmp_path / "out") == data_files(scenes)


def test_two_processes_of_the_minis_give_the_same_bytes(scenes: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "annotate", SCENES[0], tmp_path / "out", *SCENES[1:]]
    ran = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert data_files(tmp_path / "out") == data_files(scenes)


def test_the_paper_s_profile_runs_on_a_local_folder_of_weights(tmp_path: Path) -> None:
    """YOLOv9-c and a BLIP-2 in the published layouts; with random weights, so what they say means nothing."""
    models = tmp_path / "models"
    random_blip2(models / "blip2")
    sha256 = random_yolov9(models / "yolov9c.pt", variant="c")
    outcome = run(
        *("annotate", write_photos(tmp_path / "in", 2), tmp_path / "out", "--profile", "paper", "--device", "cpu"),
        *("--propose.model", models / "yolov9c.pt", "--propose.sha256", sha256, "--propose.batch-size", "2"),
        *("--propose.min-score", "1e-6", "--propose.max-proposals", "4", "--caption.max-new-tokens", "4"),
        *("--caption.model", models / "blip2", "--caption.dtype", "float32", "--select.min-side", "1"),
        *("--max-dead", "1", "--caption.allow-constant", "true"),  # random weights may say one word of all pictures
    )
    assert outcome.code == 0, outcome
    check_balance(tmp_path / "out")
    marker = next(iter(Dataset.open(tmp_path / "out").markers.values()))
    assert marker.regions.inputs > 0
    assert [terms["license"] for terms in marker.provenance["proposer"]["licenses"]] == ["AGPL-3.0", "unknown"]
