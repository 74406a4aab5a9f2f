"""`--task attributes`: the right caption of a box among wrong ones that differ in one attribute or noun."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from trainer.errors import TrainingError
from trainer.evaluate.embed import Embedded
from trainer.evaluate.metrics import Ints, Metric, Scores
from trainer.evaluate.texts import TextEncoder
from trainer.evaluate.truth import Alternatives, Truth

USES_REGIONS = True

_PORTION = 1 << 16
"""Pairs of region and caption that are compared at a time."""


def check(truth: Truth) -> None:
    """Raise TrainingError where no region has a right and a wrong caption."""
    _alternatives(truth)


def _alternatives(truth: Truth) -> Alternatives:
    if truth.alternatives is None or not truth.alternatives.captions:
        raise TrainingError(
            "no region of the data has a wrong caption to tell from the right one: its captions must differ in "
            "colours, sizes, textures, materials or nouns, or take --data fgovd:FILE.json"
        )
    return truth.alternatives


def measure(right: Tensor, wrong: Tensor, owner: Ints, kinds: Sequence[str], images: Ints) -> Iterator[Metric]:
    """Yield `attribute_accuracy@1`: the share of regions whose right caption is more similar than all wrong ones.

    `right` `[N]` are similarities of regions and their captions, `wrong` `[W]` of regions and wrong captions; `owner`
    `[W]` says whose region each is of, `kinds` `[W]` what is wrong, `images` `[N]` whose image each region is of. Where
    there are several kinds, `KIND_accuracy@1` is that against the wrong captions of a kind, of the regions that have
    some. `..._chance@1` is what a guess reaches. A wrong caption as similar as the right one counts as more similar.
    """
    beaten = (wrong < right[torch.from_numpy(owner)]).numpy()
    names, kind_at = np.unique(np.array(kinds), return_inverse=True)
    parts = [("attribute", np.ones(len(owner), dtype=bool))]
    if len(names) > 1:
        parts += [(str(name), kind_at == at) for at, name in enumerate(names)]
    for name, mine in parts:
        counts = np.bincount(owner[mine], minlength=len(right))
        lost = np.bincount(owner[mine], weights=~beaten[mine], minlength=len(right))
        asked = counts > 0
        hits = (lost[asked] == 0).astype(np.float64)
        yield f"{name}_accuracy@1", Scores(hits=hits, images=images[asked])
        yield f"{name}_chance@1", float((1 / (1 + counts[asked])).mean())
        yield f"num_{name}_regions", float(asked.sum())
    yield "num_wrong_captions", float(len(owner))


def run(embedded: Embedded, encoder: TextEncoder) -> Iterator[Metric]:
    """Yield what `measure` finds for the regions with wrong captions."""
    truth, alternatives = embedded.truth, _alternatives(embedded.truth)
    counts = np.diff(alternatives.start)[embedded.region.at]
    rows = embedded.region.having(np.flatnonzero(counts > 0))
    starts, counts = alternatives.start[rows.at], counts[counts > 0]
    owner = np.repeat(np.arange(len(rows.at)), counts)
    at = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(starts, counts)
    captions = [truth.region_captions[i] or "" for i in rows.at] + [alternatives.captions[i] for i in at]
    # Wrong captions of one region are right ones of others: each text is embedded once.
    distinct = dict.fromkeys(captions)
    texts = encoder.captions(list(distinct))
    place = {text: number for number, text in enumerate(distinct)}
    text_at = torch.tensor([place[text] for text in captions])
    row_at = torch.from_numpy(np.concatenate([np.arange(len(rows.at)), owner]))
    pairs = zip(row_at.split(_PORTION), text_at.split(_PORTION), strict=True)
    similarities = torch.cat([(rows.features[row] * texts[text]).sum(dim=1) for row, text in pairs])
    right, wrong = similarities[: len(rows.at)], similarities[len(rows.at) :]
    kinds = [alternatives.kinds[i] for i in at]
    yield from measure(right, wrong, owner, kinds, truth.region_image[rows.at])
