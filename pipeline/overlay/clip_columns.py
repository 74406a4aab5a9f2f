"""What a CLIP says of regions, as an overlay's part of one shard: scores, or the features themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline.overlay.encoded import Encoded, encode_shard
from pipeline.overlay.encoder import Encoder
from pipeline.overlay.margins import Rivals, scores_of
from pipeline.overlay.plan import OverlaidShards
from pipeline.overlay.write import commit_overlay
from schemas.dataset import Dataset
from schemas.overlays import FEATURES, SCORES


class Columns(Protocol):
    """Makes the columns of an overlay of what a CLIP says."""

    def __call__(self, encoded: Encoded) -> list[pa.Array]:
        """Return the columns, a row for each of `encoded.ids`."""


def score_columns(rivals: Rivals) -> Columns:
    """Return what makes `SCORES`: float32, null where there is no caption, or no rival."""

    def columns(encoded: Encoded) -> list[pa.Array]:
        scores = scores_of(encoded, rivals)
        return [pa.array(getattr(scores, name), pa.float32(), from_pandas=True) for name in SCORES]

    return columns


def feature_columns(encoded: Encoded) -> list[pa.Array]:
    """Return `FEATURES`: lists of D float16, null where the region is not seen, or has no caption."""
    rows = np.flatnonzero(encoded.seen)
    captioned = encoded.text_of >= 0
    texts = encoded.texts[encoded.text_of[captioned]]
    return [
        _lists(len(encoded.seen), rows, encoded.regions),
        _lists(len(encoded.seen), rows[captioned], texts),
    ]


def _lists(num_rows: int, rows: Any, features: Any) -> pa.Array:
    """Return `num_rows` lists of float16, null but in `rows`, which are given in order."""
    lengths = np.zeros(num_rows, dtype=np.int32)
    lengths[rows] = features.shape[1]
    missing = np.ones(num_rows, dtype=np.bool_)
    missing[rows] = False
    ends = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(lengths, dtype=np.int32)])
    values = pa.array(np.ascontiguousarray(features, dtype=np.float16).ravel(), pa.float16())
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values, mask=pa.array(missing))


NAMES = {"score-regions": SCORES, "embed": FEATURES}
"""Of the columns, by the tool that makes them."""


@dataclass(frozen=True, kw_only=True)
class ClipOverlay:
    """Makes the parts of an overlay, shard by shard."""

    plan: OverlaidShards
    tool: str
    plain: Dataset
    """The data set as its shards are."""
    seen: Dataset
    """The same with overlays."""
    encoder: Encoder
    columns: Columns
    provenance: dict[str, Any]

    def make(self, unit: int, advance: Callable[[], None]) -> None:
        """Encode the unit's shard and commit the overlay's part of it; raises as `encode_shard` does, and OSError."""
        base = self.plan.bases[unit]
        where = self.plan.storage.url
        encoded = encode_shard(
            self.encoder, plain=self.plain, seen=self.seen, shard=base.shard, where=where, advance=advance
        )
        table = encoded.ids
        for name, column in zip(NAMES[self.tool], self.columns(encoded), strict=True):
            table = table.append_column(name, column)
        commit_overlay(
            self.plan.storage,
            base,
            self.plan.overlay,
            table,
            fingerprint=self.plan.fingerprint,
            provenance={self.tool: {**self.provenance, "num_captions_cut": encoded.num_cut}},
        )
