"""What one `fineclip view` or `sheet` looks at: one or two open data sets, the marks, and answers kept for later."""

import dataclasses
import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.overlay.plan import EDITS
from pipeline.store.local import LocalStorage
from pipeline.viewer import compare, gallery
from pipeline.viewer.audit import AuditTable, parse_thresholds
from pipeline.viewer.edits import COLUMNS, Edits
from pipeline.viewer.features import FeatureIndex
from pipeline.viewer.marks import MARKS_FILE, Marks
from pipeline.viewer.overview import overview, read_record
from pipeline.viewer.pixels import Box, Decoded, crop, decode, media_type, shrink_for, smaller
from pipeline.viewer.selection import RANGES, Selection
from pipeline.viewer.source import OpenedData, is_overlay, open_source
from pipeline.viewer.table import Database, NotHereError, RegionTable
from schemas.folder import DatasetError
from schemas.reasons import Status
from schemas.tables import FILTER_SCHEMA

_KEPT_SUMMARIES = 64
_NO_EDITS = "edits are saved beside local data alone, and not where --overlay edits shows them already"
_SENT_AS_IS = 256 << 10
"""An image of fewer bytes than this is sent as it is stored, where a smaller one was asked for."""


_KEPT_DECODED = 2
"""Images whose pixels are kept for more crops of them."""


