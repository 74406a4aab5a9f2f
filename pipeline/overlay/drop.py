"""The images of a data set that a list of keys, web addresses and hashes means.

An image is meant by its key, by the web address that its source gives, or by the sha256 of the bytes that are stored or
that its source has. Stored images are looked at first; the source is read again, as the plan of DATA says, for what is
not stored as it was there: images that died, were filtered or encoded anew.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import SourceError
from pipeline.overlay.drop_list import HASH, DropList
from pipeline.plan.plan import Plan
from pipeline.read.base import UnitPart
from pipeline.read.exclusions import ReadSettings
from pipeline.read.keys import with_prefix
from pipeline.read.read import read_items
from schemas.dataset import Dataset
from schemas.filters import FilterList
from schemas.hashes import fingerprint, sha256
from schemas.names import ShardName
from schemas.tables import FILTER_SCHEMA


@dataclass(kw_only=True)
class Meant:
    """The images that a list means."""

    lines: frozenset[str]
    keys: set[str]
    met: set[str]
    """Lines that mean an image."""

    def look_at(self, key: str, *others: str | None) -> bool:
        """Take note of an image with the key and these other names; returns whether it is meant."""
        names = self.lines.intersection({key, *(name for name in others if name)})
        if names:
            self.keys.add(key)
            self.met |= names
        return bool(names)


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """What a list takes out of a data set."""

    keys: frozenset[str]
    num_images: int
    unmet: tuple[str, ...]
    """Lines that mean no image of the data set."""
    not_read: str | None
    """Why the source could not be looked at for these, in words."""

    def as_filter(self, path: str) -> FilterList:
        """Return the filter list that takes these images away."""
        keys = sorted(self.keys)
        none: list[str | None] = [None] * len(keys)
        columns = {"key": keys, "region_id": none, "keep": [False] * len(keys), "note": none}
        digest = fingerprint({"dropped": keys})
        return FilterList(path=path, sha256=digest, rows=pa.table(columns, schema=FILTER_SCHEMA))


def find_dropped(data: Dataset, plan: Plan | None, drop: DropList) -> Dropped:
    """Return which images of the shards a list means. Raises DatasetError for damaged shards, and OSError."""
    meant = Meant(lines=frozenset(drop.lines), keys=set(), met=set())
    elsewhere = {shard: _look_at_shard(data, shard, meant, drop) for shard in data.shards}
    left = [line for line in drop.lines if line not in meant.met]
    not_read = None
    if any(HASH.fullmatch(line) or ":" in line for line in left) and any(elsewhere.values()):
        try:
            unread = _look_at_sources(plan, elsewhere, meant)
        except (SourceError, OSError, LookupError) as error:
            not_read = str(error)
        else:
            not_read = f"{len(unread):,} images are not there, such as {min(unread)}" if unread else None
    rows = data.regions(["key", "region_id"])
    is_meant = pc.is_in(rows["key"], value_set=pa.array(sorted(meant.keys), pa.string()))
    num_images = pc.sum(pc.and_(pc.is_null(rows["region_id"]), is_meant)).as_py() or 0
    return Dropped(
        keys=frozenset(meant.keys),
        num_images=num_images,
        unmet=tuple(line for line in drop.lines if line not in meant.met),
        not_read=not_read,
    )


def _look_at_shard(data: Dataset, shard: ShardName, meant: Meant, drop: DropList) -> set[str]:
    """Look at the images of a shard; returns the keys of those whose source's bytes are not stored."""
    rows = data.regions(["key", "region_id", "tar_offset"], [shard])
    images = rows.filter(pc.is_null(rows["region_id"]))
    for key in images["key"].to_pylist():
        meant.look_at(key)
    elsewhere = set(images.filter(pc.is_null(images["tar_offset"]))["key"].to_pylist())
    if not drop.has_more_than_keys:
        return set()
    for sample in data.samples(shard):
        record = sample.record
        meant.look_at(sample.key, record.source.url, record.image_sha256)
        if record.reencoded:
            elsewhere.add(sample.key)
    return elsewhere - meant.keys


def _look_at_sources(plan: Plan | None, elsewhere: Mapping[ShardName, set[str]], meant: Meant) -> set[str]:
    """Look at the images with these keys where they came from; returns the keys of those that cannot be read.

    Raises SourceError, OSError or LookupError where nothing can.
    """
    if plan is None or "materialized" in plan.generations[0].configuration:
        raise LookupError("the data set does not say from which files it was made")
    allow = tuple(dict.fromkeys(folder for each in plan.generations for folder in each.allow))
    by_unit: dict[int, set[str]] = {}
    for shard, keys in elsewhere.items():
        by_unit.setdefault(shard.index, set()).update(keys)
    unread = {key for keys in by_unit.values() for key in keys}
    for unit, keys in sorted(by_unit.items()):
        parts = [part for each in plan.unit(unit) if (part := _restricted(each, keys)) is not None] if keys else []
        for sample in read_items(parts, ReadSettings(allow=allow)):
            if sample.key in keys and sample.item.data is not None:
                meant.look_at(sample.key, sample.item.url, sha256(sample.item.data))
                unread.discard(sample.key)
    return unread


def _restricted(part: UnitPart, keys: Collection[str]) -> UnitPart | None:
    """Return a part of a source with those of its listed samples that have these keys; None where none has."""
    if part.part.items is None:
        return part
    items = tuple(item for item in part.part.items if with_prefix(item.key, part.prefix) in keys)
    return msgspec.structs.replace(part, part=msgspec.structs.replace(part.part, items=items)) if items else None
