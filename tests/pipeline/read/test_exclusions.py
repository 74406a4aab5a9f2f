"""`annotate --filter`: what a person marked in the viewer is gone from the next data set, and nothing else."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.api import annotate as annotate_from_python
from pipeline.read.base import SourceError
from pipeline.read.exclusions import Exclusions, ReadSettings, load_exclusions
from pipeline.viewer.marks import Marks
from schemas.dataset import Dataset
from schemas.tables import FILTER_SCHEMA
from tests.builders import (
    CHEAP,
    annotate,
    check_balance,
    configuration,
    data_files,
    image_rows,
    members,
    read_markers,
    read_rows,
    run,
    write_photos,
    write_tar,
    write_tars,
)

BAD_IMAGE = "000010001"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of ours: two shards of three images with two regions each."""
    folder = tmp_path_factory.mktemp("shards")
    annotate(write_tars(folder / "tars", num_tars=2, num_images=3), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def bad_region(shards: Path) -> tuple[str, str]:
    """Key and id of a region."""
    record = Dataset.open(shards).read_sample("000000002").record
    return record.key, record.regions[0].id


@pytest.fixture
def marks(tmp_path: Path, bad_region: tuple[str, str]) -> Path:
    """Marks as the viewer saves them: a bad region, a bad image, and one to keep."""
    saved = Marks(tmp_path / "marks.jsonl")
    saved.put(*bad_region, keep=False, note="not a cat")
    saved.put(BAD_IMAGE, None, keep=False, note=None)
    saved.put("000000000", None, keep=True, note="fine")
    return tmp_path / "marks.jsonl"


def write_list(path: Path, *rows: tuple[str, str | None, bool]) -> Path:
    named = (dict(zip(("key", "region_id", "keep"), row, strict=True)) for row in rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in named))
    return path


