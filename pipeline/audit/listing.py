"""The filter list that thresholds make: the rows that go, each with the reason, as train, export and others take it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.audit.filters import BY_NAME
from pipeline.audit.sweep import Thresholds, dropped_by, values_of
from schemas.tables import FILTER_SCHEMA


def write_filter_list(path: Path, tables: Iterator[pa.Table], thresholds: Thresholds) -> int:
    """Write the filter list of `tables` of measures, one at a time; return how many rows it has. Raises OSError."""
    temporary = path.with_name(f"{path.name}.new")
    num_rows = 0
    with pq.ParquetWriter(temporary, FILTER_SCHEMA, compression="zstd") as writer:
        for table in tables:
            rows = dropped_rows(table, thresholds)
            num_rows += len(rows)
            writer.write_table(rows)
    temporary.replace(path)
    return num_rows


def dropped_rows(table: pa.Table, thresholds: Thresholds) -> pa.Table:
    """Return the rows of a filter list for a shard's measures.

    A dropped image has one row, and its regions none; the note says which filters drop it, and by which number.
    """
    is_region = pc.is_valid(table["region_id"]).to_numpy()
    drops = dropped_by(table, thresholds)
    by_image = [drop for name, drop in drops.items() if BY_NAME[name].of_images]
    with_image = np.any([*by_image, np.zeros(len(table), np.bool_)], axis=0)
    gone = np.any([*drops.values(), np.zeros(len(table), np.bool_)], axis=0) & ~(with_image & is_region)
    rows = np.flatnonzero(gone)
    notes: list[list[str]] = [[] for _ in rows]
    for name, drop in drops.items():
        values = values_of(table, BY_NAME[name])
        for note, row in zip(notes, rows.tolist(), strict=True):
            if drop[row]:
                note.append(f"{name} {values[row]:.4g}")
    taken = table.select(["key", "region_id"]).take(pa.array(rows))
    columns = [taken["key"], taken["region_id"], pa.array([False] * len(rows)), pa.array([", ".join(n) for n in notes])]
    return pa.table(columns, names=FILTER_SCHEMA.names).cast(FILTER_SCHEMA)
