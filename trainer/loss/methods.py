"""A class a method: what it compares, from losses that are pure functions. Weights of 0 leave a term out."""

from collections.abc import Mapping

import torch
from torch import Tensor
from typing_extensions import override

from trainer.hyperparameters import LossSettings
from trainer.loss.gather import gather_ids
from trainer.loss.losses import (
    concept_loss,
    contrastive_loss,
    distill_loss,
    hard_negative_loss,
    sample_concepts,
)
from trainer.loss.objective import Gathered, Matches, Objective, Term


class CLIP(Objective):
    """Images against their captions."""

    @override
    def terms(self) -> Mapping[str, Term]:
        return {"global": self.global_loss}

    def global_loss(self, gathered: Gathered, multiplier: Tensor, seed: int) -> Tensor:
        """Return the contrastive loss of images and their captions."""
        assert gathered.images is not None
        return self.contrast(gathered.images, multiplier)

    def contrast(self, matches: Matches, multiplier: Tensor) -> Tensor:
        """Return the contrastive loss of this process's rows of N features and their texts."""
        return contrastive_loss(
            matches.features,
            matches.text_features,
            logit_multiplier=multiplier,
            text_ids=matches.text_ids,
            duplicate_text=self.settings.duplicate_text,
            rows=matches.rows,
        )


class CLIPSelf(Objective):
    """Regions' dense features against a teacher's features of their crops."""

    @override
    def terms(self) -> Mapping[str, Term]:
        return {"distill": self.distill_loss}

    def distill_loss(self, gathered: Gathered, multiplier: Tensor, seed: int) -> Tensor:
        """Return the mean of 1 - cosine over all regions."""
        roi, crop = gathered.mine.roi, gathered.mine.crop
        assert roi is not None and crop is not None
        return distill_loss(roi, crop, self.region_weights(gathered).to(roi.dtype))

    def region_weights(self, gathered: Gathered) -> Tensor:
        """Return `[n]` float32 weights of this process's regions; all processes' add up to 1."""
        mine = gathered.mine.region_image_index
        return torch.full_like(mine, 1, dtype=torch.float32) / max(sum(gathered.region_counts), 1)


class FineCLIP(CLIP, CLIPSelf):
    """All three: images and regions against their captions, and the self-distillation."""

    @override
    def terms(self) -> Mapping[str, Term]:
        return {"global": self.global_loss, "region": self.region_loss, "distill": self.distill_loss}

    def region_loss(self, gathered: Gathered, multiplier: Tensor, seed: int) -> Tensor:
        """Return the contrastive loss of regions and their captions."""
        assert gathered.regions is not None
        return self.contrast(gathered.regions, multiplier)


class FineCLIPWithHardNegatives(FineCLIP):
    """FineCLIP, and each region's caption against captions of it with one word changed."""

    @override
    def terms(self) -> Mapping[str, Term]:
        return {**super().terms(), "hard_negative": self.hard_negative_loss}

    def hard_negative_loss(self, gathered: Gathered, multiplier: Tensor, seed: int) -> Tensor:
        """Return the loss of telling captions from hard negatives, a mean over all regions."""
        mine = gathered.mine
        assert mine.roi is not None and mine.region_text is not None
        assert mine.negative_text is not None and mine.negative_owner is not None
        return hard_negative_loss(
            mine.roi,
            mine.region_text,
            mine.negative_text,
            mine.negative_owner,
            logit_multiplier=multiplier,
            num_regions=sum(gathered.region_counts),
        )


class RegionCLIP(CLIP, CLIPSelf):
    """Regions against sampled concepts, as the official baseline has it; other losses by their weights."""

    def __init__(self, settings: LossSettings, concept_features: Tensor) -> None:
        """`concept_features` `[C, D]` are normalised."""
        super().__init__(settings)
        self._concept_features = concept_features

    @override
    def terms(self) -> Mapping[str, Term]:
        return {"global": self.global_loss, "region": self.region_loss, "distill": self.distill_loss}

    @property
    @override
    def compares_regions(self) -> bool:
        return False

    def region_loss(self, gathered: Gathered, multiplier: Tensor, seed: int) -> Tensor:
        """Return the loss of regions against the concepts that the step samples."""
        mine = gathered.mine
        assert mine.roi is not None and mine.labels is not None
        labels = gather_ids(mine.labels, gathered.region_counts)
        num_concepts, num_sampled = len(self._concept_features), self.settings.concepts_per_step
        sampled = sample_concepts(labels, num_concepts, num_sampled=num_sampled, seed=seed)
        return concept_loss(
            mine.roi,
            self._concept_features[sampled],
            torch.searchsorted(sampled, mine.labels),
            logit_multiplier=multiplier.detach(),
            num_regions=len(labels),
        )
