"""The command `audit`: counts that agree with the list, a list that readers take, and shards that stay as they are."""

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.audit.filters import BY_NAME, FILTERS
from pipeline.audit.layout import read_measures
from pipeline.audit.sweep import Sweep
from schemas.dataset import Dataset
from schemas.filters import load_filter
from tests.builders import CHEAP, annotate, data_files, digests, run, write_tar
from tests.builders import members as tar_members
from tests.shards import tiny_sample, write_shard


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen scenes in three shards, a fifth of the captions swapped, scored by the mini."""
    data = tmp_path_factory.mktemp("audited") / "data"
    annotate("scenes:18?seed=3", data, flags=[*CHEAP, "--shard-size", "6"])
    assert run("truth", data, "--swap", "0.2").code == 0
    assert run("score-regions", data, "--model", "mini", "--as", "fit", "--overlay", "swapped").code == 0
    return data


SEEN = ("--overlay", "swapped", "--overlay", "fit")


def audited(data: Path, out: Path, *flags: str) -> dict[str, Any]:
    outcome = run("audit", data, out, *flags)
    assert outcome.code == 0, outcome
    return json.loads((out / "audit.json").read_text())


def by_name(said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in said["filters"]}


def num_regions(data: Path, **settings: Any) -> int:
    rows = Dataset.open(data, **settings).regions(["region_id", "status"]).to_pylist()
    return sum(row["status"] == "ok" and row["region_id"] is not None for row in rows)


def test_the_list_drops_what_the_report_says_and_the_shards_stay(data: Path, tmp_path: Path) -> None:
    before = digests(data)
    said = audited(data, tmp_path / "out", *SEEN)
    assert digests(data) == before
    kept = num_regions(data, overlays=["swapped", "fit"], filters=[tmp_path / "out/filter.parquet"])
    assert said["regions"]["audited"] == num_regions(data)
    assert kept == said["regions"]["audited"] - said["regions"]["dropped"] < said["regions"]["audited"]
    rows = load_filter(tmp_path / "out/filter.parquet").rows.to_pylist()
    assert len(rows) == said["num_rows_of_list"] and not any(row["keep"] for row in rows)
    assert any(re.search(r"margin_in_image -\d", row["note"]) for row in rows)
    page = (tmp_path / "out/audit.html").read_text()
    assert "data:image/jpeg" in page and "http:" not in page and "https:" not in page and "<script" not in page


def test_what_lies_in_a_folder_called_like_a_partition_has_no_further_columns(data: Path, tmp_path: Path) -> None:
    audited(data, tmp_path / "key=1/out", *SEEN)
    audited(data, tmp_path / "out", *SEEN)
    for shard in Dataset.open(data).shards:
        assert read_measures(tmp_path / "key=1/out", shard).equals(read_measures(tmp_path / "out", shard))


def test_every_count_of_a_threshold_is_that_of_the_rows(data: Path, tmp_path: Path) -> None:
    said = audited(data, tmp_path / "out", *SEEN, "--against", "scenes:5?seed=3")
    tables = [read_measures(tmp_path / "out", shard) for shard in Dataset.open(data).shards]
    rows = [row for row in pa.concat_tables(tables).to_pylist() if row["region_id"] is not None]
    for each in said["filters"]:
        values = np.array([row[each["column"]] for row in rows], dtype=np.float32)
        told = {entry["threshold"]: entry["dropped"] for entry in each["thresholds"]}
        for threshold, dropped in told.items():
            assert BY_NAME[each["name"]].drops(values, threshold).sum() == dropped, each["name"]
    assert by_name(said)["against"]["dropped"] > 0
    assert said["images"]["dropped"] == 5, "the first five scenes are those of the other set"
    copies = [row["against_of"] for row in rows if row["against"] == 0]
    assert copies and all(row["key"] == row["against_of"] for row in rows if row["against"] == 0)


def test_a_filter_that_was_not_measured_has_a_row_that_says_why(data: Path, tmp_path: Path) -> None:
    outcome = run("audit", data, tmp_path / "out", "--no-images")
    said = dict(re.findall(r"^(\w+) +not measured: (.+)$", outcome.out, re.MULTILINE))
    assert said["clip_score"] == "run `fineclip score-regions`, and name its overlay"
    assert said["against"].startswith("give --against INPUT") and "--no-images" in said["duplicate"]
    page = (tmp_path / "out/audit.html").read_text()
    assert page.count("not measured") == len(said)
    assert all(html.escape(reason) in page for reason in said.values())


def test_thresholds_are_taken_instead_of_the_recommended_ones_or_alone(data: Path, tmp_path: Path) -> None:
    said = by_name(audited(data, tmp_path / "out", *SEEN, "--threshold", "min_side=40", "--threshold", "overlap=off"))
    assert said["min_side"]["threshold"] == 40 and said["min_side"]["dropped"] > 0
    assert said["overlap"]["threshold"] is None and said["overlap"]["recommended"] == 0.9
    assert said["margin_in_image"]["threshold"] == 0
    only = audited(data, tmp_path / "out", *SEEN, "--only", "--threshold", "min_side=40")
    assert {name for name, each in by_name(only).items() if each["threshold"] is not None} == {"min_side"}
    assert only["regions"]["dropped"] == said["min_side"]["dropped"]
    nothing = audited(data, tmp_path / "out", *SEEN, "--only")
    assert nothing["regions"]["dropped"] == nothing["num_rows_of_list"] == 0


def test_it_goes_on_where_it_was_stopped_and_gives_the_same_files(data: Path, tmp_path: Path) -> None:
    audited(data, tmp_path / "out", *SEEN)
    whole = digests(tmp_path / "out")
    for name in ("measures/train-000001.parquet", "hashes/train-000002.parquet", "audit.json", "filter.parquet"):
        (tmp_path / "out" / name).unlink()
    audited(data, tmp_path / "out", *SEEN)
    assert digests(tmp_path / "out") == whole


def test_a_folder_of_something_else_is_refused(data: Path, tmp_path: Path) -> None:
    audited(data, tmp_path / "out", *SEEN)
    for flags in ([], [*SEEN, "--against", "scenes:2"], [*SEEN, "--no-images"]):
        outcome = run("audit", data, tmp_path / "out", *flags)
        assert outcome.code == 3 and "is an audit of something else: " in outcome.err, flags
    assert "whether images are compared was yes, and is no; name a new folder" in outcome.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    assert run("audit", data, tmp_path / "full").code == 3
    assert run("audit", data, "s3://bucket/out").code == 5
    assert run("audit", data, tmp_path / "other", "--no-images", "--against", "scenes:2").code == 2
    assert run("audit", data, tmp_path / "other", "--threshold", "min_side=nan").code == 2
    assert run("audit", data, tmp_path / "other", "--against", tmp_path / "nowhere").code == 2


def test_a_filter_list_below_an_audit_counts(data: Path, tmp_path: Path) -> None:
    audited(data, tmp_path / "first", *SEEN, "--only", "--threshold", "min_side=40")
    first = tmp_path / "first/filter.parquet"
    second = audited(data, tmp_path / "second", *SEEN, "--filter", str(first))
    assert second["regions"]["audited"] == num_regions(data, overlays=["swapped", "fit"], filters=[first])
    both = [first, tmp_path / "second/filter.parquet"]
    left = second["regions"]["audited"] - second["regions"]["dropped"]
    assert num_regions(data, overlays=["swapped", "fit"], filters=both) == left


def test_copies_of_images_are_found_and_go_with_their_regions(tmp_path: Path) -> None:
    twin = dict(tar_members("aa", image=None))["aa.jpg"]
    samples = [tar_members("aa"), tar_members("bb"), tar_members("cc", image=twin)]
    write_tar(tmp_path / "in/0.tar", samples)
    write_tar(tmp_path / "in/1.tar", [tar_members("dd", image=twin)])
    annotate(tmp_path / "in", tmp_path / "data")
    said = audited(tmp_path / "data", tmp_path / "out", "--threshold", "duplicate=3")
    assert said["images"]["dropped"] == 2
    rows = load_filter(tmp_path / "out/filter.parquet").rows.to_pylist()
    assert {(row["key"], row["region_id"]) for row in rows if row["note"].startswith("duplicate")} == {
        ("cc", None),
        ("dd", None),
    }
    kept = Dataset.open(tmp_path / "data", filters=[tmp_path / "out/filter.parquet"])
    images = set(kept.regions(["key"])["key"].to_pylist())
    assert images == {"aa", "bb"}


def test_a_hostile_caption_stays_text_and_unicode_is_shown(tmp_path: Path) -> None:
    sample = tiny_sample("a", num_regions=2)
    names = sample.record.regions[0].__struct_fields__
    for place, caption in enumerate(("<img src=x onerror=alert(1)>", "красная звезда 赤い星 🌟")):
        region = sample.record.regions[place]
        fields = {name: getattr(region, name) for name in names} | {"caption": caption}
        sample.record.regions[place] = type(region)(**fields)
    write_shard(str(tmp_path / "data"), [sample])
    audited(tmp_path / "data", tmp_path / "out", "--threshold", "min_words=40")
    page = (tmp_path / "out/audit.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page and "赤い星 🌟" in page


@pytest.mark.parametrize("num", [0, 1])
def test_data_with_hardly_a_region_are_audited(num: int, tmp_path: Path) -> None:
    samples = [tiny_sample("a", num_regions=num, num_filtered=1), tiny_sample("b", num_regions=0, num_filtered=0)]
    write_shard(str(tmp_path / "data"), samples, dead=["z"])
    said = audited(tmp_path / "data", tmp_path / "out")
    assert said["regions"] == {"audited": num, "dropped": said["regions"]["dropped"]}
    assert said["images"]["audited"] == 2
    assert pq.read_table(tmp_path / "out/filter.parquet").num_rows == said["num_rows_of_list"]


def test_an_empty_overlay_leaves_nothing_measured(data: Path, tmp_path: Path) -> None:
    said = by_name(audited(data, tmp_path / "out"))
    assert said["margin_in_image"]["measured"] == 0
    assert "score-regions" in said["margin_in_image"]["reason"] and "--against" in said["against"]["reason"]
    assert said["margin_in_image"]["thresholds"] == [] and said["margin_in_image"]["threshold"] is None


def test_a_lost_tar_is_named(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    copy.mkdir()
    for name, content in data_files(data).items():
        if name != "train-000001.tar":
            (copy / name).write_bytes(content)
    outcome = run("audit", copy, tmp_path / "out")
    assert outcome.code == 2 and "train-000001.tar" in outcome.err


def test_a_sweep_counts_at_every_threshold() -> None:
    rng = np.random.default_rng(0)
    for each in FILTERS:
        values = rng.uniform(each.low, each.high, 500).astype(np.float32)
        values[::7] = np.nan
        is_region = rng.random(500) < 0.8
        sweep = Sweep(filter=each)
        for part in (slice(0, 200), slice(200, 500)):
            sweep.add(values[part], is_region[part])
        wanted = [each.drops(values[is_region], limit).sum() for limit in each.thresholds]
        assert sweep.drops.tolist() == wanted
        assert (np.diff(sweep.drops) >= 0).all() if each.keeps == "at least" else (np.diff(sweep.drops) <= 0).all()
        assert all(0 <= at < len(each.thresholds) for at in sweep.telling())
