"""The files of a data set as a whole, rewritten from the shards' markers whenever a job ends.

dataset.json   totals, shards, provenance, keys that occur in several shards
README.md      a card that lets `datasets.load_dataset(OUTPUT)` read mixed members with their types
sizes.json     samples a tar, for open_clip;  index.json  the same for wids
"""

import hashlib
import json
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.plan.plan import Plan
from pipeline.run.card import card
from pipeline.run.status import Markers
from pipeline.store.storage import Storage, in_parallel
from schemas.hashes import fingerprint
from schemas.names import CARD, DATASET_JSON, INDEX_JSON, SCHEMA_VERSION, SIZES_JSON, ShardName
from schemas.records import ShardMarker

_NUM_SHOWN = 20
"""Repeated keys named in `dataset.json`."""
_AT_ONCE = 8 << 20
"""Bytes up to which a table is read whole: on a store that is one request, where columns take several."""
_IS_SAMPLE = pc.field("region_id").is_null() & pc.field("tar_offset").is_valid()
"""The rows of images that are in the tar."""


class _Repeats(msgspec.Struct, frozen=True, kw_only=True):
    """What of `dataset.json` takes a look into every table."""

    shards_sha256: str
    num_repeated_keys: int
    repeated_keys: list[str]


def finalise(plan: Plan, markers: Markers) -> dict[str, Any]:
    """Write the data set's own files and return the contents of `dataset.json`; they depend on the markers alone.

    When `dataset.json` was made from the same shards already, no table is read again; and a file that holds what it
    should is not written again.
    """
    storage = plan.storage
    shards = list(markers)
    dataset = _dataset(plan, markers, shards)
    _write(storage, SIZES_JSON, _pretty({shard.tar: marker.images.ok for shard, marker in shards}))
    for split in plan.splits:
        name = INDEX_JSON if split == plan.splits[0] else f"index-{split}.json"
        _write(storage, name, _pretty(_wids_index([pair for pair in shards if pair[0].split == split])))
    _write(storage, CARD, card(dataset, plan.splits).encode())
    _write(storage, DATASET_JSON, _pretty(dataset))
    return dataset


def _write(storage: Storage, name: str, data: bytes) -> None:
    """Write a file unless it has these contents: another job's older view of the shards may have replaced it."""
    if _read(storage, name) != data:
        storage.replace(name, data)


def _read(storage: Storage, name: str) -> bytes | None:
    try:
        return storage.read(name)
    except FileNotFoundError:
        return None


def _pretty(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _dataset(plan: Plan, markers: Markers, shards: list[tuple[ShardName, ShardMarker]]) -> dict[str, Any]:
    state = fingerprint([[str(shard), marker.tar.sha256, marker.parquet.sha256] for shard, marker in shards])
    repeated = _repeats_known(plan.storage, state)
    if repeated is None:
        keys = _repeated_keys(plan.storage, shards)
        repeated = {"num_repeated_keys": len(keys), "repeated_keys": keys[:_NUM_SHOWN]}
    return {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": plan.fingerprint,
        "complete": len(shards) == plan.num_units * len(plan.splits),
        "num_units": plan.num_units,
        "num_shards": len(shards),
        "num_bytes": markers.totals.num_bytes,
        "images": msgspec.to_builtins(markers.totals.images, order="deterministic"),
        "regions": msgspec.to_builtins(markers.totals.regions, order="deterministic"),
        **repeated,
        "inputs": [{"spec": planned.spec, "prefix": planned.prefix, "kind": planned.kind} for planned in plan.inputs],
        "configuration": plan.generations[0].configuration,
        **({"dropped": plan.generations[0].dropped} if plan.generations[0].dropped else {}),
        "provenance": _provenance([marker for _, marker in shards]),
        "shards_sha256": state,
        "shards": [str(shard) for shard, _ in shards],
    }


def _repeats_known(storage: Storage, state: str) -> dict[str, Any] | None:
    """Return what `dataset.json` says of repeated keys, if it was made from these shards; None if not, or damaged."""
    try:
        current = msgspec.json.decode(_read(storage, DATASET_JSON) or b"", type=_Repeats)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found = {"num_repeated_keys": current.num_repeated_keys, "repeated_keys": current.repeated_keys}
    return found if current.shards_sha256 == state else None


def _provenance(markers: list[ShardMarker]) -> list[dict[str, Any]]:
    """Return the different provenances among the shards: more than one where library versions changed on the way."""
    different = {fingerprint(marker.provenance): marker.provenance for marker in markers}
    return [different[name] for name in sorted(different)]


def _wids_index(shards: list[tuple[ShardName, ShardMarker]]) -> dict[str, Any]:
    shard_list = [
        {"url": shard.tar, "nsamples": marker.images.ok, "filesize": marker.tar.size} for shard, marker in shards
    ]
    return {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shard_list}


def _repeated_keys(storage: Storage, shards: list[tuple[ShardName, ShardMarker]]) -> list[str]:
    """Return the sorted keys of samples that lie in more than one shard, holding 8 bytes a key in memory."""
    by_shard = list(in_parallel(storage, lambda shard: _hashes(_keys(storage, *shard)), shards))
    values, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *by_shard]), return_counts=True)
    suspects = values[counts > 1]
    if not len(suspects):
        return []
    seen: dict[str, int] = {}
    for shard, hashes in zip(shards, by_shard, strict=True):
        suspected = np.isin(hashes, suspects, kind="sort")  # the other kind, which NumPy 2.0 chooses, overflows
        if suspected.any():
            for key in np.asarray(_keys(storage, *shard))[suspected].tolist():
                seen[key] = seen.get(key, 0) + 1
    return sorted(key for key, count in seen.items() if count > 1)


def _keys(storage: Storage, shard: ShardName, marker: ShardMarker) -> list[str]:
    """Return the keys of a shard's samples that are in its tar."""
    at_once = marker.parquet.size <= _AT_ONCE
    with pa.BufferReader(storage.read(shard.parquet)) if at_once else storage.open(shard.parquet) as file:
        rows = pq.read_table(file, columns=["key", "region_id", "tar_offset"], filters=_IS_SAMPLE)
    keys: list[str] = rows.column("key").to_pylist()
    return keys


def _hashes(keys: list[str]) -> npt.NDArray[np.uint64]:
    return np.array([int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) for key in keys], np.uint64)
