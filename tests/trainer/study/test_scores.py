"""Scores of rows to lines that are kept, and back."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.study.scores import numbers, scores_by_image

ROWS = {
    "task": ["words"] * 5,
    "metric": ["shape"] * 4 + ["size"],
    "key": ["b", "a", "b", "b", "a"],
    "score": [1.0, 0.0, 0.0, 1.0, 1.0],
}


def write(path: Path, rows: dict[str, list[object]]) -> Path:
    pq.write_table(pa.table(rows), path)
    return path


def test_rows_of_an_image_are_counted_in_the_order_of_keys(tmp_path):
    found = scores_by_image(write(tmp_path / "scores.parquet", ROWS), {"words.shape", "words.colour"})
    assert set(found) == {"words.shape"}
    assert numbers(found["words.shape"]["hits"]).tolist() == [0, 2]
    assert numbers(found["words.shape"]["rows"]).tolist() == [1, 3]


def test_other_images_have_another_hash(tmp_path):
    other = ROWS | {"key": ["c", "a", "c", "c", "a"]}
    wanted = {"words.shape"}
    one, two = (
        scores_by_image(write(tmp_path / f"{number}.parquet", rows), wanted)["words.shape"]
        for number, rows in enumerate((ROWS, other))
    )
    assert one["hits"] == two["hits"] and one["images"] != two["images"]
