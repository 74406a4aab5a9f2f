"""The losses, as pure functions of features. Gathering, weighting and logging happen outside (`methods.py`).

N pairs are those of all processes, n <= N those of this one: its `rows`. A loss sums over `rows` and divides by what
all processes have, so the processes' values add up to the loss of the joined batch; a lone process has all rows.
`*_features` are L2-normalised float tensors. Any n or N may be 0: the loss is then 0, and still part of the graph.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from trainer.hyperparameters import DuplicateText


def contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    *,
    logit_multiplier: Tensor,
    text_ids: Tensor,
    duplicate_text: DuplicateText,
    rows: slice = slice(None),
    num_padding: int = 0,
) -> Tensor:
    """Return the symmetric cross-entropy of matching N images (or regions) and N texts, of `rows`, as a scalar.

    `image_features`, `text_features` are `[N, D]`, pair by pair; `text_ids` `[N]` int64 is equal for equal texts;
    `logit_multiplier` is `logit_scale.exp()`. Each row's and each column's loss is divided by 2 N.

    `num_padding` adds as many all-zero pairs, as the official code does on one GPU: each is a wrong match of similarity
    0 for every pair, and has a constant loss of its own. Nothing is computed for them.
    """
    num_pairs = len(text_ids) + num_padding
    same = text_ids[rows, None] == text_ids[None, :]
    own = torch.arange(len(text_ids), device=text_ids.device)[rows]  # where each row's own partner stands
    losses = []
    for queries, keys in ((image_features, text_features), (text_features, image_features)):
        logits = logit_multiplier * queries[rows] @ keys.T
        losses.append(_matching_losses(logits, same, own, duplicate_text, num_padding).sum())
    if num_padding and len(text_ids):
        share = len(own) / len(text_ids)  # of this process: the constant must be counted once
        losses.append(losses[0].new_tensor(2 * num_padding * math.log(num_pairs) * share))
    return torch.stack(losses).sum() / (2 * max(num_pairs, 1))


def _matching_losses(
    logits: Tensor, same: Tensor, own: Tensor, duplicate_text: DuplicateText, num_padding: int
) -> Tensor:
    """Return `[n]`: the cross-entropy of each row of logits `[n, N]`; `same` `[n, N]` marks equal texts."""
    if duplicate_text == "mask":
        others = same.scatter(1, own[:, None], False)
        logits = logits.masked_fill(others, -math.inf)
    if duplicate_text == "positive":
        matching = torch.where(same, logits, 0.0).sum(dim=1) / same.sum(dim=1)
    else:
        matching = logits.gather(1, own[:, None]).squeeze(1)
    total = logits.logsumexp(dim=1) if logits.shape[1] else logits.sum(dim=1)
    if num_padding:
        total = torch.logaddexp(total, total.new_tensor(math.log(num_padding)))
    return total - matching


def hard_negative_loss(
    roi_features: Tensor,
    text_features: Tensor,
    negative_features: Tensor,
    owner: Tensor,
    *,
    logit_multiplier: Tensor,
    num_regions: int,
) -> Tensor:
    """Return the cross-entropy of telling each region's own text from its hard negatives, as a scalar.

    `roi_features`, `text_features` `[n, D]` are pairs, `negative_features` `[h, D]` wrong texts, `owner` `[h]` int64
    says whose each is. It is summed over this process's regions and divided by all `num_regions`; a region without hard
    negatives has a loss of 0.
    """
    right = logit_multiplier * (roi_features * text_features).sum(dim=1)
    wrong = logit_multiplier * (roi_features[owner] * negative_features).sum(dim=1)
    margins = wrong - right[owner]
    # log(1 + sum of exp(margins)), each region's largest margin taken out so that nothing overflows.
    peaks = torch.zeros_like(right).detach().scatter_reduce(0, owner, margins.detach(), "amax")
    totals = torch.exp(-peaks).index_add(0, owner, torch.exp(margins - peaks[owner]))
    return (peaks + totals.log()).sum() / max(num_regions, 1)


def distill_loss(roi_features: Tensor, crop_features: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of `weights * (1 - cosine)` of regions' dense features and their crops', as a scalar.

    `roi_features` (student) and `crop_features` (teacher) are `[n, D]`; `weights` `[n]` add up to 1 over all processes.
    """
    return (weights * (1 - (roi_features * crop_features).sum(dim=1))).sum()


def concept_loss(
    roi_features: Tensor, concept_features: Tensor, labels: Tensor, *, logit_multiplier: Tensor, num_regions: int
) -> Tensor:
    """Return RegionCLIP's loss as the official baseline has it: a yes or no for every region and sampled concept.

    `roi_features` `[n, D]`, `concept_features` `[C, D]`, `labels` `[n]` int64 of each region among the C. The binary
    cross-entropies are summed over concepts, and over this process's regions divided by all `num_regions`.
    """
    logits = logit_multiplier * roi_features @ concept_features.T
    wanted = one_hot(labels, len(concept_features)).to(logits.dtype)
    return binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / max(num_regions, 1)


def sample_concepts(labels: Tensor, num_concepts: int, *, num_sampled: int, seed: int) -> Tensor:
    """Return the sorted concepts `[C]` int64 that count in a step: those in `labels`, filled up at random.

    `labels` `[M]` are those of all processes; the same `seed` gives every process the same concepts.
    """
    present = labels.unique().cpu()
    absent = torch.ones(num_concepts, dtype=torch.bool).index_fill_(0, present, False).nonzero().squeeze(1)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(absent), generator=generator)[: max(num_sampled - len(present), 0)]
    return torch.cat([present, absent[order]]).sort().values.to(labels.device)


def duplicate_rate(text_ids: Tensor) -> tuple[int, int]:
    """Return how many of the texts `[N]` (ids equal for equal texts) another pair has too, and N."""
    _, inverse, counts = text_ids.unique(return_inverse=True, return_counts=True)
    return int((counts[inverse] > 1).sum()), len(text_ids)
