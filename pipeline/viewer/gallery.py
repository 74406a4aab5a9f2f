"""A page of the gallery: which images a selection shows, their regions, and the counts and histograms beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.viewer.selection import ONE_OF, RANGES, Selection
from pipeline.viewer.table import RegionTable

PAGE_SIZE = 24
CROPS_PAGE_SIZE = 60
NUM_BINS = 32
_NUM_VALUES = 500
"""Values listed of a column such as `label`, most frequent first."""
_ROWS_AN_IMAGE = 8
"""A first guess: how many selected rows it takes to see one more image."""
_REGION_FIELDS = (
    "status",
    "reason",
    "stage",
    "message",
    "label",
    "proposer",
    "proposal_score",
    "captioner",
    "caption",
    "caption_score",
    "text_hash",
)
_IMAGE_FIELDS = ("width", "height", "status", "reason", "stage", "message", "image_caption", "tar_offset", "tar_size")
_FIELDS = ("shard", "key", "region_id", "x0", "y0", "x1", "y1", "count", *dict.fromkeys(_IMAGE_FIELDS + _REGION_FIELDS))

ImageId = tuple[str, str]
"""Shard and key of an image."""
RegionId = tuple[str, str, str]
"""Shard, key and id of a region."""


@dataclass(frozen=True, kw_only=True)
class ShownRegion:
    """A region as the page shows it."""

    id: str
    box: tuple[float, float, float, float] | None
    """xyxy pixels of the stored image; None for a row that stands for several proposals."""
    count: int
    hit: bool
    """Whether the selection's conditions hold for it."""
    fields: dict[str, Any]
    """The columns of `_REGION_FIELDS`."""


@dataclass(kw_only=True)
class ShownImage:
    """An image as the page shows it."""

    shard: str
    key: str
    hit: bool = False
    """Whether the selection's conditions hold for the image's own row."""
    stored: bool = False
    """Whether the image's bytes are in the tar."""
    fields: dict[str, Any] = field(default_factory=dict)
    """The columns of `_IMAGE_FIELDS`, but for the place in the tar."""
    regions: list[ShownRegion] = field(default_factory=list)


def find_images(
    table: RegionTable, selection: Selection, *, limit: int = PAGE_SIZE, offset: int | None = None
) -> tuple[list[ImageId], bool]:
    """Return the images of the selection's page in order, and whether there are more after them.

    An image stands where the first of its selected rows does. `offset` counts images, and defaults to the page's.
    """
    offset = (selection.page - 1) * limit if offset is None else offset
    num_rows = (offset + limit + 1) * _ROWS_AN_IMAGE
    where, values = selection.where()
    order, order_values = selection.order()
    while True:
        # Reading stops at the first rows that are enough, which makes a page of a common word as quick as of no word.
        ((num_found, images),) = table.query(
            f"""
            WITH hits AS MATERIALIZED (SELECT shard, key FROM {table.name} WHERE {where} {order} LIMIT ?),
            numbered AS (SELECT shard, key, row_number() OVER () AS place FROM hits),
            images AS (SELECT shard, key, min(place) AS first FROM numbered GROUP BY shard, key
                       ORDER BY first LIMIT ? OFFSET ?)
            SELECT (SELECT count(*) FROM hits), (SELECT list([shard, key] ORDER BY first) FROM images)
            """,
            [*values, *order_values, num_rows, limit + 1, offset],
        )
        images = images or []
        if len(images) > limit or num_found < num_rows:
            return [(shard, key) for shard, key in images[:limit]], len(images) > limit
        num_rows *= 4


def load_images(table: RegionTable, ids: Sequence[ImageId], selection: Selection) -> list[ShownImage]:
    """Return the images `ids`, in that order, with all their regions; an id that is not there is left out."""
    if not ids:
        return []
    where, values = selection.where()
    keys = list(dict.fromkeys(key for _, key in ids))
    rows = table.query(
        f"SELECT {', '.join(_FIELDS)}, coalesce({where}, false) "
        f"FROM {table.relation(shard for shard, _ in ids)} "
        f"WHERE key IN ({', '.join('?' * len(keys))}) ORDER BY shard, row",
        [*values, *keys],
    )
    images: dict[ImageId, ShownImage] = {}
    for values_of_row in rows:
        row = dict(zip(_FIELDS, values_of_row, strict=False))
        image = images.setdefault((row["shard"], row["key"]), ShownImage(shard=row["shard"], key=row["key"]))
        hit = values_of_row[-1]
        if row["region_id"] is not None:
            image.regions.append(_region(row, hit=hit))
            continue
        if row["tar_offset"] is not None:
            table.remember_places([(row["shard"], row["key"], row["tar_offset"], row["tar_size"])])
        if not image.fields or (hit and not image.hit):
            # A repeated key has several rows of its own: the one that was asked for, else the first.
            image.hit, image.stored = hit, row["tar_offset"] is not None
            image.fields = {name: row[name] for name in _IMAGE_FIELDS if not name.startswith("tar_")}
    return [images[image_id] for image_id in ids if image_id in images]


