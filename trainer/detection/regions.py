"""Boxes pooled from the pyramid, and the head that turns each into a class feature and a better box."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torchvision.ops import roi_align

from trainer.detection.boxes import BothSidesCoder, SampledBoxes
from trainer.detection.pyramid import MakeNorm
from trainer.detection.settings import DetectorSettings

POOLED = 7
"""Rows and columns of a pooled box."""
CODER = BothSidesCoder(weights=(10.0, 10.0, 5.0, 5.0))
"""Offsets in tenths, sizes in fifths: the standard deviations .1, .1, .2, .2."""


def levels_of(boxes: Tensor, *, finest_px: float, num_levels: int) -> Tensor:
    """Return `[N]` int64: the level that each of `boxes` `[N, 4]` is pooled from, by the root of its area."""
    sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    return torch.floor(torch.log2(sides / finest_px + 1e-6)).clamp(0, num_levels - 1).to(torch.int64)


def pool(levels: Sequence[Tensor], strides: Sequence[float], boxes: Sequence[Tensor], *, finest_px: float) -> Tensor:
    """Return `[N, C, 7, 7]` float32: boxes of all images (`[n, 4]` each, pixels of the input), by level.

    RoIAlign with half-pixel centres and as many samples as a cell has pixels.
    """
    owners = [one.new_full((len(one), 1), float(image)) for image, one in enumerate(boxes)]
    rois = torch.cat([torch.cat(owners), torch.cat(list(boxes))], dim=1)
    level_of = levels_of(rois[:, 1:], finest_px=finest_px, num_levels=len(levels))
    pooled = rois.new_zeros(len(rois), levels[0].shape[1], POOLED, POOLED)
    for number, (level, stride) in enumerate(zip(levels, strides, strict=True)):
        at = torch.where(level_of == number)[0]
        pooled[at] = roi_align(
            level.float(), rois[at], POOLED, spatial_scale=1 / stride, sampling_ratio=0, aligned=True
        )
    return pooled


class RegionHead(nn.Module):
    """Pooled boxes to class features, as CLIP's texts are, and codes of better boxes, whatever the class."""

    def __init__(self, settings: DetectorSettings, *, dim: int, norm: MakeNorm) -> None:
        """`dim` is the number of channels of texts' features."""
        super().__init__()
        channels, width = settings.channels, settings.head_width or dim
        layers: list[nn.Module] = []
        for _ in range(settings.head_convs):
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels), nn.ReLU()]
        self.convs = nn.Sequential(*layers)
        self.shared = nn.Sequential(
            nn.Linear(channels * POOLED**2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.classes = nn.Sequential(nn.Linear(width, dim), nn.ReLU())
        self.boxes = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))
        nn.init.normal_(self.boxes[-1].weight, std=0.001)  # type: ignore[arg-type]  # a Linear's
        self.scale = nn.Parameter(torch.tensor(50.0))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return `[N, D]` unit class features and `[N, 4]` codes, float32, of `[N, C, 7, 7]`."""
        shared = self.shared(self.convs(pooled).flatten(1))
        # A row may be all 0 after ReLU: it stays 0.
        return normalize(self.classes(shared).float(), dim=1), self.boxes(shared).float()

    def logits(self, features: Tensor, texts: Tensor) -> Tensor:
        """Return `[N, K + 1]` of unit features `[N, D]` and texts `[K + 1, D]`, background last."""
        return self.scale * features @ texts.T


def region_losses(
    logits: Tensor, codes: Tensor, sampled: Sequence[SampledBoxes], *, is_trained: Tensor, background_weight: float
) -> dict[str, Tensor]:
    """Return the losses of classes and boxes: sums over all sampled boxes, by their number.

    `logits` `[N, K + 1]` and `codes` `[N, 4]` are of all images' samples in turn. Classes that are not `is_trained`
    (`[K + 1]` bool) take no part in the softmax; background, the last, counts `background_weight`.
    """
    labels = torch.cat([one.labels for one in sampled])
    background = logits.shape[1] - 1
    num_sampled = max(len(labels), 1)
    wrong = cross_entropy(logits.masked_fill(~is_trained, -torch.inf), labels, reduction="none")
    weights = torch.where(labels == background, background_weight, 1.0)
    found = torch.where(labels != background)[0]
    boxes, truth = (torch.cat([getattr(one, name) for one in sampled])[found] for name in ("boxes", "truth"))
    away = (codes[found] - CODER.encode_single(truth, boxes)).abs().sum()
    return {"class_loss": (wrong * weights).sum() / num_sampled, "box_loss": away / num_sampled}
