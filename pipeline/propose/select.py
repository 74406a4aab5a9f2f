"""Which proposals become regions: one rule for every proposer, and a reason for each proposal that does not.

The rules, in this order; the first that applies decides:

    over_limit    ranked beyond `max_proposals`: not looked at, one result stands for all of them
    excluded      the given region is excluded by a --filter list
    crowd         the source says that the given box is of a group, not of one object
    bad_record    the source's annotation of the given region cannot be used (a failure, not a rule)
    invalid_box   NaN or infinity in the box or its score, or an edge not beyond its opposite (a failure, not a rule)
    outside       no part of the box lies inside the image; all other boxes are clipped to it and quantised
    small         a side is below `min_side`, or nothing is left of it
    low_score     the score is below `min_score`
    overlap       IoU above `max_iou` with a better box that passed the rules above (class-agnostic greedy NMS)
    over_limit    ranked beyond `max_regions`

Proposals are ranked by score, then geometry (top, left, bottom, right), then label, mask and id in the source, invalid
ones after all others, crowds after those, and excluded ones last; so the outcome does not depend on the order a
proposer returns them in, and that of the others not on what is excluded.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.backends import check_ranges
from pipeline.sample import Candidate, DecodedImage, Drop, GivenRegion, Proposals
from schemas import boxes as geometry
from schemas.boxes import Boxes
from schemas.hashes import region_id
from schemas.reasons import Reason, Stage

_SCORE_DIGITS = 4

_NMS_ROWS = 128
"""Boxes compared with all others at a time: few calls for 100 proposals, bounded memory for thousands."""


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """Which images and proposals are worth a caption."""

    min_image_side: int = 32
    """Shortest allowed shorter side of a stored image, in pixels."""
    min_side: float = 8.0
    """Shortest allowed side of a box within the image, in pixels."""
    min_score: float = 0.0
    """Lowest allowed score of a proposal, 0 to 1."""
    max_iou: float = 0.7
    """Highest allowed overlap (IoU, 0 to 1) of two regions of an image; 1 keeps all."""
    max_regions: int = 20
    """Most regions of an image."""
    max_proposals: int = 100
    """Most proposals of an image that are looked at; the rest are counted."""

    def __post_init__(self) -> None:
        least = {"min_image_side": 0, "min_side": 0, "max_regions": 1, "max_proposals": 1}
        check_ranges(self, flag="--select", least=least)


@dataclass(frozen=True, kw_only=True)
class _Ranked:
    """The proposals looked at, best first; all arrays have `R` rows."""

    boxes: Boxes
    """`[R, 4]` float32 as `Candidate.box` says."""
    scores: npt.NDArray[np.float64]
    """`[R]`, rounded."""
    labels: list[str | None]
    masks: list[str | None]
    ids: list[str]
    valid: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_]
    given: list[GivenRegion | None]
    """The source's regions, where the proposals are such."""


def too_low_resolution(image: DecodedImage, settings: SelectSettings) -> Drop | None:
    """Return the drop of an image whose shorter side is below `min_image_side` pixels, or None."""
    if min(image.width, image.height) >= settings.min_image_side:
        return None
    limit = f"--select.min-image-side {settings.min_image_side}"
    return _drop(Reason.LOW_RESOLUTION, f"{image.width} x {image.height} pixels, shorter side below {limit}")


def select(
    proposals: Proposals, settings: SelectSettings, *, key: str, width: int, height: int, proposer: str
) -> list[Candidate]:
    """Return what becomes of the proposals of image `key` (`width` x `height` pixels, the boxes' frame), best first.

    The counts of the results sum to the number of proposals. Pure: the proposals' own order does not matter.
    """
    ranked, num_beyond = _rank(
        proposals, settings.max_proposals, key=key, width=width, height=height, proposer=proposer
    )
    drops = _judge(ranked, settings)
    results = []
    for row, (x0, y0, x1, y1) in enumerate(ranked.boxes.tolist()):
        results.append(
            Candidate(
                region_id=ranked.ids[row],
                box=(x0, y0, x1, y1),
                proposal_score=float(ranked.scores[row]) if np.isfinite(ranked.scores[row]) else None,
                label=ranked.labels[row],
                count=1,
                drop=drops[row],
                mask=ranked.masks[row],
                given=ranked.given[row],
            )
        )
    if num_beyond:
        results.append(_not_looked_at(num_beyond, settings.max_proposals, key=key, proposer=proposer))
    return results


def _drop(reason: Reason, message: str) -> Drop:
    return Drop(reason=reason, stage=Stage.SELECT, message=message)


def _rank(
    proposals: Proposals, max_proposals: int, *, key: str, width: int, height: int, proposer: str
) -> tuple[_Ranked, int]:
    """Return the first `max_proposals` in rank order with their stored boxes and ids, and how many are beyond."""
    scores = np.round(proposals.scores.astype(np.float64), _SCORE_DIGITS).astype(np.float64)
    given = proposals.given or (None,) * len(scores)
    usable = np.array([region is None or region.problem is None for region in given], dtype=np.bool_)
    valid = geometry.is_valid(proposals.boxes) & np.isfinite(scores) & usable
    clipped = geometry.clip(proposals.boxes, width, height)
    inside = valid & geometry.is_valid(clipped)
    boxes = np.where(inside[:, None], geometry.quantise(clipped), proposals.boxes)
    # Equal boxes must be equal bytes, or their ids differ: one zero (-0.0 + 0.0 is 0.0) and one NaN.
    boxes = np.where(np.isnan(boxes), np.float32(np.nan), boxes + np.float32(0))
    x0, y0, x1, y1 = boxes.T
    masks = proposals.masks or (None,) * len(boxes)
    ids = [region.id if region else None for region in given]
    by_text = (_ranks(ids), _ranks(masks), _ranks(proposals.labels))
    set_aside = np.array([2 * region.excluded + bool(region.is_crowd) if region else 0 for region in given], np.intp)
    # lexsort's last key is the first in importance; NaN sorts last in each.
    keys = (*by_text, x1, y1, x0, y0, -scores, ~valid, set_aside)
    order = np.lexsort(keys)[:max_proposals]
    ranked = _Ranked(
        boxes=boxes[order],
        scores=scores[order],
        labels=[proposals.labels[row] for row in order],
        masks=[masks[row] for row in order],
        ids=_region_ids(boxes[order], key=key, proposer=proposer),
        valid=valid[order],
        inside=inside[order],
        given=[given[row] for row in order],
    )
    return ranked, len(boxes) - len(order)


