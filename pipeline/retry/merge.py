"""A repaired shard: what is kept and what was repeated, in the order of the shard, new items where the source has them.

An item that the source does not give any more stays, dead as `missing`; but a row that stands for a damaged stretch of
a tar goes when the stretch is whole again: what it stood for has rows of its own then.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import msgspec

from pipeline.clock import StageClock
from pipeline.plan.plan import Plan
from pipeline.retry.stored import RepeatedSample, StoredItem, StoredShard, StoredUnit
from pipeline.settings import Configuration
from pipeline.store.commit import commit
from pipeline.store.scratch import scratch_token
from pipeline.write.shard_writer import ShardWriter
from pipeline.write.shards import finish_shard, split_of, unlink_all, write_sample
from schemas.dataset import Dataset
from schemas.dataset import Sample as StoredSample
from schemas.folder import DatasetError, Folder
from schemas.names import ShardName
from schemas.reasons import Reason, Stage, Status
from schemas.records import Counts
from schemas.tables import RegionRow

_OF_A_STRETCH = (Reason.TRUNCATED.value, Reason.STALE.value)
_GONE = "the source does not have it any more"


class _Merge:
    """One shard being repaired."""

    def __init__(self, stored: StoredShard, writer: ShardWriter, configuration: Configuration) -> None:
        self.stored, self.writer, self._configuration = stored, writer, configuration
        dataset = Dataset(Folder(stored.storage.url), markers={stored.shard: stored.marker})
        self._samples: Iterator[StoredSample] = dataset.samples(stored.shard, verify=True)
        self._next = 0
        """The first item that was not looked at yet."""
        self._not_repeated: dict[int, StoredSample | None] = {}
        """Items to be repeated that were passed, with what the tar has of them."""

    def add(self, sample: RepeatedSample) -> None:
        """Write what is kept of the items before the sample, then the sample."""
        self._keep_up_to(sample.after if sample.place is None else sample.place + 1)
        if sample.place is not None:
            self._not_repeated.pop(sample.place, None)
        write_sample(sample, self.writer, self._configuration)

    def finish(self) -> None:
        """Write what is kept of the other items."""
        self._keep_up_to(len(self.stored.items))
        for place, in_tar in sorted(self._not_repeated.items()):
            self._write_gone(self.stored.items[place], in_tar)

    def _keep_up_to(self, place: int) -> None:
        for number in range(self._next, place):
            item = self.stored.items[number]
            in_tar = self._in_tar(item)
            if item.repeated:
                self._not_repeated[number] = in_tar
            else:
                self._write(self.stored.row_values(item), in_tar)
        self._next = max(self._next, place)

    def _in_tar(self, item: StoredItem) -> StoredSample | None:
        """Return what the tar has of an item. Raises DatasetError where it is another's."""
        if not item.in_tar:
            return None
        sample = next(self._samples, None)
        if sample is None or sample.key != item.key:
            where = f"{self.stored.storage.url}/{self.stored.shard.tar}"
            raise DatasetError(f"{where}: not {item.key!r}, where the table has it; `fineclip doctor` says what to do")
        return sample

    def _write(self, values: list[dict[str, Any]], in_tar: StoredSample | None) -> None:
        """Write an item as it was; only its place in the tar is another."""
        writer = self.writer
        if in_tar is not None:
            offset, size = writer.add_sample(in_tar.record, in_tar.image, in_tar.suffix)
            for row in (row for row in values if row["tar_offset"] is not None):
                row["tar_offset"], row["tar_size"] = offset, size
        for row in values:
            counts = writer.images if row["region_id"] is None else writer.regions
            counts.inputs += row["count"]
            writer.add_row(RegionRow(**row))

    def _write_gone(self, item: StoredItem, in_tar: StoredSample | None) -> None:
        own, *regions = self.stored.row_values(item)
        if in_tar is None:
            if (own["reason"], own["stage"]) in [(reason, Stage.READ.value) for reason in _OF_A_STRETCH]:
                return
            own |= {"status": Status.DEAD.value, "reason": Reason.MISSING.value, "stage": Stage.READ.value}
            own |= {"message": _GONE, "traceback_hash": None}
        self._write([own, *regions], in_tar)


def repair_unit(
    plan: Plan,
    unit: int,
    stored: StoredUnit,
    samples: Iterator[RepeatedSample],
    configuration: Configuration,
    *,
    repairs: Mapping[ShardName, int],
    lost: Mapping[str, int],
    provenance: Callable[[], dict[str, Any]],
    clock: StageClock,
) -> tuple[Counts, Counts]:
    """Write the unit's shards with `samples` repeated and commit them as `repairs`, by shard; return the new counts.

    A shard of which nothing was to be repeated is committed only where it has become another. `lost` holds the bytes
    that the source has lost, by split, and `provenance` what made the samples, once they are through. Raises OSError,
    DatasetError for a damaged shard, and BalanceError.
    """
    storage, token = plan.storage, scratch_token()
    with ExitStack() as stack:
        merges = {}
        for split, of_split in stored.shards.items():
            writer = ShardWriter(of_split.shard, storage.scratch, token)
            stack.callback(writer.abandon)
            merges[split] = _Merge(of_split, writer, configuration)
        for sample in samples:
            with clock("write"):
                merges[split_of(sample, configuration)].add(sample)
        with clock("commit"):
            for split, merge in merges.items():
                merge.finish()
                old, writer = merge.stored.marker, merge.writer
                was_lost = 0 if old.bytes_lost is msgspec.UNSET else old.bytes_lost
                writer.bytes_lost = lost.get(split, 0) if stored.is_whole else was_lost
                files = finish_shard(plan, unit, writer, _provenance(old.provenance, provenance()), token)
                stack.callback(unlink_all, files)
                shard = merge.stored.shard
                is_same = (files[shard.tar].digest, files[shard.parquet].digest) == (old.tar, old.parquet)
                if merge.stored.has_repeated or not is_same:
                    commit(storage, str(shard), files, repair=repairs[shard])
    images, regions = Counts(), Counts()
    for merge in merges.values():
        images.add(merge.writer.images)
        regions.add(merge.writer.regions)
    return images, regions


def _provenance(before: dict[str, Any], repeated: dict[str, Any]) -> dict[str, Any]:
    """Return the provenance of a repaired shard: with that of the repeated items where it is another."""
    own = {name: value for name, value in before.items() if name != "repeated"}
    others = [*before.get("repeated", []), *([repeated] if repeated != own else [])]
    different = [made for number, made in enumerate(others) if made not in others[:number]]
    return own | ({"repeated": different} if different else {})
