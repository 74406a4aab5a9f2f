"""Two runs or overlays side by side: regions of the same image paired, and what differs between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.viewer.gallery import ShownRegion, find_images, load_images
from pipeline.viewer.selection import Selection
from pipeline.viewer.table import Database, RegionTable
from schemas.boxes import as_boxes, iou

MIN_IOU = 0.5
"""Regions with different ids are taken for the same object when their boxes overlap at least so much."""
_COMPARED = ("caption", "label", "status")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A region of one side with its partner of the other; at most one of the two is None."""

    ours: int | None
    """Index in the first image's list of regions."""
    theirs: int | None
    iou: float | None
    differences: tuple[str, ...]
    """Of `box`, `caption`, `label` and `status`; empty where the pair is alike, or one side is missing."""


def pair(ours: Sequence[ShownRegion], theirs: Sequence[ShownRegion]) -> list[Pair]:
    """Pair regions with the same id, then the best overlapping of the rest; those without a partner come last."""
    by_id = {region.id: index for index, region in enumerate(theirs)}
    partner = {index: by_id[region.id] for index, region in enumerate(ours) if region.id in by_id}
    partner |= _overlapping(ours, theirs, partner)
    pairs = [_pair(ours, theirs, mine, partner[mine]) for mine in sorted(partner)]
    pairs += [_alone(ours=index) for index in range(len(ours)) if index not in partner]
    taken = set(partner.values())
    return pairs + [_alone(theirs=index) for index in range(len(theirs)) if index not in taken]


def _overlapping(ours: Sequence[ShownRegion], theirs: Sequence[ShownRegion], partner: dict[int, int]) -> dict[int, int]:
    """Return partners for regions without one, the largest overlap first."""
    mine = [index for index, region in enumerate(ours) if index not in partner and region.box]
    other = [index for index, region in enumerate(theirs) if index not in partner.values() and region.box]
    overlap = iou(as_boxes([ours[index].box for index in mine]), as_boxes([theirs[index].box for index in other]))
    found = {}
    while overlap.size and overlap.max() >= MIN_IOU:
        row, column = np.unravel_index(int(overlap.argmax()), overlap.shape)
        found[mine[row]] = other[column]
        overlap[row, :] = overlap[:, column] = 0
    return found


def _pair(ours: Sequence[ShownRegion], theirs: Sequence[ShownRegion], mine: int, other: int) -> Pair:
    left, right = ours[mine], theirs[other]
    differences = [name for name in _COMPARED if left.fields[name] != right.fields[name]]
    if left.box != right.box:
        differences.insert(0, "box")
    overlap = None
    if left.box and right.box:
        overlap = round(float(iou(as_boxes(left.box), as_boxes(right.box))[0, 0]), 3)
    return Pair(ours=mine, theirs=other, iou=overlap, differences=tuple(differences))


def _alone(*, ours: int | None = None, theirs: int | None = None) -> Pair:
    return Pair(ours=ours, theirs=theirs, iou=None, differences=())


def compared_page(first: RegionTable, second: RegionTable, selection: Selection) -> dict[str, Any]:
    """Return the selection's page of the first data set, each image with that of the same key in the second.

    The selection picks the images; of each, all regions with a selected status are shown and paired.
    """
    ids, more = find_images(first, selection)
    shown = Selection(one_of=tuple(part for part in selection.one_of if part[0] == "status"))
    keys = [key for _, key in ids]
    found = second.query(
        f"SELECT DISTINCT shard, key FROM {second.name} WHERE region_id IS NULL "
        f"AND key IN ({', '.join('?' * len(keys)) or 'NULL'}) ORDER BY shard, key",
        keys,
    )
    partners = {image.key: image for image in load_images(second, [(shard, key) for shard, key in found], shown)}
    items = []
    for ours in load_images(first, ids, shown):
        theirs = partners.get(ours.key)
        for image in filter(None, (ours, theirs)):
            image.regions = [region for region in image.regions if region.hit]
        items.append({"ours": ours, "theirs": theirs, "pairs": pair(ours.regions, theirs.regions if theirs else [])})
    return {"items": items, "more": more}


def find_changed(database: Database, first: RegionTable, second: RegionTable) -> None:
    """Make the table `changed`: keys of images that only one side has, or whose ok regions differ."""
    content = (
        "SELECT key, bit_xor(hash(region_id, caption, label)) AS content, count(region_id) AS num "
        "FROM {} WHERE status = 'ok' GROUP BY key"
    )
    database.execute(
        f"CREATE OR REPLACE TABLE changed AS SELECT key, a.key IS NULL AS only_second, b.key IS NULL AS only_first "
        f"FROM ({content.format(first.name)}) a FULL JOIN ({content.format(second.name)}) b USING (key) "
        "WHERE (a.content, a.num) IS DISTINCT FROM (b.content, b.num)"
    )


def differences(database: Database, first: RegionTable, second: RegionTable) -> dict[str, int]:
    """Return how many images and regions the two have in common, and how they differ; needs `find_changed`."""
    (images,) = database.execute("SELECT count(*), count_if(only_first), count_if(only_second) FROM changed")
    regions = "(SELECT key, region_id, caption FROM {} WHERE status = 'ok' AND region_id IS NOT NULL)"
    (counts,) = database.execute(
        "SELECT count(a.region_id), count(b.region_id), count_if(a.region_id IS NOT NULL AND b.region_id IS NOT NULL), "
        "count_if(a.caption <> b.caption) "
        f"FROM {regions.format(first.name)} a FULL JOIN {regions.format(second.name)} b USING (key, region_id)"
    )
    names = ("images_changed", "images_only_first", "images_only_second")
    region_names = ("regions_first", "regions_second", "regions_same_box", "captions_changed")
    return dict(zip((*names, *region_names), (*images, *counts), strict=True))
