"""The proposals of a unit on their way between two pools: a small file in `_proposals/`, gone once the unit is done."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from pipeline.sample import Drop, GivenRegion, Proposals, Sample
from pipeline.store.storage import Storage
from schemas.names import PROPOSALS_DIR
from schemas.reasons import Reason, Stage

_OTHER = Drop(
    reason=Reason.MISSING,
    stage=Stage.READ,
    message="read for its captions, it was not the image that regions were proposed for: the source changed meanwhile",
)


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    image_sha256: str | None
    """Of the stored bytes; None for a sample without an image."""
    boxes: bytes = b""
    """`[R, 4]` little-endian float32 xyxy, pixels of the stored image."""
    scores: bytes = b""
    """`[R]` little-endian float32."""
    labels: tuple[str | None, ...] = ()
    masks: tuple[str | None, ...] | None = None
    given: tuple[GivenRegion, ...] | None = None
    drop: Drop | None = None


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What the propose stage leaves of a unit."""

    provenance: dict[str, Any]
    """Of the proposer, which the caption stage does not load."""
    entries: list[_Entry]

    def given_to(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Yield the unit's samples, each with what it had after proposing.

        The source is read a second time for this, and may have changed: a sample that now has a drop keeps it, and one
        that nothing was proposed for, or whose image is another, is dropped.
        """
        waiting: dict[str, deque[_Entry]] = defaultdict(deque)
        for entry in self.entries:
            waiting[entry.key].append(entry)
        for sample in samples:
            found = waiting[sample.key].popleft() if waiting[sample.key] else None
            if sample.drop is None:
                if found is None or found.image_sha256 != _sha256_of(sample):
                    sample.drop = _OTHER
                else:
                    sample.proposals, sample.drop = _proposals(found), found.drop
            yield sample


_decode_saved = msgspec.msgpack.Decoder(Saved).decode


def save(storage: Storage, unit: int, samples: Iterable[Sample], *, provenance: dict[str, Any]) -> None:
    """Write what a unit's samples have after proposing, in order, exactly, and the provenance of their proposer."""
    saved = Saved(provenance=provenance, entries=[_entry(sample) for sample in samples])
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


def _entry(sample: Sample) -> _Entry:
    key, image_sha256, proposals = sample.key, _sha256_of(sample), sample.proposals
    if proposals is None:
        return _Entry(key=key, image_sha256=image_sha256, drop=sample.drop)
    return _Entry(
        key=key,
        image_sha256=image_sha256,
        boxes=proposals.boxes.astype("<f4").tobytes(),
        scores=proposals.scores.astype("<f4").tobytes(),
        labels=proposals.labels,
        masks=proposals.masks,
        given=proposals.given,
    )


def _proposals(entry: _Entry) -> Proposals | None:
    if entry.drop is not None:
        return None
    boxes, scores = np.frombuffer(entry.boxes, "<f4").reshape(-1, 4), np.frombuffer(entry.scores, "<f4")
    return Proposals(boxes=boxes, scores=scores, labels=entry.labels, masks=entry.masks, given=entry.given)


def _sha256_of(sample: Sample) -> str | None:
    return None if sample.image is None else sample.image.sha256


def _name(unit: int) -> str:
    return f"{PROPOSALS_DIR}/unit-{unit:06d}.msgpack"
