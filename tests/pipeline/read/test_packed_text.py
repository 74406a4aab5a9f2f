"""JSON and tables that are compressed by gzip: read as what they hold, and refused by name where they are cut."""

import gzip
import json
from pathlib import Path

import pytest

from pipeline.read import open_source
from pipeline.read.base import SourceError
from tests.builders import jpeg, write_files
from tests.pipeline.read.source_builders import read_all

COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 96, "height": 64}],
    "annotations": [{"id": 3, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40]}],
    "categories": [{"id": 1, "name": "cat"}],
}
TURN = {"image": "a.jpg", "conversations": [{"from": "gpt", "value": '{"bbox_2d": [10, 20, 40, 60]}'}]}
FILES = {
    "x.json.gz": json.dumps(COCO).encode(),
    "y.json.gz": json.dumps([TURN]).encode(),
    "z.jsonl.gz": json.dumps(TURN).encode() + b"\n",
}


@pytest.mark.parametrize("spec", ["{}/x.json.gz", "{}/y.json.gz", "{}/z.jsonl.gz", "grounding:{}"])
def test_compressed_json_is_read_and_its_kind_is_found(tmp_path: Path, spec: str) -> None:
    packed = {name: gzip.compress(data) for name, data in FILES.items()}
    (item,) = read_all(spec.format(write_files(tmp_path, {"a.jpg": jpeg(0), **packed})))
    assert [region.box for region in item.given] == [(10, 20, 40, 60)]


def test_a_compressed_table_of_captions_is_read(tmp_path: Path) -> None:
    table = gzip.compress(b"file_name,text\na.jpg,a cat\n")
    (item,) = read_all(f"{write_files(tmp_path, {'a.jpg': jpeg(0), 'c.csv.gz': table})}?captions=c.csv.gz")
    assert item.caption == "a cat"


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"{}" + data])
@pytest.mark.parametrize("kind", ["coco:{}/x.json.gz", "{}/y.json.gz", "grounding:{}/z.jsonl.gz"])
def test_a_file_that_is_cut_or_no_gzip_is_refused_by_name(tmp_path, damage, kind):
    packed = {name: damage(gzip.compress(data)) for name, data in FILES.items()}
    with pytest.raises(SourceError, match=r"[xyz]\.jsonl?\.gz: is no whole gzip file .*; fetch it again, or unpack it"):
        list(open_source(kind.format(write_files(tmp_path, {"a.jpg": jpeg(0), **packed}))).files())
