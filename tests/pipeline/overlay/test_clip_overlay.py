"""`score-regions` and `embed` with the mini that ships: what they find, their bytes, and what they refuse."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.models.device import CPU
from pipeline.models.shipped import mini_folder
from pipeline.overlay.encoder import find_clip
from pipeline.run.clip_overlay import SCORE, ClipSettings, make_clip_overlay
from schemas.dataset import Dataset
from tests.builders import CHEAP, annotate, run
from tests.shards import tiny_sample, write_shard

NAMES = ("clip_score", "margin_in_image", "margin_in_sample")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve scenes in three shards, with true captions and with a fifth of them swapped."""
    data = tmp_path_factory.mktemp("scenes") / "data"
    annotate("scenes:12?seed=3", data, flags=[*CHEAP, "--shard-size", "4"])
    assert run("truth", data).code == 0
    assert run("truth", data, "--swap", "0.3", "--seed", "1").code == 0
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def scored(data: Path, *flags: str) -> None:
    outcome = run("score-regions", data, "--model", "mini", "--as", "fit", *flags)
    assert outcome.code == 0, outcome


def overlay_bytes(data: Path, name: str = "fit") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(data.glob(f"*.{name}.*"))}


def test_the_clip_that_saw_true_crops_tells_swapped_captions(data: Path) -> None:
    scored(data, "--overlay", "swapped")
    table = Dataset.open(data, overlays=["swapped", "fit"]).regions(["region_id", "captioner", *NAMES])
    rows = [row for row in table.to_pylist() if row["region_id"]]
    wrong = np.array([row["captioner"] == "swapped" for row in rows])
    assert 0 < wrong.sum() < len(rows) / 2
    margins = np.array([row["margin_in_sample"] for row in rows], dtype=float)
    assert np.median(margins[wrong]) < 0 < np.median(margins[~wrong])
    assert max(row["clip_score"] for row in rows) <= 1


def test_the_bytes_are_the_same_after_a_stop_and_by_two_drivers_at_once(data: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(data, tmp_path / "other"))
    scored(data, "--overlay", "truth")
    whole = overlay_bytes(data)
    assert len(whole) == 6
    for name in ("train-000001.fit.json", "train-000002.fit.parquet"):
        (data / name).unlink()
    scored(data, "--overlay", "truth")
    assert overlay_bytes(data) == whole
    settings = ClipSettings(tool=SCORE, clip=find_clip("mini"), overlays=["truth"])
    with ThreadPoolExecutor(2) as pool:
        drivers = [pool.submit(make_clip_overlay, str(other), "fit", settings, device=CPU) for _ in range(2)]
        assert [driver.result()[0].num_shards for driver in drivers] == [3, 3]
    assert overlay_bytes(other) == whole
    assert not (data / "_leases").exists()


def test_what_is_appended_meets_the_same_rivals(data: Path) -> None:
    scored(data)
    before, rivals = overlay_bytes(data), (data / "_overlays/fit/rivals.json").read_bytes()
    outcome = run("annotate", "scenes:4?seed=9", data, *CHEAP, "--shard-size", "4", "--append")
    assert outcome.code == 0, outcome
    scored(data)
    after = overlay_bytes(data)
    assert len(after) == 8 and {name: after[name] for name in before} == before
    assert (data / "_overlays/fit/rivals.json").read_bytes() == rivals


def test_another_configuration_under_the_same_name_is_refused(data: Path) -> None:
    scored(data)
    for changed in (["--seed", "4"], ["--overlay", "truth"], ["--rivals", "3"]):
        outcome = run("score-regions", data, "--model", "mini", "--as", "fit", *changed)
        assert outcome.code == 3 and "another configuration" in outcome.err
    assert run("embed", data, "--model", "mini", "--as", "fit").code == 3


def test_features_are_kept_and_agree_with_the_scores(data: Path) -> None:
    scored(data, "--overlay", "truth")
    outcome = run("embed", data, "--model", "mini", "--as", "feats", "--overlay", "truth")
    assert outcome.code == 0, outcome
    table = Dataset.open(data, overlays=["truth", "fit", "feats"]).regions()
    rows = [row for row in table.to_pylist() if row["region_id"]]
    for row in rows:
        fit = np.dot(row["region_features"], row["text_features"])
        assert fit == pytest.approx(row["clip_score"], abs=2e-3)
        assert np.linalg.norm(row["region_features"]) == pytest.approx(1, abs=2e-3)
    equal = {row["caption"]: tuple(row["text_features"]) for row in rows}
    assert all(tuple(row["text_features"]) == equal[row["caption"]] for row in rows)


@pytest.mark.parametrize(
    ("shard", "why"),
    [
        ([tiny_sample("a", num_regions=1), tiny_sample("b", num_regions=0)], "one region an image, and none"),
        ([tiny_sample("a", num_regions=0)], "no region at all"),
    ],
)
def test_small_data_are_scored(shard: list, why: str, tmp_path: Path) -> None:
    write_shard(str(tmp_path), shard)
    scored(tmp_path)
    rows = pq.read_table(tmp_path / "train-000000.fit.parquet").to_pylist()
    assert len(rows) == sum(sample.record.num_regions for sample in shard), why
    assert all(row["margin_in_image"] is None and row["margin_in_sample"] is None for row in rows), why
    assert all(row["clip_score"] is not None for row in rows)


def test_a_long_caption_is_read_as_far_as_the_model_goes(tmp_path: Path) -> None:
    long = tiny_sample("a", num_regions=1)
    long.record.regions[0] = type(long.record.regions[0])(
        **{
            **{name: getattr(long.record.regions[0], name) for name in long.record.regions[0].__struct_fields__},
            "caption": "a red star und ein Mädchen 星 " * 30,
        }
    )
    write_shard(str(tmp_path), [long])
    scored(tmp_path)
    marker = json.loads((tmp_path / "train-000000.fit.json").read_bytes())
    assert marker["provenance"]["score-regions"]["num_captions_cut"] == 1


def test_models_that_are_none_are_told(data: Path, tmp_path: Path) -> None:
    def refused(model: str | Path) -> str:
        outcome = run("score-regions", data, "--model", model, "--as", "other")
        assert outcome.code == 2, outcome
        return outcome.err

    assert "no such file or folder" in refused(tmp_path / "nowhere")
    assert "no such folder" in refused(f"local-dir:{tmp_path / 'nowhere'}")
    assert "open_clip has no weights of that architecture" in refused("No-Such-Model:openai")
    assert "its tags are" in refused("ViT-B-32:nobody")
    assert "has no open_clip_config.json" in refused(mini_folder("detector"))
    towerless = tmp_path / "towerless"
    shutil.copytree(mini_folder("clip"), towerless)
    config = json.loads((towerless / "open_clip_config.json").read_text())
    del config["model_cfg"]["text_cfg"]
    (towerless / "open_clip_config.json").write_text(json.dumps(config))
    assert "cannot load this as a CLIP of images and texts" in refused(towerless)
    assert not list(data.glob("*.other.*"))


def test_a_lost_tar_is_named(data: Path) -> None:
    (data / "train-000001.tar").unlink()
    outcome = run("score-regions", data, "--model", "mini", "--as", "fit")
    assert outcome.code == 2 and "train-000001.tar" in outcome.err


def test_flags_out_of_range_are_told(data: Path) -> None:
    for flag, value in (("--batch-size", "0"), ("--threads", "0"), ("--rivals", "-1"), ("--seed", "x")):
        assert run("score-regions", data, "--model", "mini", "--as", "fit", flag, value).code == 2