def _ranks(texts: Sequence[str | None]) -> npt.NDArray[np.intp]:
    """Return `[R]` the place of each text among the sorted ones, None before all: masks are long to compare."""
    known = sorted({text for text in texts if text is not None})
    place: dict[str | None, int] = {text: rank for rank, text in enumerate(known, start=1)}
    return np.array([place.get(text, 0) for text in texts], dtype=np.intp)


def _region_ids(boxes: Boxes, *, key: str, proposer: str) -> list[str]:
    """Return an id per row; rows of equal boxes are told apart by their rank among them."""
    seen: Counter[bytes] = Counter()
    ids = []
    for box in boxes:
        ids.append(region_id(key, box, proposer, seen[box.tobytes()]))
        seen[box.tobytes()] += 1
    return ids


def _judge(ranked: _Ranked, settings: SelectSettings) -> list[Drop | None]:
    """Return a drop, or None for a region, for each row: the rules of this module's docstring in their order."""
    drops = [_judge_alone(ranked, row, settings) for row in range(len(ranked.ids))]
    candidates = np.array([row for row, drop in enumerate(drops) if drop is None], dtype=np.intp)
    num_regions = 0
    for row, (better, iou) in zip(candidates, _nms(ranked.boxes[candidates], settings.max_iou), strict=True):
        if better is not None:
            better_id = ranked.ids[candidates[better]]
            drops[row] = _drop(
                Reason.OVERLAP, f"IoU {iou:.2f} with region {better_id}, above --select.max-iou {settings.max_iou:g}"
            )
        elif num_regions == settings.max_regions:
            drops[row] = _drop(Reason.OVER_LIMIT, f"ranked beyond --select.max-regions {settings.max_regions}")
        else:
            num_regions += 1
    return drops


def _judge_alone(ranked: _Ranked, row: int, settings: SelectSettings) -> Drop | None:
    """Return the drop of a row by the rules that concern it alone, or None."""
    box, score = ranked.boxes[row], ranked.scores[row]
    given = ranked.given[row]
    if given is not None and given.excluded:
        return _drop(Reason.EXCLUDED, f"region {given.id} of the input is excluded by a --filter list")
    if given is not None and given.is_crowd:
        return _drop(Reason.CROWD, "the source says that the box is of a group (iscrowd)")
    if given is not None and given.problem is not None:
        return _drop(Reason.BAD_RECORD, given.problem)
    if not ranked.valid[row]:
        return _drop(Reason.INVALID_BOX, f"box {box.tolist()} with score {score:g} is not a box with a finite score")
    if not ranked.inside[row]:
        return _drop(Reason.OUTSIDE, f"box {box.tolist()} has no part inside the image")
    box_width, box_height = (box[2:] - box[:2]).tolist()
    if min(box_width, box_height) < settings.min_side or min(box_width, box_height) <= 0:
        return _drop(
            Reason.SMALL, f"{box_width:g} x {box_height:g} pixels, below --select.min-side {settings.min_side:g}"
        )
    if score < settings.min_score:
        return _drop(Reason.LOW_SCORE, f"score {score:g}, below --select.min-score {settings.min_score:g}")
    return None


def _nms(boxes: Boxes, max_iou: float) -> list[tuple[int | None, float]]:
    """Return for each of `[R, 4]` boxes, best first, (row of the kept box covering it, IoU), or (None, 0) if kept."""
    covered_by: list[tuple[int | None, float]] = [(None, 0.0)] * len(boxes)
    is_open = np.ones(len(boxes), dtype=np.bool_)  # neither kept nor covered yet
    for start in range(0, len(boxes), _NMS_ROWS):
        ious = geometry.iou(boxes[start : start + _NMS_ROWS], boxes)
        for row, ious_of_row in enumerate(ious, start):
            if not is_open[row]:
                continue
            is_open[row] = False
            covered = np.flatnonzero((ious_of_row > max_iou) & is_open)
            is_open[covered] = False
            for other in covered.tolist():
                covered_by[other] = (row, float(ious_of_row[other]))
    return covered_by


def _not_looked_at(count: int, max_proposals: int, *, key: str, proposer: str) -> Candidate:
    """Return the one result of all proposals beyond `max_proposals`, named as a box of four NaN after all others."""
    nothing = np.full(4, np.nan, dtype=np.float32)
    message = f"{count} proposals ranked beyond --select.max-proposals {max_proposals} were not looked at"
    return Candidate(
        region_id=region_id(key, nothing, proposer, max_proposals),
        box=None,
        proposal_score=None,
        label=None,
        count=count,
        drop=_drop(Reason.OVER_LIMIT, message),
    )
