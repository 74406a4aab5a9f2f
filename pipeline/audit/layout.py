"""What lies in the folder of an audit.

OUT/audit.html audit.json              the report
OUT/filter.parquet                     the filter list
OUT/chosen.parquet                     one that was chosen in the viewer
OUT/measures/train-000000.parquet      the measures, a row for each ok image and region
OUT/hashes/train-000000.parquet        the images' perceptual hashes
OUT/plan.json                          what it is an audit of
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.names import ShardName

PLAN, REPORT, PAGE, LIST, CHOSEN = "plan.json", "audit.json", "audit.html", "filter.parquet", "chosen.parquet"
MEASURES, HASHES = "measures", "hashes"


def measures_file(out: Path, shard: ShardName | str) -> Path:
    """Return where a shard's measures are."""
    return out / MEASURES / f"{shard}.parquet"


def read_measures(out: Path, shard: ShardName | str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the measures of a shard that is there."""
    return pq.read_table(measures_file(out, shard), columns=columns, partitioning=None)
