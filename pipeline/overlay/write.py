"""Writing an overlay's part of one shard: a table and its marker, committed as a shard's files are.

The decision's name holds the hash of the shard's table, so what was decided for one table is never taken for another.
"""

from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.overlay.plan import BaseShard
from pipeline.store.commit import Decision, commit, newest
from pipeline.store.scratch import scratch_token
from pipeline.store.storage import Storage
from pipeline.write.shard_writer import HashingFile
from pipeline.write.shards import release
from schemas.overlays import JOIN_COLUMNS
from schemas.records import Counts, OverlayMarker, decode_overlay_marker, encode


def file_names(base: BaseShard, overlay: str) -> tuple[str, str]:
    """Return the names of the table and of the marker."""
    return f"{base.shard}.{overlay}.parquet", f"{base.shard}.{overlay}.json"


def commit_overlay(
    storage: Storage,
    base: BaseShard,
    overlay: str,
    table: pa.Table,
    *,
    fingerprint: str,
    provenance: dict[str, Any],
    partial: bool = False,
    regions: Counts | None = None,
    decision: str | None = None,
    repair: int | None = None,
) -> None:
    """Commit `table`, which holds `key`, `region_id` and the overlay's columns, as the overlay's part of a shard.

    Where another attempt was chosen, that one is published. `fingerprint` is of the configuration, `regions` says how
    the regions ended; without `partial`, the table has a row for each ok region of the shard. One that takes the place
    of a partial one is a `repair` of it. Raises OSError.
    """
    table_name, marker_name = file_names(base, overlay)
    token = scratch_token()
    with ExitStack() as stack:

        def opened(name: str) -> HashingFile:
            file = HashingFile(storage.scratch / f"{name}.{token}")
            stack.callback(file.path.unlink, missing_ok=True)
            stack.callback(file.close)
            return file

        rows = opened(table_name)
        pq.write_table(table, pa.PythonFile(rows, mode="w"), compression="zstd", store_schema=False)
        files = {table_name: rows.finish()}
        marker = OverlayMarker(
            schema_version="1",
            shard=str(base.shard),
            overlay=overlay,
            fingerprint=fingerprint,
            base_sha256=base.table_sha256,
            columns=[name for name in table.column_names if name not in JOIN_COLUMNS],
            partial=partial,
            num_rows=len(table),
            regions=regions,
            parquet=files[table_name].digest,
            provenance=provenance,
            written_by=release(),
        )
        told = opened(marker_name)
        told.write(encode(marker))
        files[marker_name] = told.finish()
        name = decision or base.decision(overlay)
        commit(storage, name, files, repair=_next_repair(storage, name) if repair is None else repair)


def awaits_regions(storage: Storage, decision: str) -> bool:
    """Return whether an overlay's part of a shard was decided without the regions that the shard has new."""
    current = newest(storage, decision)
    return current is not None and _is_partial(current.decision, decision)


def _next_repair(storage: Storage, decision: str) -> int:
    current = newest(storage, decision)
    if current is None:
        return 0
    return current.repair + _is_partial(current.decision, decision)


def _is_partial(decision: Decision, name: str) -> bool:
    return decision.marker is not None and decode_overlay_marker(decision.marker.encode(), name).partial