def undecided(rows: list[dict[str, Any]]) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Rows by key and region, without what names the place in the tar, which moves."""
    places = ("tar_offset", "tar_size")
    return {(r["key"], r["region_id"]): {k: v for k, v in r.items() if k not in places} for r in rows}


def test_what_is_marked_bad_is_filtered_and_all_else_is_as_before(
    shards: Path, marks: Path, bad_region: tuple[str, str], tmp_path: Path
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    annotate(shards, before)
    outcome = annotate(shards, after, "--filter", marks)
    assert "Filter lists took away 1 of 1 images." in outcome.out
    assert "Filter lists took away 1 of 1 regions." in outcome.out
    check_balance(after)
    old, new = undecided(read_rows(before)), undecided(read_rows(after))
    image, region = new.pop((BAD_IMAGE, None)), new.pop(bad_region)
    assert (image["status"], image["reason"], image["stage"]) == ("filtered", "excluded", "read")
    assert (region["status"], region["reason"], region["stage"]) == ("filtered", "excluded", "select")
    assert bad_region[1] in region["message"] and region["caption"] is None
    assert [region[side] for side in ("x0", "y0", "x1", "y1")] == [old[bad_region][s] for s in ("x0", "y0", "x1", "y1")]
    assert new == {name: row for name, row in old.items() if name[0] != BAD_IMAGE and name != bad_region}
    dataset = Dataset.open(after)
    keys = [sample.key for shard in dataset.shards for sample in dataset.samples(shard)]
    assert BAD_IMAGE not in keys and len(keys) == 5
    assert bad_region[1] not in [region.id for region in dataset.read_sample(bad_region[0]).record.regions]
    assert run("doctor", after).code == 0


def test_the_result_is_what_a_reader_sees_through_the_list(shards: Path, marks: Path, tmp_path: Path) -> None:
    annotate(shards, tmp_path / "out", "--filter", marks)
    seen, made = Dataset.open(shards, filters=[marks]), Dataset.open(tmp_path / "out")

    def regions(dataset: Dataset) -> list[tuple[str, list[tuple[float, ...]]]]:
        samples = (sample for shard in dataset.shards for sample in dataset.samples(shard))
        return [(sample.key, [tuple(region.box) for region in sample.record.regions]) for sample in samples]

    assert regions(made) == regions(seen)


@pytest.mark.parametrize("flags", [("--two-pools",), ("--workers", "2")])
def test_other_engines_write_the_same_bytes(shards: Path, marks: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    annotate(shards, tmp_path / "one", "--filter", marks)
    annotate(shards, tmp_path / "two", "--filter", marks, *flags)
    assert data_files(tmp_path / "two") == data_files(tmp_path / "one")


def test_a_resume_writes_the_same_bytes(shards: Path, marks: Path, tmp_path: Path) -> None:
    annotate(shards, tmp_path / "out", "--filter", marks)
    whole = data_files(tmp_path / "out")
    for path in [*(tmp_path / "out").glob("train-000001.*"), *(tmp_path / "out" / "_commit").glob("train-000001*")]:
        path.unlink()
    annotate(shards, tmp_path / "out", "--filter", marks)
    assert data_files(tmp_path / "out") == whole


def test_other_decisions_are_another_configuration(shards: Path, marks: Path, tmp_path: Path) -> None:
    annotate(shards, tmp_path / "out", "--filter", marks)
    more = write_list(tmp_path / "more.jsonl", ("000000001", None, False))
    for flags in ((), ("--filter", marks, "--filter", more)):
        refused = run("annotate", shards, tmp_path / "out", *CHEAP, *flags)
        assert refused.code == 3 and "filter" in refused.err and "another configuration" in refused.err


def test_the_same_decisions_in_other_words_are_the_same_configuration(
    shards: Path, marks: Path, bad_region: tuple[str, str], tmp_path: Path
) -> None:
    annotate(shards, tmp_path / "out", "--filter", marks)
    rows = [{"key": BAD_IMAGE, "region_id": None, "keep": False, "note": "another"}]
    pq.write_table(pa.Table.from_pylist(rows, schema=FILTER_SCHEMA), tmp_path / "images.parquet")
    regions = write_list(tmp_path / "regions.jsonl", (*bad_region, False), ("000010000", None, True))
    annotate(shards, tmp_path / "out", "--filter", tmp_path / "images.parquet", "--filter", regions)


def test_a_list_that_takes_nothing_away_changes_nothing(shards: Path, tmp_path: Path) -> None:
    keeps = write_list(tmp_path / "keeps.jsonl", ("000000000", None, True))
    annotate(shards, tmp_path / "out")
    annotate(shards, tmp_path / "out", "--filter", keeps)


def test_regions_of_a_list_decide_nothing_for_proposers_that_find_their_own(bad_region: tuple[str, str]) -> None:
    plain = configuration(proposer="selective_search")
    read = ReadSettings(excluded=Exclusions(regions=frozenset({bad_region})))
    assert configuration(proposer="selective_search", read=read).as_json() == plain.as_json()
    assert configuration(read=read).fingerprint() != configuration().fingerprint()
    assert "filter" not in configuration().as_json()


def test_regions_that_do_not_matter_are_named(shards: Path, marks: Path, tmp_path: Path) -> None:
    flags = ("--proposer", "selective_search", "--captioner", "rule", "--limit", "1", "--filter", marks)
    outcome = run("annotate", shards, tmp_path / "out", *flags)
    assert outcome.code == 0, outcome
    said = " ".join(outcome.out.split())
    assert "1 regions of the filter lists do not matter to selective_search" in said
    assert "took away 0 of 1 images; the rest met nothing that was read" in said


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("nobody", None, False), "no such image in the data set: nobody"),
        (("000000000", "0" * 16, False), "no such region in the data set: 000000000/0000000000000000"),
        (("nobody", None, True), "no such image"),
    ],
)
def test_a_row_that_names_nothing_in_our_shards_is_refused_before_any_work(
    shards: Path, tmp_path: Path, row: tuple[str, str | None, bool], said: str
) -> None:
    refused = run("annotate", shards, tmp_path / "out", *CHEAP, "--filter", write_list(tmp_path / "list.jsonl", row))
    assert refused.code == 2 and said in refused.err and "list.jsonl" in refused.err
    assert not (tmp_path / "out").exists()


def test_several_inputs_are_named_with_their_prefixes(shards: Path, tmp_path: Path) -> None:
    other = write_tar(tmp_path / "tars" / "0.tar", [members("000000000"), members("x")]).parent
    annotate(other, tmp_path / "other")
    own = write_list(tmp_path / "own.jsonl", ("000000000", None, False))
    refused = run("annotate", shards, tmp_path / "other", tmp_path / "both", *CHEAP, "--filter", own)
    assert refused.code == 2 and "Keys begin with their INPUT's prefix, as in OUTPUT: out-, other-." in refused.err
    prefixed = write_list(tmp_path / "prefixed.jsonl", ("other-000000000", None, False))
    annotate(shards, tmp_path / "other", tmp_path / "both", "--filter", prefixed)
    reasons = {key: row["reason"] for key, row in image_rows(tmp_path / "both").items() if row["reason"]}
    assert reasons == {"other-000000000": "excluded"}


def test_images_of_any_input_can_be_left_out_by_key(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    (photos / "001.jpg").write_bytes(b"not an image")
    images = write_list(tmp_path / "list.jsonl", ("001", None, False), ("009", None, False))
    outcome = annotate(photos, tmp_path / "out", "--filter", images)
    assert "Filter lists took away 1 of 2 images; the rest met nothing that was read." in outcome.out
    check_balance(tmp_path / "out")
    assert {key: row["reason"] for key, row in image_rows(tmp_path / "out").items()} == {
        "000": None,
        "001": "excluded",  # though it could not be decoded either
        "002": None,
    }


def test_regions_of_an_input_without_ids_are_refused(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    regions = write_list(tmp_path / "list.jsonl", ("000", "0" * 16, False))
    refused = run("annotate", photos, tmp_path / "out", *CHEAP, "--filter", regions)
    assert refused.code == 2 and "no INPUT gives its regions ids" in refused.err


def test_a_tar_of_others_among_shards_is_named(shards: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    write_tar(mixed / "z.tar", [members("z")])
    for path in shards.glob("train-000000.*"):
        (mixed / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"z\.tar: has no table of a shard beside it"):
        load_exclusions([str(write_list(tmp_path / "list.jsonl", ("z", None, False)))], [str(mixed)], proposer="manual")


def test_numbered_regions_of_others_have_ids_too_and_odd_ones_do_no_harm(tmp_path: Path) -> None:
    sample = [(name, data) for name, data in members("a") if not name.endswith("json")]
    record = {"regions": [{"id": 7, "box": [2, 2, 30, 40]}, {"id": {"x": 1}, "box": [50, 10, 90, 60]}]}
    source = write_tar(tmp_path / "tars" / "0.tar", [[*sample, ("a.json", json.dumps(record).encode())]])
    named = write_list(tmp_path / "list.jsonl", ("a", "7", False))
    outcome = annotate(source, tmp_path / "out", "--filter", named)
    assert "Filter lists took away 1 of 1 regions" in outcome.out
    assert sum(marker.regions.ok for marker in read_markers(tmp_path / "out")) == 1


def test_a_list_that_is_not_there_is_wrong_usage(shards: Path, tmp_path: Path) -> None:
    refused = run("annotate", shards, tmp_path / "out", *CHEAP, "--filter", tmp_path / "gone.jsonl")
    assert refused.code == 2 and "cannot read this filter list" in refused.err


def test_a_config_file_and_python_name_lists_too(shards: Path, marks: Path, tmp_path: Path) -> None:
    annotate(shards, tmp_path / "flags", "--filter", marks)
    config = tmp_path / "config.yaml"
    config.write_text(f"filter:\n- {marks}\n")
    annotate(shards, tmp_path / "config", "--config", config)
    settings = {"proposer": "manual", "captioner": "rule", "filter": [str(marks)]}
    annotate_from_python(str(shards), str(tmp_path / "python"), **settings)
    wanted = data_files(tmp_path / "flags")
    assert data_files(tmp_path / "config") == wanted == data_files(tmp_path / "python")


def test_what_travels_to_workers_is_what_was_read(marks: Path, shards: Path, bad_region: tuple[str, str]) -> None:
    excluded = load_exclusions([str(marks)], [str(shards)], proposer="manual")
    marks.unlink()
    assert pickle.loads(pickle.dumps(excluded)) == excluded
    assert excluded == Exclusions(images=frozenset({BAD_IMAGE}), regions=frozenset({bad_region}))


def test_a_damaged_table_is_named(shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in shards.glob("train-*"):
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "train-000001.parquet").write_bytes(np.random.default_rng(0).bytes(100))
    named = write_list(tmp_path / "list.jsonl", (BAD_IMAGE, None, False))
    with pytest.raises(SourceError, match=r"train-000001\.parquet: cannot be read"):
        load_exclusions([str(named)], [str(copy)], proposer="manual")
