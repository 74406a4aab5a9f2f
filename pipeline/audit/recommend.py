"""Which threshold, and why: a rule for each filter, so that a person knows what to disagree with."""

from collections.abc import Collection
from dataclasses import dataclass

from pipeline.audit.sweep import Sweep
from schemas.text import counted

_WHY_NOT = {
    "clip_score": "how high a score is depends on the words as much as on the region: look at both sheets first",
    "proposal_score": "what a score means differs between proposers: look at both sheets first",
    "copies": "training can take equal captions as positives of each other (--duplicate-text), so none must go",
}
_TOO_MANY = {
    "margin_in_image": "this CLIP prefers another caption too often to be trusted with these: try one that knows them",
    "margin_in_sample": "this CLIP prefers another caption too often to be trusted with these: try one that knows them",
    "boilerplate": "that is a template of the captioner: caption anew, or keep all",
    "min_words": "such captions are the rule here: labels, perhaps",
    "max_words": "such captions are the rule here",
    "min_side": "small boxes are the rule here",
    "max_area": "boxes of the whole image are the rule here",
    "overlap": "overlapping boxes are the rule here: look at the proposer's NMS first",
    "duplicate": "the pictures look alike as a kind (drawings, scans): the hash does not tell them apart",
}


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What is recommended of a filter."""

    threshold: float | None
    """None: leave it off."""
    reason: str
    was_measured: bool = True


def recommend(sweep: Sweep, num_regions: int, looked_at: Collection[str]) -> Advice:
    """Return what is recommended, in view of what it would drop of `num_regions`.

    `looked_at` names the filters of images whose images were compared, though none may be near another.
    """
    each = sweep.filter
    if not sweep.num_measured and each.name in looked_at:
        return Advice(threshold=each.start, reason="drops nothing here: no image is near another")
    if not sweep.num_measured:
        return Advice(threshold=None, reason=_unmeasured(each.name), was_measured=False)
    if each.start is None:
        return Advice(threshold=None, reason=_WHY_NOT[each.name])
    num, num_images = sweep.at(each.start)
    share = num / num_regions if num_regions else 0.0
    if share > each.most:
        reason = f"{each.says(each.start)} would drop {share:.0%} of the regions: {_TOO_MANY[each.name]}"
        return Advice(threshold=None, reason=reason)
    if not num and not num_images:
        return Advice(threshold=each.start, reason="drops nothing here")
    dropped = (f"{counted(num_images, 'image')} with " if each.of_images else "") + counted(num, "region")
    return Advice(threshold=each.start, reason=f"drops {dropped} ({share:.1%}): {each.what}")


def _unmeasured(name: str) -> str:
    if name in ("clip_score", "margin_in_image", "margin_in_sample"):
        return "run `fineclip score-regions`, and name its overlay"
    if name == "against":
        return "give --against INPUT, such as a set that models are evaluated on"
    if name == "duplicate":
        return "images were not compared (--no-images)"
    return "nothing here has it"
