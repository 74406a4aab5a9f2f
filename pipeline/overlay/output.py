"""The plan of a materialized data set: its units are DATA's shards, and it names DATA's contents and the overlays."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import PlanError
from pipeline.overlay.materialize import provenance_of
from pipeline.plan.check import differences
from pipeline.plan.make import refuse_foreign_files
from pipeline.plan.plan import FILES_SCHEMA, UNITS_SCHEMA, Generation, Plan, PlannedInput, load_plan, table_name
from pipeline.store.commit import FinishedFile, attempt_stem, commit
from pipeline.store.scratch import scratch_token
from pipeline.store.storage import Storage, open_storage
from pipeline.write.shard_writer import HashingFile
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.hashes import canonical_json, fingerprint
from schemas.names import PLAN_DIR, SCHEMA_VERSION, TRAIN, VAL, ShardName
from schemas.overlays import Overlay

_PLAN_JSON = f"{PLAN_DIR}/plan.json"


def plan_materialized(
    storage: Storage, data: str, seen: Dataset, overlays: Sequence[Overlay], dropped: Mapping[str, Any]
) -> Plan:
    """Return the plan of OUTPUT, made by the first caller; PlanError where it is of another data set or overlays.

    `dropped` says of the list of images that are left out how many they are, and its hash; {} for none.
    """
    refuse_foreign_files(storage)
    configuration = _configuration(seen, overlays, load_plan(open_storage(data)), dropped)
    planned = load_plan(storage)
    if planned is None:
        _commit_plan(storage, data, seen, configuration, dropped)
        planned = load_plan(storage)
        assert planned is not None
    if planned.fingerprint != fingerprint(configuration):
        found = differences(planned.generations[0].configuration, configuration)
        lines = [f"  {name}: {ours!r} in OUTPUT, {theirs!r} now" for name, ours, theirs in found]
        raise PlanError("\n".join([f"{storage.url} was made otherwise; choose another OUTPUT:", *lines]))
    return planned


def _configuration(
    seen: Dataset, overlays: Sequence[Overlay], base: Plan | None, dropped: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what decides the bytes of OUTPUT: what is read, and for people the models' names and settings."""
    shard, marker = next(iter(seen.markers.items()))
    models = provenance_of(marker, overlays, shard)
    planned = {} if base is None else base.generations[0].configuration
    splits = [shard.split for shard in seen.markers]
    replaced = {kind for overlay in overlays if shard in overlay.markers for kind in overlay.markers[shard].provenance}
    return {
        "schema_version": SCHEMA_VERSION,
        **{kind: _model(kind, models, {} if kind in replaced else planned) for kind in ("proposer", "captioner")},
        "val_fraction": planned.get("val_fraction", splits.count(VAL) / len(splits)),
        "materialized": {
            "data_sha256": seen.data_fingerprint(),
            "overlays": {overlay.name: next(iter(overlay.markers.values())).fingerprint for overlay in overlays},
            **({"dropped": dropped["list_sha256"]} if dropped else {}),
        },
    }


def _model(kind: str, provenance: Mapping[str, Any], planned: Mapping[str, Any]) -> dict[str, Any]:
    known = planned.get(kind) or provenance.get(kind) or {}
    return {"name": "unknown", **{key: known[key] for key in ("name", "version", "settings") if key in known}}


def _commit_plan(
    storage: Storage, data: str, seen: Dataset, configuration: dict[str, Any], dropped: Mapping[str, Any]
) -> None:
    """Commit a plan whose units are DATA's shards, or another caller's. Raises DatasetError where one is missing."""
    shards = _all_shards(data, seen)
    markers = [seen.markers[shard] for shard in shards]
    files = [
        {"input": 0, "uri": shard.tar, "size": marker.tar.size, "etag": marker.tar.sha256, "sample": ""}
        for shard, marker in zip(shards, markers, strict=True)
    ]
    units = [
        {"unit": shard.index, "input": 0, "uri": shard.tar, "start": 0, "stop": marker.images.ok}
        for shard, marker in zip(shards, markers, strict=True)
    ]
    tables = {
        table_name("files", 0): pa.Table.from_pylist(files, schema=FILES_SCHEMA),
        table_name("units", 0): pa.Table.from_pylist(units, schema=UNITS_SCHEMA),
    }
    token = scratch_token()
    written = {name: _written(storage, name, token, table) for name, table in tables.items()}
    generation = Generation(
        schema_version="1",
        fingerprint=fingerprint(configuration),
        configuration=configuration,
        inputs=[
            PlannedInput(
                spec=data,
                prefix="",
                kind="webdataset",
                num_files=len(shards),
                bytes=sum(marker.tar.size for marker in markers),
                files_sha256=fingerprint(files),
            )
        ],
        shard_size=max(marker.images.inputs for marker in markers),
        repack=False,
        limit=None,
        first_unit=0,
        num_units=1 + max(shard.index for shard in shards),
        num_images=sum(marker.images.inputs for marker in markers) - dropped.get("num_images", 0),
        dropped={**dropped, "on": time.strftime("%Y-%m-%d", time.gmtime())} if dropped else {},
        tables={name: file.digest for name, file in written.items()},
    )
    written[_PLAN_JSON] = _written(storage, _PLAN_JSON, token, canonical_json(msgspec.to_builtins(generation)))
    try:
        commit(storage, "plan", written)
    finally:
        for file in written.values():
            file.path.unlink(missing_ok=True)


def _all_shards(data: str, seen: Dataset) -> list[ShardName]:
    """Return DATA's shards by number, train before val. Raises DatasetError where one is missing."""
    splits = [split for split in (TRAIN, VAL) if split == TRAIN or any(shard.split == split for shard in seen.markers)]
    shards = [ShardName(split, unit) for unit in range(1 + max(s.index for s in seen.markers)) for split in splits]
    missing = [shard for shard in shards if shard not in seen.markers]
    if missing:
        raise DatasetError(
            f"{data}: lacks {missing[0]}; finish the data set, or fetch it whole, before it is materialized"
        )
    return shards


def _written(storage: Storage, name: str, token: str, content: pa.Table | bytes) -> FinishedFile:
    file = HashingFile(storage.scratch / f"{attempt_stem(name)}.{token}")
    try:
        if isinstance(content, bytes):
            file.write(content)
        else:
            pq.write_table(content, pa.PythonFile(file, mode="w"), compression="zstd")
        return file.finish()
    finally:
        file.close()
