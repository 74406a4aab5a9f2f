"""The proposals of a unit on their way between two pools: a small file in `_proposals/`, gone once the unit is done."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from pipeline.sample import Drop, Proposals, Sample
from pipeline.store.storage import Storage
from schemas.names import PROPOSALS_DIR

Outcome = tuple[Proposals | None, Drop | None]
"""What a sample had after proposing: proposals, or the drop that ended it at or before that step."""


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    boxes: bytes = b""
    """`[R, 4]` little-endian float32 xyxy, pixels of the stored image."""
    scores: bytes = b""
    """`[R]` little-endian float32."""
    labels: tuple[str | None, ...] = ()
    masks: tuple[str | None, ...] | None = None
    excluded: tuple[str | None, ...] | None = None
    drop: Drop | None = None


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What the propose stage leaves of a unit."""

    provenance: dict[str, Any]
    """Of the proposer, which the caption stage does not load."""
    entries: list[_Entry]

    def given_to(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        """Yield the unit's samples, each with what it had after proposing."""
        for sample, (proposals, drop) in zip(samples, self.outcomes(), strict=True):
            sample.proposals, sample.drop = proposals, drop
            yield sample

    def outcomes(self) -> Iterator[Outcome]:
        """Yield what each sample had, in order."""
        for entry in self.entries:
            if entry.drop is not None:
                yield None, entry.drop
            else:
                boxes, scores = np.frombuffer(entry.boxes, "<f4").reshape(-1, 4), np.frombuffer(entry.scores, "<f4")
                proposals = Proposals(
                    boxes=boxes, scores=scores, labels=entry.labels, masks=entry.masks, excluded=entry.excluded
                )
                yield proposals, None


_decode_saved = msgspec.msgpack.Decoder(Saved).decode


def save(storage: Storage, unit: int, outcomes: Iterable[Outcome], *, provenance: dict[str, Any]) -> None:
    """Write the outcomes of a unit's samples, in order, exactly, and the provenance of their proposer."""
    saved = Saved(provenance=provenance, entries=[_entry(*outcome) for outcome in outcomes])
    storage.replace(_name(unit), msgspec.msgpack.encode(saved))


def load(storage: Storage, unit: int) -> Saved:
    """Return what `save` wrote. Raises FileNotFoundError where nothing was."""
    return _decode_saved(storage.read(_name(unit)))


def exists(storage: Storage, unit: int) -> bool:
    """Return whether the unit's proposals wait to be captioned."""
    return storage.size(_name(unit)) is not None


def remove(storage: Storage, unit: int) -> None:
    """Remove the unit's proposals, if any."""
    storage.remove(_name(unit))


def _entry(proposals: Proposals | None, drop: Drop | None) -> _Entry:
    if proposals is None:
        return _Entry(drop=drop)
    boxes, scores = proposals.boxes.astype("<f4"), proposals.scores.astype("<f4")
    return _Entry(
        boxes=boxes.tobytes(),
        scores=scores.tobytes(),
        labels=proposals.labels,
        masks=proposals.masks,
        excluded=proposals.excluded,
    )


def _name(unit: int) -> str:
    return f"{PROPOSALS_DIR}/unit-{unit:06d}.msgpack"
