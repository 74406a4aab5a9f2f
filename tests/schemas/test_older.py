"""Data sets that earlier releases wrote, committed as they were, are read by this one.

`older/first` was written before schema revision 2: records without `image_captions`, `source_id`, `is_crowd` and
`mask_rle`, a table without those columns, markers that do not say which release wrote them.
"""

import shutil
from pathlib import Path

from schemas.dataset import Dataset
from schemas.tables import REGION_SCHEMA
from tests.builders import run

FIRST = Path(__file__).parent / "older" / "first"


def test_its_samples_and_rows_are_read_and_what_it_does_not_say_is_null():
    dataset = Dataset.open(FIRST)
    samples = [sample for shard in dataset.shards for sample in dataset.samples(shard, verify=True)]
    assert [(sample.key, sample.image_caption, sample.record.num_regions) for sample in samples] == [
        ("a", "image a", 2), ("b", "image b", 2),
    ]  # fmt: skip
    assert dataset.read_sample("b").record.regions[0].source_id is None
    rows = dataset.regions()
    assert rows.schema.equals(REGION_SCHEMA)
    assert (rows.num_rows, rows["image_captions"].null_count, rows["is_crowd"].null_count) == (11, 11, 11)
    assert dataset.markers[dataset.shards[0]].written_by is None


def test_doctor_finds_nothing_wrong_with_it():
    outcome = run("doctor", FIRST)
    assert outcome.code == 0, outcome


def test_it_is_an_input_whose_regions_keep_their_ids(tmp_path):
    source = shutil.copytree(FIRST, tmp_path / "first")
    outcome = run("annotate", source, tmp_path / "out", "--proposer", "manual", "--captioner", "rule")
    assert outcome.code == 0, outcome
    before = {region.id for s in Dataset.open(FIRST).samples("train-000000") for region in s.record.regions}
    after = [region for s in Dataset.open(tmp_path / "out").samples("train-000000") for region in s.record.regions]
    assert {region.source_id for region in after} == before
