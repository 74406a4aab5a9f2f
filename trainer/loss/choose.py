"""Which method a recipe's settings mean."""

from torch import Tensor

from trainer.hyperparameters import LossSettings
from trainer.loss.methods import CLIP, CLIPSelf, FineCLIP, FineCLIPWithHardNegatives, RegionCLIP
from trainer.loss.objective import Objective
from trainer.loss.official import OfficialFineCLIP


def objective_of(
    settings: LossSettings, *, max_regions: int | None = None, concept_features: Tensor | None = None
) -> Objective:
    """Return the objective that `settings` mean.

    `max_regions` an image is the official padding's; `concept_features` `[C, D]` are for `concepts`. Raises ValueError
    where one of them is needed and not given.
    """
    if settings.official_quirks is not None:
        return OfficialFineCLIP(settings, num_processes=settings.official_quirks, max_regions=max_regions)
    if settings.uses_concepts:
        if concept_features is None:
            raise ValueError("--region-objective concepts needs concepts")
        return RegionCLIP(settings, concept_features)
    if not settings.uses_regions:
        return CLIP(settings)
    if not settings.global_weight and not settings.region_weight:
        return CLIPSelf(settings)
    return FineCLIPWithHardNegatives(settings) if settings.hard_negative_weight else FineCLIP(settings)
