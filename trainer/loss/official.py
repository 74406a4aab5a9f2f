"""The official code's objective, quirks and all: what a run of W processes does to weights that are averaged.

- Features are gathered without gradient, so each of W processes has 1 / W of the contrastive gradient.
- The distillation is a mean of the processes' means.
- Another pair with the same text is a wrong match.
- On one process, zero rows that pad the regions of each image enter the softmax.
"""

import torch
from torch import Tensor
from typing_extensions import override

from trainer.hyperparameters import LossSettings
from trainer.loss.gather import gather_ids
from trainer.loss.losses import contrastive_loss
from trainer.loss.methods import FineCLIP
from trainer.loss.objective import Gathered, Matches, own_rows


class OfficialFineCLIP(FineCLIP):
    """FineCLIP as `official_quirks` processes of the official code train it, on any number of processes here."""

    def __init__(self, settings: LossSettings, *, num_processes: int, max_regions: int | None) -> None:
        """Take the number of official processes; `max_regions` an image is the padding of a single one.

        Raises ValueError where it is needed and not given.
        """
        super().__init__(settings)
        if num_processes == 1 and max_regions is None and settings.region_weight:
            raise ValueError("--official-quirks 1 pads regions to --max-regions per image: give it")
        self._num_processes = num_processes
        self._padded_to = max_regions if num_processes == 1 else None

    @override
    def sent(self, features: Tensor) -> Tensor:
        return features if self._num_processes == 1 else scale_gradient(features, 1 / self._num_processes)

    @override
    def contrast(self, matches: Matches, multiplier: Tensor, *, num_padding: int = 0) -> Tensor:
        return contrastive_loss(
            matches.features,
            matches.text_features,
            logit_multiplier=multiplier,
            text_ids=matches.text_ids,
            duplicate_text="negative",
            rows=matches.rows,
            num_padding=num_padding,
        )

    @override
    def region_loss(self, gathered: Gathered, multiplier: Tensor, seed: int) -> Tensor:
        assert gathered.regions is not None
        num_images = sum(count.images for count in gathered.counts)
        num_padding = num_images * (self._padded_to or 0) - sum(gathered.region_counts)
        return self.contrast(gathered.regions, multiplier, num_padding=max(num_padding, 0))

    @override
    def region_weights(self, gathered: Gathered) -> Tensor:
        images = [count.images for count in gathered.counts]
        position = own_rows(images).start + gathered.mine.region_image_index
        process = position * self._num_processes // max(sum(images), 1)
        process_of_region = gather_ids(process, gathered.region_counts)
        return mean_of_means(process_of_region, self._num_processes)[own_rows(gathered.region_counts)]


def mean_of_means(process_of_region: Tensor, num_processes: int) -> Tensor:
    """Return `[M]` float32 weights of M regions, where each process takes the mean of its own.

    `process_of_region` `[M]` int64 says whose each is; processes without any do not count.
    """
    sizes = torch.bincount(process_of_region, minlength=num_processes)
    num_filled = (sizes > 0).sum().clamp(min=1)
    return 1.0 / (sizes[process_of_region] * num_filled).float()


def scale_gradient(features: Tensor, factor: float) -> Tensor:
    """Return `features`, whose gradient is `factor` times what the loss says."""
    return features.detach() + (features - features.detach()) * factor
