"""Which regions show what a threshold does: a seeded sample of what it keeps and of what it drops, as crops."""

import base64
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline.audit.filters import Filter
from pipeline.audit.sweep import values_of
from pipeline.caption.crop import window
from schemas.dataset import Dataset
from schemas.hashes import sha256
from schemas.names import ShardName

NUM_SHOWN = 8
"""Crops of each side."""
_SIDE_PX = 144
_QUALITY = 82


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A region of a sheet."""

    row: dict[str, Any]
    """Its measures."""
    value: float
    """What the filter measures of it."""


@dataclass(kw_only=True)
class Sheets:
    """What a filter keeps and what it drops, of a threshold: `NUM_SHOWN` regions each, drawn while shards go by."""

    filter: Filter
    threshold: float
    dropped: list[tuple[float, Shown]] = field(default_factory=list)
    """With the draw that put it there: the smallest are kept."""
    kept: list[tuple[float, Shown]] = field(default_factory=list)

    def add(self, table: pa.Table, draws: npt.NDArray[np.float64]) -> None:
        """Look at a shard's measures; `draws` `[N]` decide who is shown."""
        values = values_of(table, self.filter)
        there = ~np.isnan(values) & pc.is_valid(table["region_id"]).to_numpy()
        drops = self.filter.drops(values, self.threshold)
        for side, rows in ((self.dropped, there & drops), (self.kept, there & ~drops)):
            places = np.flatnonzero(rows)
            nearest = places[np.argsort(draws[places], kind="stable")[:NUM_SHOWN]]
            found = table.take(pa.array(nearest)).to_pylist()
            side += [
                (float(draws[place]), Shown(row=row, value=float(values[place])))
                for place, row in zip(nearest.tolist(), found, strict=True)
            ]
            side.sort(key=lambda drawn: drawn[0])
            del side[NUM_SHOWN:]


def draws_of(shard: ShardName, num_rows: int, seed: int) -> npt.NDArray[np.float64]:
    """Return `[num_rows]` numbers in [0, 1) that depend on the shard's name and the seed alone."""
    return np.random.default_rng(int(sha256(f"{seed} {shard}".encode())[:16], 16)).random(num_rows)


def crop_uri(dataset: Dataset, row: dict[str, Any]) -> str | None:
    """Return a region's pixels as the address of a JPEG of its own; None where they cannot be decoded.

    Raises DatasetError and OSError where its bytes cannot be read.
    """
    data = dataset.read_image(row["shard"], tar_offset=row["tar_offset"], tar_size=row["tar_size"])
    box = (row["x0"], row["y0"], row["x1"], row["y1"])
    try:
        with Image.open(io.BytesIO(data)) as image:
            crop = image.convert("RGB").crop(window(box, width=image.width, height=image.height))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    crop.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    crop.save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