class Session:
    """Open data sets. Its methods may be called from many threads, and return what the page is sent.

    All raise DatasetError where the data cannot be read, and `DamagedTableError` where asking again will be answered.
    """

    def __init__(
        self,
        data: str,
        *,
        other: str | None = None,
        overlays: Sequence[str] = (),
        filters: Sequence[str] = (),
        marks: str | None = None,
        audit: str | None = None,
        features: str | None = None,
    ) -> None:
        """Open `data`, and `other`: another data set, or an overlay of `data`.

        `audit` is the folder of an audit of `data`, `features` an overlay of features. Raises DatasetError.
        """
        source = open_source(data, overlays=overlays, filters=filters)
        sources = [source]
        if other is not None:
            is_own = is_overlay(source.folder.url, other)
            more = {"overlays": [*overlays, other], "filters": filters} if is_own else {}
            sources.append(open_source(data if is_own else other, **more))
        self.audit = None if audit is None else AuditTable(audit)
        self.features = None if features is None else FeatureIndex(source, features)
        self._database = Database(sources)
        path = marks or (source.folder.path(MARKS_FILE) if source.is_local else None)
        self.marks = None if path is None else Marks(Path(path))
        self._save_marks()
        self.edits = self._open_edits(source)
        self.tables = [RegionTable(self._database, each, name) for each, name in zip(sources, "ab", strict=False)]
        self._lock, self._decoding = threading.Lock(), threading.Lock()
        self._decoded = functools.lru_cache(_KEPT_DECODED)(self._decode)
        self.forget()

    def forget(self) -> None:
        """Make all answers anew: marks or the readable shards changed."""
        summarise = functools.partial(gallery.summary, self.tables[0])
        self._summary = functools.lru_cache(_KEPT_SUMMARIES)(lambda selection: summarise(selection, self._bounds()))
        self._overview = functools.cache(lambda side: overview(self.tables[side]))
        self._bounds = functools.cache(lambda: gallery.bounds(self.tables[0]))
        self._changed = functools.cache(lambda: compare.find_changed(self._database, *self._both()))

    def close(self) -> None:
        """Free the database."""
        self._database.close()
        if self.audit is not None:
            self.audit.close()

    def about(self) -> dict[str, Any]:
        """Return what the page needs before it asks for anything else."""
        return {
            "titles": [table.source.title for table in self.tables],
            "problems": [problem for table in self.tables for problem in table.source.problems],
            "marks": None if self.marks is None else str(self.marks.path),
            "num_marks": len(self.marks.rows()) if self.marks else 0,
            "edits": self.edits is not None,
            "audit": self.audit is not None,
            "features": self.features is not None,
            "page_size": gallery.PAGE_SIZE,
            "crops_page_size": gallery.CROPS_PAGE_SIZE,
        }

    def values(self) -> dict[str, Any]:
        """Return what the filters offer: values of columns with their numbers, and the bounds of ranges."""
        everywhere = self._summary(Selection())["histograms"]
        return {"values": gallery.values(self.tables[0]), "bounds": self._bounds(), "histograms": everywhere}

    def page(self, selection: Selection) -> dict[str, Any]:
        """Return a page of the gallery."""
        self._prepare(selection)
        ids, more = gallery.find_images(self.tables[0], selection)
        images = gallery.load_images(self.tables[0], ids, selection)
        return {"items": images, "more": more, **self._made_by_hand(ids)}

    def crops(self, selection: Selection) -> dict[str, Any]:
        """Return a page of regions, each as an image with that region alone."""
        self._prepare(selection)
        crops, more = gallery.load_crops(self.tables[0], selection)
        return {"items": crops, "more": more, **self._made_by_hand([(crop.shard, crop.key) for crop in crops])}

    def compared_page(self, selection: Selection) -> dict[str, Any]:
        """Return a page of images side by side."""
        self._prepare(selection)
        page = compare.compared_page(*self._both(), selection)
        ids = [(item["ours"].shard, item["ours"].key) for item in page["items"]]
        return {**page, **self._made_by_hand(ids)}

    def image(self, shard: str, key: str) -> dict[str, Any]:
        """Return one image with all its regions, whatever their status."""
        found = gallery.load_images(self.tables[0], [(shard, key)], Selection())
        if not found:
            raise NotHereError(f"{shard}: there is no image {key!r}")
        return {"items": found, "more": False, **self._made_by_hand([(shard, key)])}

    def summary(self, selection: Selection) -> dict[str, Any]:
        """Return the selection's counts and histograms, which depend on neither its order nor its page."""
        self._prepare(selection)
        sort = selection.sort if selection.sort in RANGES else None
        return self._summary(dataclasses.replace(selection, sort=sort, descending=False, seed=0, page=1))

    def differences(self) -> dict[str, int]:
        """Return how the two data sets differ as a whole."""
        with self._lock:
            self._changed()
        return compare.differences(self._database, *self._both())

    def overview(self, side: int) -> dict[str, Any]:
        """Return the data set page of the first (0) or second (1) data set."""
        return self._overview(self._side(side))

    def record(self, side: int, shard: str, key: str) -> Any:
        """Return an image's record as the tar holds it."""
        return read_record(self.tables[self._side(side)], shard, key)

    def pixels(self, side: int, shard: str, key: str, *, max_side: int | None) -> tuple[bytes, str]:
        """Return an image's bytes and media type: as stored, or no larger than `max_side` pixels where it is large."""
        data, where = self._stored(side, shard, key)
        kind = media_type(data, where)
        if max_side is None or len(data) < _SENT_AS_IS:
            return data, kind
        return smaller(data, where, max_side=max_side), "image/jpeg"

    def crop(self, side: int, shard: str, key: str, *, box: Box, max_side: int) -> bytes:
        """Return the part of an image in `box`, xyxy in stored pixels, as a JPEG no larger than `max_side` pixels."""
        with self._decoding:  # the crops of an image are asked for at once, and the first decodes it for all
            decoded = self._decoded(side, shard, key, shrink_for(box, max_side))
        return crop(decoded, box, f"{shard}.tar: key {key!r}", max_side=max_side)

    def _stored(self, side: int, shard: str, key: str) -> tuple[bytes, str]:
        """Return an image's bytes, and where they are."""
        table = self.tables[self._side(side)]
        offset, size = table.place(shard, key)
        data = table.source.dataset.read_image(shard, tar_offset=offset, tar_size=size)
        return data, f"{table.source.folder.where(shard)}.tar: key {key!r} at byte {offset}"

    def _decode(self, side: int, shard: str, key: str, shrink: int) -> Decoded:
        return decode(*self._stored(side, shard, key), shrink=shrink)

    def mark(self, shard: str, key: str, region_id: str | None, *, keep: bool | None, note: str | None) -> Any:
        """Set or remove a mark, save all, and return it as it is now.

        Raises DatasetError where marks cannot be saved, or the first data set has no such region.
        """
        if self.marks is None:
            raise DatasetError("marks are not saved beside remote data; start again with --marks FILE.jsonl")
        relation = self.tables[0].relation([shard])
        sql = f"SELECT 1 FROM {relation} WHERE key = ? AND region_id IS NOT DISTINCT FROM ? LIMIT 1"
        if not self.tables[0].query(sql, [key, region_id]):
            raise NotHereError(f"{shard}: there is no {'image' if region_id is None else 'region'} {key}/{region_id}")
        now = self.marks.put(key, region_id, keep=keep, note=note)
        self._save_marks()
        self.forget()
        return {"mark": now, "num_marks": len(self.marks.rows())}

    def _prepare(self, selection: Selection) -> None:
        if selection.changed_only:
            with self._lock:
                self._changed()

    def _both(self) -> tuple[RegionTable, RegionTable]:
        if len(self.tables) < 2:
            raise NotHereError("no second data set is open; start again with --compare OTHER")
        return self.tables[0], self.tables[1]

    def _side(self, side: int) -> int:
        if side not in range(len(self.tables)):
            raise NotHereError("no second data set is open; start again with --compare OTHER")
        return side

    def edit(self, shard: str, key: str, region_id: str, *, caption: str | None, label: str | None) -> Any:
        """Set a region's caption and label, or with a caption of None take its edit back; return it as it is now.

        Raises DatasetError where edits cannot be saved, the first data set has no such ok region, or the caption says
        nothing.
        """
        if self.edits is None:
            raise DatasetError(_NO_EDITS)
        rows = self.tables[0].source.dataset.regions([*COLUMNS, "status"], [shard]).to_pylist()
        row = next((row for row in rows if (row["key"], row["region_id"]) == (key, region_id)), None)
        if row is None:
            raise NotHereError(f"{shard}: there is no region {key}/{region_id}")
        if row.pop("status") != Status.OK:
            raise DatasetError(f"{shard}: region {key}/{region_id} is not ok: it has no caption to correct")
        now = self.edits.put(shard, row, caption=caption, label=label)
        return {"edit": now, "num_edits": len(self.edits)}

    def _open_edits(self, source: OpenedData) -> Edits | None:
        """Return the edits of a local data set; None where there can be none."""
        if not source.is_local or EDITS in source.overlays:
            return None
        return Edits(LocalStorage(source.folder.path("").rstrip("/")), source.dataset.markers)

    def audited(self) -> dict[str, Any]:
        """Return the filters of the audit that is open."""
        return self._audit().about()

    def drops(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return what the thresholds of a query string drop, and the regions about the one that is to be shown."""
        thresholds, show = parse_thresholds(query)
        found = self._audit().drops(thresholds)
        sides = {} if show is None else self._audit().sides(self.tables[0], show, thresholds[show])
        items = [each["item"] for side in sides.values() for each in side]
        return {**found, "sides": sides, **self._made_by_hand([(item.shard, item.key) for item in items])}

    def choose(self, thresholds: Mapping[str, float]) -> dict[str, Any]:
        """Write the filter list of these thresholds. Raises SelectionError for what is none, and OSError."""
        audit = self._audit()
        return audit.choose(parse_thresholds({name: str(value) for name, value in thresholds.items()})[0])

    def map(self) -> dict[str, Any]:
        """Return the map of the features that are open."""
        return self._features().map()

    def near(self, shard: str, key: str, region_id: str, *, by: str) -> dict[str, Any]:
        """Return a region and what is nearest to it, by its pixels (`region`) or its `caption`."""
        found = self._features().near(self.tables[0], (shard, key, region_id), by)
        items = [found["region"], *(each["item"] for each in found["near"])]
        return {**found, **self._made_by_hand([(item.shard, item.key) for item in items if item is not None])}

    def _audit(self) -> AuditTable:
        if self.audit is None:
            raise NotHereError("no audit is open; start again with --audit OUT")
        return self.audit

    def _features(self) -> FeatureIndex:
        if self.features is None:
            raise NotHereError("no features are open; start again with --features NAME")
        return self.features

    def _made_by_hand(self, ids: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Return the marks and edits in the images `ids` (shard and key)."""
        keys = {key for _, key in ids}
        marks = [row for row in self.marks.rows() if row.key in keys] if self.marks else []
        return {"marks": marks, "edits": self.edits.of(ids) if self.edits else []}

    def _save_marks(self) -> None:
        """Let queries see the marks."""
        rows = self.marks.rows() if self.marks else []
        columns = {name: [getattr(row, name) for row in rows] for name in FILTER_SCHEMA.names}
        columns["region_id"] = [row.region_id or "" for row in rows]
        # of none, Arrow need not look at Python's values, for which it imports pandas: half a second
        table = pa.table(columns, schema=FILTER_SCHEMA) if rows else pa.Table.from_batches([], FILTER_SCHEMA)
        self._database.replace_table("marks", table)
