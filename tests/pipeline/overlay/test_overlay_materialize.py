"""Data and overlays as a data set of its own: equal to what annotate would have made, and made as safely."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import PlanError
from pipeline.overlay import materialize as step
from pipeline.run import job
from pipeline.run.materialize import materialize
from pipeline.viewer.session import Session
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.names import ShardName
from tests.builders import check_balance, configuration, digests, run
from tests.pipeline.overlay.conftest import recaptioned
from tests.shards import write_overlay


@pytest.fixture
def recaptioned_data(data: Path) -> Path:
    recaptioned(data)
    return data


def test_it_is_what_annotate_makes_with_that_captioner(recaptioned_data: Path, wide: Path, tmp_path: Path) -> None:
    made = materialize(str(recaptioned_data), ["wide"], str(tmp_path / "out"))
    totals = made.totals
    assert (totals.num_shards, made.num_units_run, totals.images.ok, totals.regions.ok) == (2, 2, 8, 16)
    out = tmp_path / "out"
    for name in ("train-000000", "train-000001"):
        for suffix in ("tar", "parquet"):
            assert (out / f"{name}.{suffix}").read_bytes() == (wide / f"{name}.{suffix}").read_bytes()
    check_balance(out)
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"_plan", "_commit"}


def test_images_are_the_same_bytes_and_provenance_is_of_both(recaptioned_data: Path, tmp_path: Path) -> None:
    materialize(str(recaptioned_data), ["wide"], str(tmp_path / "out"))
    base, made = Dataset.open(recaptioned_data), Dataset.open(tmp_path / "out")
    for old, new in zip(base.samples("train-000000"), made.samples("train-000000", verify=True), strict=True):
        assert (old.key, old.image, old.suffix) == (new.key, new.image, new.suffix)
    for shard, marker in made.markers.items():
        told = marker.provenance
        assert told["materialized"]["base"] == base.markers[shard].provenance
        assert told["captioner"] == told["materialized"]["wide"]["captioner"]
        assert told["proposer"]["name"] == "manual"
    dataset = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert dataset["complete"]
    assert dataset["configuration"]["captioner"]["name"] == "rule"


def test_it_goes_on_where_it_stood(recaptioned_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    materialize(str(recaptioned_data), ["wide"], str(tmp_path / "undisturbed"))
    written = step.commit

    def dying(storage: object, name: str, files: object) -> bool:
        if name == "train-000001":
            raise KeyboardInterrupt
        return written(storage, name, files)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(step, "commit", dying)
        materialize(str(recaptioned_data), ["wide"], str(tmp_path / "out"))
    assert materialize(str(recaptioned_data), ["wide"], str(tmp_path / "out")).num_units_run == 1
    assert digests(tmp_path / "out") == digests(tmp_path / "undisturbed")
    assert materialize(str(recaptioned_data), ["wide"], str(tmp_path / "out")).num_units_run == 0


def test_an_output_of_something_else_is_refused(recaptioned_data: Path, tmp_path: Path) -> None:
    recaptioned(recaptioned_data, "same")
    materialize(str(recaptioned_data), ["wide"], str(tmp_path / "out"))
    with pytest.raises(PlanError, match=r"materialized.overlays.same: None in OUTPUT"):
        materialize(str(recaptioned_data), ["same"], str(tmp_path / "out"))
    with pytest.raises(PlanError, match="was made otherwise"):
        materialize(str(recaptioned_data), ["wide"], str(recaptioned_data))


def test_columns_without_a_place_are_refused(recaptioned_data: Path, tmp_path: Path) -> None:
    for shard, marker in Dataset.open(recaptioned_data).markers.items():
        rows = Dataset.open(recaptioned_data).regions(["key", "region_id", "status"], [shard]).to_pylist()
        ids = [(row["key"], row["region_id"]) for row in rows if row["region_id"] and row["status"] == "ok"]
        table = pa.table(
            {
                "key": pa.array([key for key, _ in ids]),
                "region_id": pa.array([region_id for _, region_id in ids]),
                "clip_score": pa.array([0.5] * len(ids), pa.float32()),
            }
        )
        write_overlay(str(recaptioned_data), marker, "scores", table)
    with pytest.raises(DatasetError, match="'scores' adds clip_score, which no shard's table has a column for"):
        materialize(str(recaptioned_data), ["scores"], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_unfinished_data_set_is_refused(recaptioned_data: Path, tmp_path: Path) -> None:
    for path in recaptioned_data.glob("train-000000.*"):
        path.unlink()
    (recaptioned_data / "dataset.json").unlink()
    with pytest.raises(DatasetError, match="lacks train-000000; finish the data set"):
        materialize(str(recaptioned_data), ["wide"], str(tmp_path / "out"))


def test_both_splits(tars: Path, tmp_path: Path) -> None:
    job.annotate([str(tars)], str(tmp_path / "data"), configuration=configuration(val_fraction=0.5))
    recaptioned(tmp_path / "data")
    totals = materialize(str(tmp_path / "data"), ["wide"], str(tmp_path / "out")).totals
    assert (totals.num_shards, totals.images.ok) == (4, 8)
    check_balance(tmp_path / "out")
    seen, made = Dataset.open(tmp_path / "data", overlays=["wide"]), Dataset.open(tmp_path / "out")
    columns = ["key", "region_id", "caption", "captioner", "status", "shard"]
    assert seen.regions(columns).to_pylist() == made.regions(columns).to_pylist()


def test_the_command(recaptioned_data: Path, tmp_path: Path) -> None:
    made = run("materialize", recaptioned_data, tmp_path / "out", "--overlay", "wide")
    assert made.code == 0, made
    assert "Nothing to do" in run("materialize", recaptioned_data, tmp_path / "out", "--overlay", "wide").out
    assert run("status", tmp_path / "out").code == 0
    assert run("doctor", tmp_path / "out").code == 0
    inside = run("materialize", recaptioned_data, recaptioned_data / "out", "--overlay", "wide")
    assert (inside.code, "lies in INPUT" in inside.err) == (2, True)
    missing = run("materialize", recaptioned_data, tmp_path / "other", "--overlay", "none")
    assert (missing.code, "there is no overlay 'none'; there are wide" in missing.err) == (2, True)


def test_edits_on_top_of_new_captions(recaptioned_data: Path, tmp_path: Path) -> None:
    region = Dataset.open(recaptioned_data, overlays=["wide"]).read_sample("000010001").record.regions[0]
    session = Session(str(recaptioned_data), overlays=["wide"])
    session.edit("train-000001", "000010001", region.id, caption="as I see it", label="mine")
    session.close()
    materialize(str(recaptioned_data), ["wide", "edits"], str(tmp_path / "out"))
    made, seen = Dataset.open(tmp_path / "out"), Dataset.open(recaptioned_data, overlays=["wide"])
    edited = made.read_sample("000010001").record.regions[0]
    assert (edited.caption, edited.label, edited.captioner) == ("as I see it", "mine", "edits")
    assert list(made.samples("train-000000")) == list(seen.samples("train-000000"))
    assert made.markers[ShardName("train", 1)].provenance["materialized"].keys() == {"base", "wide", "edits"}
    check_balance(tmp_path / "out")
