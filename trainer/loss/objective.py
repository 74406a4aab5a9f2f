"""From features to the loss of a step: gathers what all processes hold, weighs the losses, and counts duplicates.

loss = global_weight * global + region_weight * region + distill_weight * distill        (the paper's: 1, gamma, lambda)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.hyperparameters import LossSettings
from trainer.loss.gather import gather_ids, gather_rows, rank, world_size
from trainer.loss.losses import (
    concept_loss,
    contrastive_loss,
    distill_loss,
    duplicate_rate,
    region_weights,
    sample_concepts,
    scale_gradient,
)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """This process's normalised features: c captioned images, n regions, with what says which are alike."""

    image: Tensor
    """`[c, D]`."""
    image_text: Tensor
    """`[c, D]`."""
    image_text_ids: Tensor
    """`[c]` int64, equal for equal texts."""
    roi: Tensor | None
    """`[n, D]`; None where no loss looks at regions, as are the others."""
    region_text: Tensor | None
    """`[n, D]`; None with `concepts` too."""
    region_text_ids: Tensor
    """`[n]` int64."""
    crop: Tensor | None
    """`[n, D]`."""
    official_process: Tensor
    """`[n]` int64: the process of an official run (`LossSettings.official_quirks`) that would hold the region."""
    labels: Tensor
    """`[n]` int64: the region's concept; unused with `captions`."""


class Losses(NamedTuple):
    """This process's part of each loss; the processes' parts add up to the loss of the joined batch."""

    global_loss: Tensor | None
    region_loss: Tensor | None
    distill_loss: Tensor | None
    loss: Tensor
    """The weighted sum, to call `backward()` on."""
    num_duplicates: int
    """Texts of the joined batch that another of its pairs has too."""
    num_texts: int

    def detached(self) -> "Losses":
        """Return the same values, without the graph that made them."""
        return self._replace(
            global_loss=_detached(self.global_loss),
            region_loss=_detached(self.region_loss),
            distill_loss=_detached(self.distill_loss),
            loss=self.loss.detach(),
        )


