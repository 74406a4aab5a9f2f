"""Hard negatives as an overlay: captions of each region with one attribute or noun changed, by rule.

The words are the data set's own: all its captions, as the overlays given show them, are read first. A shard's part
depends on these and on its own rows, so any number of runs give the same files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.overlay.markers import OverlayMarkers
from pipeline.overlay.plan import OverlaidShards, plan_overlay
from pipeline.overlay.write import commit_overlay
from pipeline.store.storage import at_work, open_storage, storage_errors
from schemas.dataset import Dataset
from schemas.hashes import fingerprint, text_hash
from schemas.names import ShardName
from schemas.overlays import HARD_NEGATIVES
from schemas.reasons import Status
from schemas.word_changes import Vocabulary

_VERSION = 1
"""Of the rule: raised when the same captions would give others."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What came of it."""

    num_shards: int
    num_regions: int
    num_negatives: int
    num_without: int
    """Regions whose captions have no word to change."""
    words: dict[str, int]
    """How many words of each kind the data have."""


def make_hard_negatives(
    data: str,
    overlay: str,
    *,
    per_region: int,
    overlays: Sequence[str] = (),
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Made:
    """Write the overlay of the shards that lack it; `watch` is told how many of how many shards are done.

    Raises DatasetError for what cannot be read, PlanError where the overlay is of another configuration, StorageError.
    """
    storage = open_storage(data)
    with storage_errors(storage.url):
        dataset = Dataset.open(data, overlays=overlays)
    with at_work(storage):
        words = _vocabulary(dataset)
        configuration = {
            "rule": _VERSION,
            "per_region": per_region,
            "overlays": list(overlays),
            "words": fingerprint(words.groups),
        }
        plan = plan_overlay(storage, overlay, dataset.markers, tool="hard-negatives", configuration=configuration)
        there = OverlayMarkers(storage, overlay, plan.bases).refresh()
        made = [0, 0, 0]
        for unit, base in enumerate(plan.bases):
            table = _table(dataset, base.shard, words, per_region)
            counts = pc.list_value_length(table[HARD_NEGATIVES]).to_numpy()
            made = [made[0] + len(table), made[1] + int(counts.sum()), made[2] + int((counts == 0).sum())]
            if base.shard not in there:
                _commit(plan, unit, table, configuration)
            watch(unit + 1, len(plan.bases))
    kinds = {kind: sum(map(len, sets)) for kind, sets in words.groups.items()}
    return Made(
        num_shards=len(plan.bases), num_regions=made[0], num_negatives=made[1], num_without=made[2], words=kinds
    )


def _commit(plan: OverlaidShards, unit: int, table: pa.Table, configuration: dict[str, Any]) -> None:
    commit_overlay(
        plan.storage,
        plan.bases[unit],
        plan.overlay,
        table,
        fingerprint=plan.fingerprint,
        provenance={"hard_negatives": configuration},
    )


def _ok_regions(dataset: Dataset, shard: ShardName, columns: Sequence[str]) -> pa.Table:
    rows = dataset.regions(["status", "region_id", *columns], [shard])
    return rows.filter(pc.and_(pc.equal(rows["status"], Status.OK.value), pc.is_valid(rows["region_id"])))


def _vocabulary(dataset: Dataset) -> Vocabulary:
    captions: set[str] = set()
    labels: set[str] = set()
    for shard in dataset.shards:
        rows = _ok_regions(dataset, shard, ["caption", "label"])
        captions.update(pc.unique(rows["caption"]).drop_null().to_pylist())
        labels.update(pc.unique(rows["label"]).drop_null().to_pylist())
    return Vocabulary.of(captions, labels)


def _table(dataset: Dataset, shard: ShardName, words: Vocabulary, per_region: int) -> pa.Table:
    """Return key, region id and hard negatives of a shard's ok regions."""
    rows = _ok_regions(dataset, shard, ["key", "caption"])
    captions = rows["caption"].to_pylist()
    made = {caption: hard_negatives(caption, words, per_region) for caption in set(captions)}
    negatives = pa.array([made[caption] for caption in captions], pa.list_(pa.string()))
    return pa.table({"key": rows["key"], "region_id": rows["region_id"], HARD_NEGATIVES: negatives})


def hard_negatives(caption: str | None, words: Vocabulary, per_region: int) -> list[str]:
    """Return at most `per_region` changes of a caption, those that a hash of both puts first, whatever their kind."""
    if caption is None:
        return []
    changed = (change.caption for change in words.changes(caption))
    return sorted(changed, key=lambda wrong: text_hash(f"{caption}\n{wrong}"))[:per_region]
