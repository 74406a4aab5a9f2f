"""Which shards of a data set an overlay has, by the overlay's markers."""

from collections.abc import Iterable

from pipeline.overlay.plan import EDITS, BaseShard
from pipeline.overlay.write import file_names
from pipeline.run.status import Markers, Totals
from pipeline.store.storage import Storage, in_parallel
from schemas.names import ShardName
from schemas.records import Counts, OverlayMarker, RecordError, decode_overlay_marker


class OverlayMarkers(Markers):
    """The markers of an overlay that still grows: those made from the shards' tables as they are, each read once."""

    def __init__(self, storage: Storage, overlay: str, bases: Iterable[BaseShard]) -> None:
        super().__init__(storage)
        self._overlay = overlay
        self._left = {base.shard: base for base in bases}

    def refresh(self) -> "OverlayMarkers":
        """Read the markers that have appeared since; returns self."""
        sizes = self._storage.sizes("")
        there = [base for base in self._left.values() if file_names(base, self._overlay)[1] in sizes]
        markers = in_parallel(self._storage, self._read, there)
        for base, marker in zip(there, markers, strict=True):
            if marker is not None and self._is_whole(base, marker) and self._has_table(base, marker, sizes):
                del self._left[base.shard]
                self._add(base, marker)
        return self

    def _read(self, base: BaseShard) -> OverlayMarker | None:
        """Return the marker, None for one that cannot be read: then the shard is to do again."""
        name = file_names(base, self._overlay)[1]
        try:
            return decode_overlay_marker(self._storage.read(name), f"{self._storage.url}/{name}")
        except (FileNotFoundError, RecordError):
            return None

    def _is_whole(self, base: BaseShard, marker: OverlayMarker) -> bool:
        """Say whether it is of the table as it is, and lacks no region that a repair of the shard has brought."""
        return marker.base_sha256 == base.table_sha256 and (not marker.partial or self._overlay == EDITS)

    def _has_table(self, base: BaseShard, marker: OverlayMarker, sizes: dict[str, int]) -> bool:
        name = file_names(base, self._overlay)[0]  # the listing may have begun before it was there
        return sizes.get(name) == marker.parquet.size or self._storage.size(name) == marker.parquet.size

    def _add(self, base: BaseShard, marker: OverlayMarker) -> None:
        totals: Totals = self.totals
        totals.images.inputs += base.num_images
        totals.images.ok += base.num_images
        totals.regions.add(marker.regions or Counts(inputs=marker.num_rows, ok=marker.num_rows))
        totals.num_shards += 1
        totals.num_bytes += marker.parquet.size

    def __contains__(self, shard: ShardName) -> bool:
        return shard not in self._left