class Objective:
    """The loss of a step, for any number of processes. All must call it, each step, with pairs or without."""

    def __init__(
        self, settings: LossSettings, *, max_regions: int | None = None, concept_features: Tensor | None = None
    ) -> None:
        """`max_regions` an image is the official padding's; `concept_features` `[C, D]` are for `concepts`.

        Raises ValueError where one of them is needed and not given.
        """
        if settings.official_quirks == 1 and max_regions is None and settings.region_weight:
            raise ValueError("--official-quirks 1 pads regions to --max-regions an image: give it")
        if settings.region_objective == "concepts" and settings.region_weight and concept_features is None:
            raise ValueError("--region-objective concepts needs concepts")
        self.settings = settings
        self._max_regions = max_regions
        self._concept_features = concept_features

    def __call__(
        self, pairs: Pairs, counts: Sequence[Sequence[int]], *, logit_scale: Tensor, global_batch_size: int, seed: int
    ) -> Losses:
        """Return the losses of all processes' pairs together.

        `counts` `[W][2]` are every process's c and n. `logit_scale` is the parameter (a logarithm).
        `global_batch_size` is the number of images of all processes; `seed`, equal in all, samples concepts.
        """
        settings = self.settings
        multiplier = logit_scale.exp()
        joined = self._gather(pairs, counts)
        images, regions = ([row[kind] for row in counts] for kind in range(2))
        global_loss = region_loss = distilled = None
        duplicates = [(0, 0)]
        if settings.global_weight:
            ids = gather_ids(pairs.image_text_ids, images)
            duplicates.append(duplicate_rate(ids))
            global_loss = self._contrastive(joined["image"], joined["image_text"], ids, images, multiplier)
        if settings.region_weight and settings.region_objective == "captions":
            ids = gather_ids(pairs.region_text_ids, regions)
            duplicates.append(duplicate_rate(ids))
            padding = self._num_padding(global_batch_size, len(ids))
            region_loss = self._contrastive(
                joined["roi"], joined["region_text"], ids, regions, multiplier, num_padding=padding
            )
        elif settings.region_weight:
            region_loss = self._concepts(pairs, regions, multiplier, seed)
        if settings.distill_weight:
            assert pairs.roi is not None and pairs.crop is not None
            process_of_region = gather_ids(pairs.official_process, regions)
            weights = region_weights(process_of_region, _own_rows(regions), settings.official_quirks)
            distilled = distill_loss(pairs.roi, pairs.crop, weights.to(pairs.roi.dtype))
        loss = self._weighted(global_loss, region_loss, distilled) + _anchor(pairs)
        return Losses(global_loss, region_loss, distilled, loss, *map(sum, zip(*duplicates, strict=True)))

    def _gather(self, pairs: Pairs, counts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Join the features that contrastive losses compare, by one collective."""
        settings = self.settings
        kinds: dict[str, tuple[Tensor, int]] = {}
        if settings.global_weight:
            kinds |= {"image": (pairs.image, 0), "image_text": (pairs.image_text, 0)}
        if settings.region_weight and settings.region_objective == "captions":
            assert pairs.roi is not None and pairs.region_text is not None
            kinds |= {"roi": (pairs.roi, 1), "region_text": (pairs.region_text, 1)}
        if not kinds:
            return {}
        factor = 1 / (settings.official_quirks or 1)
        scaled = [features if factor == 1 else scale_gradient(features, factor) for features, _ in kinds.values()]
        rows = gather_rows(scaled, [[row[kind] for _, kind in kinds.values()] for row in counts])
        return dict(zip(kinds, rows, strict=True))

    def _contrastive(
        self,
        image_features: Tensor,
        text_features: Tensor,
        ids: Tensor,
        counts: Sequence[int],
        multiplier: Tensor,
        num_padding: int = 0,
    ) -> Tensor:
        return contrastive_loss(
            image_features,
            text_features,
            logit_multiplier=multiplier,
            text_ids=ids,
            duplicate_text="negative" if self.settings.official_quirks else self.settings.duplicate_text,
            rows=_own_rows(counts),
            num_padding=num_padding,
        )

    def _concepts(self, pairs: Pairs, counts: Sequence[int], multiplier: Tensor, seed: int) -> Tensor:
        assert pairs.roi is not None and self._concept_features is not None
        labels = gather_ids(pairs.labels, counts)
        num_concepts = len(self._concept_features)
        sampled = sample_concepts(labels, num_concepts, num_sampled=self.settings.concepts_per_step, seed=seed)
        return concept_loss(
            pairs.roi,
            self._concept_features[sampled],
            torch.searchsorted(sampled, pairs.labels),
            logit_multiplier=multiplier.detach(),
            num_regions=len(labels),
        )

    def _num_padding(self, global_batch_size: int, num_regions: int) -> int:
        if self.settings.official_quirks != 1 or self._max_regions is None:
            return 0
        return max(global_batch_size * self._max_regions - num_regions, 0)

    def _weighted(self, *losses: Tensor | None) -> Tensor:
        settings = self.settings
        weights = (settings.global_weight, settings.region_weight, settings.distill_weight)
        parts = [weight * loss for weight, loss in zip(weights, losses, strict=True) if loss is not None]
        return torch.stack(parts).sum()


def _detached(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach()


def _own_rows(counts: Sequence[int]) -> slice:
    """Return where this process's rows stand among the joined ones."""
    if world_size() == 1:
        return slice(0, counts[0])
    first = sum(counts[: rank()])
    return slice(first, first + counts[rank()])


def _anchor(pairs: Pairs) -> Tensor:
    """Return 0, from all features that have a gradient: every process then runs the same backward pass."""
    tensors = (pairs.image, pairs.image_text, pairs.roi, pairs.region_text, pairs.crop)
    return 0.0 * torch.stack([t.sum() for t in tensors if t is not None]).sum()
