"""What the viewer answers of an audit and of features; no torch, no Beam."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.audit.layout import read_measures
from pipeline.viewer.features import FeatureIndex
from pipeline.viewer.source import open_source
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.overlays import FEATURES
from tests.builders import run
from tests.pipeline.viewer.data import region_id
from tests.pipeline.viewer.serving import serving
from tests.shards import write_overlay


@pytest.fixture
def audit(url, tmp_path):
    outcome = run("audit", url, tmp_path / "audit")
    assert outcome.code == 0, outcome
    return tmp_path / "audit"


@pytest.fixture
def features(url):
    """Features of the plane for all ok regions: the first of each image points up, the others right."""
    dataset = Dataset.open(url)
    for shard in dataset.shards:
        rows = dataset.regions(["key", "region_id", "status"], [shard]).to_pylist()
        rows = [row for row in rows if row["region_id"] and row["status"] == "ok"]
        up, right, seen, vectors = [0.0, 1.0], [1.0, 0.0], set(), []
        for row in rows:
            vectors.append(right if row["key"] in seen else up)
            seen.add(row["key"])
        column = pa.array(vectors, pa.list_(pa.float16()))
        table = pa.table({"key": [r["key"] for r in rows], "region_id": [r["region_id"] for r in rows]})
        for name in FEATURES:
            table = table.append_column(name, column)
        write_overlay(url, dataset.markers[shard], "feats", table)
    return "feats"


@pytest.fixture
def served(url, audit, features, open_session):
    with serving(open_session(url, audit=str(audit), features=features)) as running:
        yield running


def test_thresholds_drop_what_the_measures_say(served, url, audit):
    about = served.get("/api/audit").json
    assert {"overlap", "min_side", "min_words"} <= {each["name"] for each in about["filters"]}
    assert all(len(each["bins"]) == 48 and each["ends"][0] < each["ends"][1] for each in about["filters"])
    tables = [read_measures(audit, shard) for shard in Dataset.open(url).shards]
    rows = [row for row in pa.concat_tables(tables).to_pylist() if row["region_id"] is not None]
    found = served.get("/api/drops?min_side=11&min_words=3&show=min_words").json
    narrow, short = ([row["side"] < 11 for row in rows], [row["words"] < 3 for row in rows])
    assert found["regions"] == len(rows)
    assert found["each"]["min_side"]["dropped"] == sum(narrow)
    assert found["each"]["min_words"]["dropped"] == sum(short)
    assert found["regions_dropped"] == sum(map(max, zip(narrow, short, strict=True)))
    assert found["each"]["min_words"]["only"] == sum(s and not n for n, s in zip(narrow, short, strict=True))
    assert all(each["value"] < 3 for each in found["sides"]["dropped"])
    assert all(each["value"] >= 3 for each in found["sides"]["kept"])
    shown = [each["item"]["regions"][0]["id"] for side in found["sides"].values() for each in side]
    assert shown and set(shown) <= {row["region_id"] for row in rows}


def test_what_is_chosen_becomes_a_filter_list(served, url, audit):
    body = json.dumps({"thresholds": {"min_words": 3}}).encode()
    sent = {"Origin": served.origin, "Content-Type": "application/json"}
    answer = served.request("POST", "/api/choose", body=body, headers=sent)
    assert answer.status == 200
    assert answer.json["path"] == str(audit / "chosen.parquet")
    dropped = served.get("/api/drops?min_words=3").json["regions_dropped"]
    assert answer.json["rows"] == dropped > 0
    kept = Dataset.open(url, filters=[answer.json["path"]])
    assert len(Dataset.open(url).regions()) - len(kept.regions()) == dropped


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("/api/drops?min_side=nan", 400, "finite"),
        ("/api/drops?min_side=inf", 400, "finite"),
        ("/api/drops?min_side=x", 400, "finite"),
        ("/api/drops?nothing=1", 400, "no filter nothing"),
        ("/api/drops?min_side=1&show=overlap", 400, "show"),
        ("/api/near/train-000000/a/nobody", 404, "no features"),
        (f"/api/near/train-000000/a/{region_id('a', 0)}?by=colour", 400, "choose from"),
    ],
)
def test_what_cannot_be_asked_is_said(served, path, status, why):
    answer = served.get(path)
    assert answer.status == status and why in answer.json["error"]


def test_a_choice_that_is_none_is_refused(served):
    sent = {"Origin": served.origin, "Content-Type": "application/json"}
    for thresholds, status in (({"nothing": 1}, 400), ({"min_side": "wide"}, 400)):
        body = json.dumps({"thresholds": thresholds}).encode()
        assert served.request("POST", "/api/choose", body=body, headers=sent).status == status
    foreign = {"Origin": "http://elsewhere.example", "Content-Type": "application/json"}
    body = json.dumps({"thresholds": {}}).encode()
    assert served.request("POST", "/api/choose", body=body, headers=foreign).status == 403


def test_without_an_audit_or_features_the_pages_say_how_to_open_one(client):
    for path, flag in (("audit", "--audit"), ("drops", "--audit"), ("map", "--features"), ("near/s/k/r", "--features")):
        answer = client.get(f"/api/{path}")
        assert answer.status == 404 and flag in answer.json["error"]


def test_the_nearest_are_those_with_the_same_feature(served):
    found = served.get(f"/api/near/train-000000/a/{region_id('a', 0)}").json
    assert found["region"]["key"] == "a" and found["held"] == found["all"]
    values = [each["value"] for each in found["near"]]
    assert values == sorted(values, reverse=True) and values[0] == pytest.approx(1)
    assert region_id("a", 0) not in {each["item"]["regions"][0]["id"] for each in found["near"]}
    assert all(each["value"] in (0, 1) for each in found["near"])


def test_the_map_says_how_much_of_the_variance_it_shows(served):
    found = served.get("/api/map").json
    assert found["variance"] == pytest.approx(1, abs=1e-3), "the features are of the plane"
    assert len(found["points"]) == found["held"]
    assert np.abs(np.array([point[:2] for point in found["points"]])).max() == pytest.approx(1)


def test_of_many_regions_a_sample_is_held(url, features, monkeypatch):
    monkeypatch.setattr("pipeline.viewer.features.MOST_HELD", 2)
    found = FeatureIndex(open_source(url), features).map()
    assert found["held"] < found["all"]


def test_folders_and_overlays_that_hold_none_are_refused(url, tmp_path, open_session):
    with pytest.raises(DatasetError, match="no finished audit"):
        open_session(url, audit=str(tmp_path))
    with pytest.raises(DatasetError, match="there is no overlay 'nothing'"):
        open_session(url, features="nothing")


def test_looking_at_an_audit_needs_neither_opencv_nor_torch():
    code = (
        "import sys, pipeline.viewer.session, pipeline.cli.card; "
        "print(sorted({'cv2', 'torch', 'open_clip', 'apache_beam'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert ran.stdout.strip() == "[]", ran.stderr
