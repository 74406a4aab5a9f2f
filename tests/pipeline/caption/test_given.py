"""Captions of regions that come with the boxes, from three kinds of source, end to end."""

import json
from pathlib import Path

import pytest

from schemas.dataset import Dataset
from tests.builders import annotate, check_balance, jpeg, read_rows, run, write_files

FLAGS = ("--proposer", "manual", "--captioner", "given")
SAID = ["a red kite", None, " \n"]
"""Of three regions: a caption, none, and one without a word."""


def coco(folder: Path) -> str:
    boxes = [{"id": place, "image_id": 1, "bbox": [30 * place, 4, 20, 30]} for place in range(3)]
    annotations = [box | ({} if said is None else {"caption": said}) for box, said in zip(boxes, SAID, strict=True)]
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": annotations}
    write_files(folder, {"a.jpg": jpeg(0), "x.json": json.dumps(content).encode()})
    return f"coco:{folder}/x.json"


def imagefolder(folder: Path) -> str:
    boxes = [[30 * place, 4, 20, 30] for place in range(3)]
    row = {"file_name": "a.jpg", "objects": {"bbox": boxes, "caption": SAID}}
    return str(write_files(folder, {"a.jpg": jpeg(0), "metadata.jsonl": json.dumps(row).encode()}))


def regions(folder: Path) -> str:
    record = [
        {"id": str(place), "box": [30 * place, 4, 30 * place + 20, 34], "caption": said}
        for place, said in enumerate(SAID)
    ]
    return str(write_files(folder, {"a.jpg": jpeg(0), "a.json": json.dumps({"regions": record}).encode()}))


@pytest.mark.parametrize("source", [coco, imagefolder, regions])
def test_captions_of_regions_are_kept_and_a_region_without_one_is_dead(tmp_path, source):
    annotate(source(tmp_path / "in"), tmp_path / "out", "--max-dead", "1", flags=FLAGS)
    rows = {row["source_id"]: row for row in read_rows(tmp_path / "out") if row["region_id"]}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "0": None,
        "1": "empty_caption",
        "2": "empty_caption",
    }
    (sample,) = Dataset.open(tmp_path / "out").samples("train-000000")
    assert [region.caption for region in sample.record.regions] == ["a red kite"]
    check_balance(tmp_path / "out")
    # what was written is an input again
    annotate(tmp_path / "out", tmp_path / "again", flags=FLAGS)
    (sample,) = Dataset.open(tmp_path / "again").samples("train-000000")
    assert [region.caption for region in sample.record.regions] == ["a red kite"]


def test_other_proposers_regions_and_other_commands_have_no_source(tmp_path):
    refused = run("annotate", regions(tmp_path / "in"), tmp_path / "out", "--proposer", "selective_search", *FLAGS[2:])
    assert refused.code == 2
    assert "give --proposer manual, not selective_search" in refused.err
    refused = run("recaption", tmp_path / "out", "--as", "x", "--captioner", "given")
    assert refused.code == 2
    assert "recaption reads no source" in refused.err
