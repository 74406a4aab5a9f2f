"""What an evaluation scored image by image, in a line a metric: small enough to be kept with a cell.

A line holds a number an image that was asked about, hits and rows apart, in the order of the images' keys.
"""

from collections.abc import Set
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainer.study.statistics import Counts


def scores_by_image(path: Path, wanted: Set[str]) -> dict[str, dict[str, str]]:
    """Return what the metrics `wanted`, named `TASK.METRIC`, have in the table at `path`.

    `images` is a hash of the images' keys; `hits` and `rows` are numbers, a blank between two.
    """
    table = pq.read_table(path)
    names = pc.binary_join_element_wise(table["task"].cast(pa.string()), table["metric"].cast(pa.string()), ".")
    found = {}
    for name in sorted(wanted & set(pc.unique(names).to_pylist())):
        own = table.filter(pc.equal(names, name)).group_by("key").aggregate([("score", "sum"), ("score", "count")])
        own = own.sort_by("key")
        keys = "\n".join(own["key"].to_pylist())
        found[name] = {
            "images": sha256(keys.encode()).hexdigest()[:16],
            "hits": " ".join(f"{hits:g}" for hits in own["score_sum"].to_pylist()),
            "rows": " ".join(map(str, own["score_count"].to_pylist())),
        }
    return found


def numbers(line: str) -> Counts:
    """Return a line's numbers, `[I]`."""
    return np.array(line.split(), dtype=np.float64)