def load_crops(
    table: RegionTable, selection: Selection, *, limit: int = CROPS_PAGE_SIZE
) -> tuple[list[ShownImage], bool]:
    """Return the regions of the selection's page in order, each in a `ShownImage` of its own, and if more follow."""
    where, values = selection.where()
    order, order_values = selection.order(of_regions=True)
    rows = table.query(
        f"SELECT {', '.join(_FIELDS)} FROM {table.name} WHERE region_id IS NOT NULL AND {where} {order} "
        "LIMIT ? OFFSET ?",
        [*values, *order_values, limit + 1, (selection.page - 1) * limit],
    )
    crops = [_crop(table, dict(zip(_FIELDS, values_of_row, strict=True))) for values_of_row in rows[:limit]]
    return crops, len(rows) > limit


def load_regions(table: RegionTable, ids: Sequence[RegionId]) -> list[ShownImage]:
    """Return the regions `ids`, in that order, each in a `ShownImage` of its own; one that is not there is left out."""
    if not ids:
        return []
    keys = list(dict.fromkeys(key for _, key, _ in ids))
    names = list(dict.fromkeys(name for _, _, name in ids))
    rows = table.query(
        f"SELECT {', '.join(_FIELDS)} FROM {table.relation(shard for shard, _, _ in ids)} "
        f"WHERE key IN ({', '.join('?' * len(keys))}) AND region_id IN ({', '.join('?' * len(names))})",
        [*keys, *names],
    )
    found = {}
    for values_of_row in rows:
        row = dict(zip(_FIELDS, values_of_row, strict=True))
        found[row["shard"], row["key"], row["region_id"]] = _crop(table, row)
    return [found[each] for each in ids if each in found]


def _crop(table: RegionTable, row: dict[str, Any]) -> ShownImage:
    stored = row["tar_offset"] is not None
    if stored:
        table.remember_places([(row["shard"], row["key"], row["tar_offset"], row["tar_size"])])
    fields = {name: row[name] for name in ("width", "height", "image_caption")}
    region = _region(row, hit=True)
    return ShownImage(shard=row["shard"], key=row["key"], stored=stored, fields=fields, regions=[region])


def _region(row: dict[str, Any], *, hit: bool) -> ShownRegion:
    edges = (row["x0"], row["y0"], row["x1"], row["y1"])
    fields = {name: row[name] for name in _REGION_FIELDS}
    return ShownRegion(
        id=row["region_id"], box=None if None in edges else edges, count=row["count"], hit=hit, fields=fields
    )


def summary(table: RegionTable, selection: Selection, ends: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """Return how many images and regions the selection holds, and `NUM_BINS` counts of regions for each of `ends`.

    `ends` are a column's smallest and largest value (`bounds`). The rows are read once.
    """
    where, values = selection.where()
    columns, ends_of_bins = "", []
    for name, (low, high) in ends.items():
        # The bin that a row falls into. Without a value there is none: least and greatest pass over nulls.
        place = f"floor(({RANGES[name]} - ?) / ?)"
        columns += f", CASE WHEN {RANGES[name]} IS NOT NULL THEN least(greatest({place}, 0), {NUM_BINS - 1}) END"
        columns += f"::TINYINT AS {name}"
        ends_of_bins += [low, (high - low) / NUM_BINS or 1.0]
    parts = [
        "SELECT 'images', 0, count(*) FROM (SELECT 1 FROM hits GROUP BY shard, key)",
        "SELECT 'regions', 0, count(*) FROM hits WHERE is_region",
        *(f"SELECT '{name}', {name}, count(*) FROM hits WHERE is_region GROUP BY {name}" for name in ends),
    ]
    found = table.query(
        f"WITH hits AS MATERIALIZED (SELECT shard, key, region_id IS NOT NULL AS is_region{columns} "
        f"FROM {table.name} WHERE {where}) {' UNION ALL '.join(parts)}",
        [*ends_of_bins, *values],
    )
    counts = {(name, position): number for name, position, number in found}
    histograms = {name: [counts.get((name, position), 0) for position in range(NUM_BINS)] for name in ends}
    return {"images": counts["images", 0], "regions": counts["regions", 0], "histograms": histograms}


def bounds(table: RegionTable) -> dict[str, tuple[float, float]]:
    """Return smallest and largest value of each of `RANGES` over all regions; those with no value are left out.

    Shares and proposals' scores run from 0 to 1 whatever the data hold.
    """
    columns = ", ".join(f"min({sql}), max({sql})" for sql in RANGES.values())
    (found,) = table.query(f"SELECT {columns} FROM {table.name} WHERE region_id IS NOT NULL")
    ends = {name: (found[2 * i], found[2 * i + 1]) for i, name in enumerate(RANGES)}
    fixed = {"proposal_score": (0.0, 1.0), "area": (0.0, 1.0)}
    return {name: fixed.get(name, pair) for name, pair in ends.items() if pair[0] is not None}


def values(table: RegionTable) -> dict[str, list[tuple[str | None, int]]]:
    """Return the values of each column that a selection can name, with the number of rows; the most frequent first."""
    listed: dict[str, list[tuple[str | None, int]]] = {}
    for column in ONE_OF:
        if column == "text_hash":
            continue
        of_images = "true" if column in ("status", "reason", "shard") else "region_id IS NOT NULL"
        listed[column] = table.query(
            f"SELECT {column}, sum(count)::BIGINT AS number FROM {table.name} WHERE {of_images} GROUP BY {column} "
            f"ORDER BY number DESC, {column} LIMIT {_NUM_VALUES}"
        )
    return listed
