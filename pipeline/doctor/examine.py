"""The whole examination: the folder, shard after shard in threads, then what shows only over all of them."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.compute as pc

from pipeline.doctor.captions import Captions
from pipeline.doctor.findings import Findings
from pipeline.doctor.inventory import Inventory, take_inventory
from pipeline.doctor.keys import Keys, report_repeated
from pipeline.doctor.loading import LoaderShape, check_loading
from pipeline.doctor.overlays import open_as_seen
from pipeline.doctor.shard import ShardReport, examine_shard
from schemas.dataset import Dataset
from schemas.folder import Folder
from schemas.hashes import key_fraction
from schemas.names import TRAIN, ShardName

_MAX_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What to look at, and what is still well."""

    sample: int | None = None
    """Number of shards to read, chosen by hash of their names; None for all."""
    decode_images: bool = True
    overlays: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    max_repeated: float = 0.5
    """Share of captions, 0 to 1, that may repeat an earlier one."""
    loader: LoaderShape | None = None
    """None: no training job is asked about."""
    threads: int = min(_MAX_THREADS, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What the examination came to."""

    findings: Findings
    num_shards: int
    num_examined: int
    """Shards that were read."""
    num_images: int
    """Ok images of the shards that were read, by their markers."""
    num_regions: int
    """Ok regions with a caption in these, as overlays and filter lists leave them."""


class Watcher:
    """Is told how far an examination is, from several threads; this one tells nobody."""

    def begin(self, num_bytes: int) -> None:
        """Take note that tars of `num_bytes` in all are going to be read."""

    def advance(self, num_bytes: int) -> None:
        """Take note that `num_bytes` more have been read."""


def examine(data: str, checks: Checks, watcher: Watcher | None = None) -> Diagnosis:
    """Examine the data set at `data`, a folder or an fsspec URL, without changing it.

    Raises DatasetError where there is no data set, and OSError where its folder or markers cannot be read.
    """
    folder = Folder(data)
    findings = Findings()
    inventory = take_inventory(folder, findings)
    by_hash = sorted(inventory.markers, key=lambda shard: key_fraction(str(shard), "doctor"))
    chosen = sorted(by_hash[: checks.sample])
    sound = _examine_shards(folder, inventory, chosen, checks, findings, watcher or Watcher())
    broken = set(chosen).difference(sound)
    seen = open_as_seen(
        folder,
        {shard: marker for shard, marker in inventory.markers.items() if shard not in broken},
        overlays=checks.overlays,
        filters=checks.filters,
        examined=sound,
        all_sound=inventory.all_sound and not broken,
        findings=findings,
    )
    captions = Captions(seen, findings)
    captions.look_at(sound)
    captions.finish(checks.max_repeated)
    if checks.loader is not None:
        sizes = [marker.images.ok for shard, marker in inventory.markers.items() if shard.split == TRAIN]
        check_loading(sizes, checks.loader, findings)
    return Diagnosis(
        findings=findings,
        num_shards=len(inventory.markers),
        num_examined=len(chosen),
        num_images=sum(inventory.markers[shard].images.ok for shard in chosen),
        num_regions=captions.num_regions,
    )


def _examine_shards(
    folder: Folder,
    inventory: Inventory,
    chosen: Sequence[ShardName],
    checks: Checks,
    findings: Findings,
    watcher: Watcher,
) -> list[ShardName]:
    """Examine the chosen shards, and return those whose table can be read."""
    watcher.begin(sum(inventory.markers[shard].tar.size for shard in chosen))
    keys, sound = Keys(), []
    for report in _reports(folder, inventory, chosen, checks, watcher.advance):
        findings.extend(report.findings)
        if report.keys is not None:
            sound.append(report.shard)
            keys.add(report.shard, report.keys)
    if len(chosen) < len(inventory.markers) and inventory.num_repeated_keys:
        lie = "key that lies" if inventory.num_repeated_keys == 1 else "keys that lie"
        message = f"dataset.json counts {inventory.num_repeated_keys:,} {lie} in more than one shard"
        findings.error("repeated-key", message, remedy="run this without --sample: it names them and says what to do")
    suspects, holders = keys.repeated()
    if holders:
        dataset = Dataset(folder, markers={shard: inventory.markers[shard] for shard in holders})
        report_repeated(suspects, _stored_keys(dataset), findings)
    return sound


def _reports(
    folder: Folder,
    inventory: Inventory,
    chosen: Iterable[ShardName],
    checks: Checks,
    advance: Callable[[int], None],
) -> Iterator[ShardReport]:
    """Yield the shards' reports in order; hashing and decoding let other threads run."""

    def examined(shard: ShardName) -> ShardReport:
        marker = inventory.markers[shard]
        return examine_shard(folder, shard, marker, decode_images=checks.decode_images, advance=advance)

    pool = ThreadPoolExecutor(checks.threads)
    try:
        yield from pool.map(examined, chosen)
    finally:
        pool.shutdown(cancel_futures=True)  # after an interruption, shards not begun are not begun


def _stored_keys(dataset: Dataset) -> Iterator[tuple[ShardName, list[str]]]:
    """Yield each shard's keys of images that are in its tar."""
    for shard in dataset.shards:
        rows = dataset.regions(["key", "region_id", "tar_offset"], [shard])
        stored = pc.and_(pc.is_null(rows["region_id"]), pc.is_valid(rows["tar_offset"]))
        yield shard, rows.filter(stored)["key"].to_pylist()
