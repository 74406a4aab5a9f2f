"""Whole jobs through the real command: photographs to records, equal bytes every way, each flag that cuts inputs."""

import json
import shutil
import subprocess
import sys
import tarfile
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image

import pipeline
from schemas.dataset import Dataset
from schemas.records import decode_image_record
from tests.builders import (
    CHEAP,
    annotate,
    check_balance,
    data_files,
    image_rows,
    jpeg,
    members,
    read_markers,
    read_rows,
    run,
    write_files,
    write_photos,
    write_tar,
    write_tars,
)

BUNDLED = Path(pipeline.__file__).parent / "golden" / "photographs"
NAMES = ("cat", "coffee", "rocket")


WEIGHTLESS = ("--profile", "weightless", "--shard-size", "2")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the bundled photographs with their captions, a quarter as wide to be quick."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in NAMES:
        with Image.open(BUNDLED / f"{name}.jpg") as image:
            image.reduce(4).save(folder / f"{name}.jpg", quality=90)
        shutil.copy(BUNDLED / f"{name}.txt", folder)
    return folder


@pytest.fixture(scope="module")
def annotated(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs through selective search and the rule captioner, in two shards."""
    output = tmp_path_factory.mktemp("annotated") / "out"
    outcome = run("annotate", photographs, output, *WEIGHTLESS)
    assert outcome.code == 0, outcome
    return output


def test_photographs_become_records_that_decode_strictly(photographs: Path, annotated: Path):
    stored = {}
    for path in annotated.glob("train-*.tar"):
        with tarfile.open(path) as tar:
            stored.update({info.name: content(tar, info) for info in tar})
    assert sorted(stored) == sorted(f"{name}.{suffix}" for name in NAMES for suffix in ("jpg", "json", "txt"))
    for name in NAMES:
        assert stored[f"{name}.jpg"] == (photographs / f"{name}.jpg").read_bytes()
        record = decode_image_record(stored[f"{name}.json"], name)
        assert record.image_caption == (photographs / f"{name}.txt").read_text().removesuffix("\n")
        assert 0 < record.num_regions <= 6
        assert all(region.caption for region in record.regions)
        assert not record.reencoded


def content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    assert file is not None
    return file.read()


def test_photographs_balance_and_the_proposals_left_out_are_rows(annotated: Path):
    check_balance(annotated)
    markers = read_markers(annotated)
    assert [marker.images.inputs for marker in markers] == [2, 1]
    assert all(marker.regions.num_filtered for marker in markers)


@pytest.mark.parametrize("flags", [(), ("--two-pools",), ("--decode-threads", "5")])
def test_another_run_gives_the_same_bytes(photographs: Path, annotated: Path, tmp_path: Path, flags: tuple[str, ...]):
    outcome = run("annotate", photographs, tmp_path / "out", *WEIGHTLESS, *flags)
    assert outcome.code == 0, outcome
    assert data_files(tmp_path / "out") == data_files(annotated)


def test_two_processes_give_the_same_bytes(photographs: Path, annotated: Path, tmp_path: Path):
    command = [sys.executable, "-m", "pipeline", "annotate", photographs, tmp_path / "out"]
    ran = subprocess.run([*command, *WEIGHTLESS, "--workers", "2"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert data_files(tmp_path / "out") == data_files(annotated)


def test_an_output_can_be_annotated_again(photographs: Path, annotated: Path, tmp_path: Path):
    """The shards of one job are the input of the next: same keys, same boxes through `manual`."""
    annotate(annotated, tmp_path / "out", "--select.max-iou", "1")
    before, after = Dataset.open(annotated), Dataset.open(tmp_path / "out")
    for key in NAMES:
        boxes = {region.box for region in before.read_sample(key).record.regions}
        assert {region.box for region in after.read_sample(key).record.regions} == boxes


def keys(output: Path) -> list[list[str]]:
    """The keys in each shard."""
    dataset = Dataset.open(output)
    return [[sample.key for sample in dataset.samples(shard)] for shard in dataset.shards]


def all_keys(output: Path) -> list[str]:
    return [*chain.from_iterable(keys(output))]


def test_shard_size_cuts_a_folder(tmp_path: Path):
    annotate(write_photos(tmp_path / "in", 5), tmp_path / "out", "--shard-size", "2")
    assert keys(tmp_path / "out") == [["000", "001"], ["002", "003"], ["004"]]


def test_a_tar_is_a_shard_unless_repacked(tmp_path: Path):
    source = write_tars(tmp_path / "in", 3, 2)
    annotate(source, tmp_path / "kept")
    assert [len(shard) for shard in keys(tmp_path / "kept")] == [2, 2, 2]
    annotate(source, tmp_path / "packed", "--repack", "--shard-size", "4")
    assert [len(shard) for shard in keys(tmp_path / "packed")] == [4, 2]
    assert all_keys(tmp_path / "kept") == all_keys(tmp_path / "packed")


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_limit_takes_the_first_images(tmp_path: Path, limit: int):
    source = write_tars(tmp_path / "in", 2, 2)
    annotate(source, tmp_path / "all")
    annotate(source, tmp_path / "out", "--limit", str(limit))
    assert all_keys(tmp_path / "out") == all_keys(tmp_path / "all")[:limit]


def test_limit_holds_over_several_inputs(tmp_path: Path):
    first, second = write_photos(tmp_path / "a", 2), write_photos(tmp_path / "b", 2)
    annotate(first, second, tmp_path / "out", "--limit", "3")
    assert keys(tmp_path / "out") == [["a-000", "a-001"], ["b-000"]]


def test_several_inputs_prefix_their_keys_so_equal_ones_stay_apart(tmp_path: Path):
    first, second = write_photos(tmp_path / "one" / "photos", 2), write_photos(tmp_path / "two" / "photos", 2)
    outcome = annotate(first, second, tmp_path / "out")
    assert keys(tmp_path / "out") == [["photos-000", "photos-001"], ["photos_2-000", "photos_2-001"]]
    assert "more than one shard" not in outcome.out
    inputs = json.loads((tmp_path / "out" / "dataset.json").read_text())["inputs"]
    assert [planned["prefix"] for planned in inputs] == ["photos", "photos_2"]


def test_val_fraction_splits_by_key_without_overlap_or_loss(tmp_path: Path):
    source = write_photos(tmp_path / "in", 40)
    annotate(source, tmp_path / "out", "--val-fraction", "0.25", "--shard-size", "20")
    by_split: dict[str, set[str]] = {"train": set(), "val": set()}
    dataset = Dataset.open(tmp_path / "out")
    for shard in dataset.shards:
        by_split[shard.split] |= {sample.key for sample in dataset.samples(shard)}
    assert not by_split["train"] & by_split["val"]
    assert by_split["train"] | by_split["val"] == {f"{number:03d}" for number in range(40)}
    assert 2 <= len(by_split["val"]) <= 20
    check_balance(tmp_path / "out")
    annotate(source, tmp_path / "other", "--val-fraction", "0.25", "--shard-size", "7")
    other = Dataset.open(tmp_path / "other")
    val = {sample.key for shard in other.shards if shard.split == "val" for sample in other.samples(shard)}
    assert val == by_split["val"]


def test_drop_empty_filters_images_without_regions(tmp_path: Path):
    source = write_tar(tmp_path / "a.tar", [members("full"), members("empty", boxes=[])])
    annotate(source, tmp_path / "kept")
    assert keys(tmp_path / "kept") == [["full", "empty"]]
    assert Dataset.open(tmp_path / "kept").read_sample("empty").record.num_regions == 0
    annotate(source, tmp_path / "dropped", "--drop-empty")
    assert keys(tmp_path / "dropped") == [["full"]]
    row = image_rows(tmp_path / "dropped")["empty"]
    assert (row["status"], row["reason"], row["stage"]) == ("filtered", "no_regions", "caption")
    check_balance(tmp_path / "dropped")


def test_append_takes_new_files_and_leaves_finished_shards_alone(tmp_path: Path):
    folder = write_photos(tmp_path / "in", 2)
    annotate(folder, tmp_path / "out")
    before = data_files(tmp_path / "out")
    write_files(folder, {"new.jpg": jpeg(9)})
    refused = run("annotate", folder, tmp_path / "out", *CHEAP)
    assert refused.code == 3
    assert "1 added, such as new.jpg; give --append to take the new files" in refused.err
    annotate(folder, tmp_path / "out", "--append")
    assert keys(tmp_path / "out") == [["000", "001"], ["new"]]
    after = data_files(tmp_path / "out")
    assert {name: after[name] for name in before if name.startswith("train-000000")} == {
        name: data for name, data in before.items() if name.startswith("train-000000")
    }
    check_balance(tmp_path / "out")


def test_append_takes_another_input_under_a_prefix_of_its_own(tmp_path: Path):
    first, second = write_photos(tmp_path / "a", 2), write_photos(tmp_path / "b", 2)
    annotate(first, tmp_path / "out")
    annotate(second, tmp_path / "out", "--append")
    assert keys(tmp_path / "out") == [["000", "001"], ["b-000", "b-001"]]
    assert "Nothing to do" in annotate(first, second, tmp_path / "out").out


def test_rows_of_an_image_are_adjacent_its_own_first(tmp_path: Path):
    annotate(write_tars(tmp_path / "in", 1, 3), tmp_path / "out")
    rows = read_rows(tmp_path / "out")
    assert [row["region_id"] is None for row in rows] == [True, False, False, False, False] * 3
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
