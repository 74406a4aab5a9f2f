"""What teaches a small vision tower to see shapes: heads on its patch tokens, dropped after training.

Captions alone teach a small ViT colours within minutes and shapes within hours. Naming each attribute from the mean
token, and drawing the object's mask from each patch's token, makes that some ten minutes. Positions that start out as
waves instead of noise help as well.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.scenes.words import CHOICES, Attributes


class TeachingHeads:
    """Linear heads on patch tokens of `width` numbers, for patches of `patch_px` pixels."""

    def __init__(self, width: int, patch_px: int) -> None:
        self._patch_px = patch_px
        self._names = nn.ModuleDict({name: nn.Linear(width, len(words)) for name, words in CHOICES.items()})
        self._mask = nn.Linear(width, patch_px**2)
        self.module = nn.ModuleDict({"names": self._names, "mask": self._mask})
        """What is to be trained along."""

    def attributes_loss(self, patches: Tensor, attributes: Sequence[Attributes]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean cross-entropy of the attributes from `patches` `[B, P, D]`, and the share right of each."""
        mean_token = patches.mean(dim=1)
        losses, right = [], {}
        for name, words in CHOICES.items():
            truth = torch.tensor([words.index(getattr(one, name)) for one in attributes])
            logits = self._names[name](mean_token)
            losses.append(nn.functional.cross_entropy(logits.float(), truth))
            right[f"head_{name}"] = (logits.argmax(dim=1) == truth).float().mean()
        return torch.stack(losses).mean(), right

    def mask_loss(self, patches: Tensor, masks: Tensor) -> Tensor:
        """Return the cross-entropy of the masks drawn patch by patch; `masks` are `[B, 1, H, W]` of 0 and 1."""
        truth = nn.functional.unfold(masks.float(), self._patch_px, stride=self._patch_px).transpose(1, 2)
        return nn.functional.binary_cross_entropy_with_logits(self._mask(patches).float(), truth)


def position_waves(side: int, width: int) -> Tensor:
    """Return `[side * side, width]` sines and cosines of row and column: neighbours are alike before any training."""
    frequencies = 3 * torch.exp(torch.linspace(0, -4, width // 4))
    angles = torch.arange(side).float()[:, None] * frequencies
    waves = 0.3 * torch.cat([angles.sin(), angles.cos()], dim=1)
    by_row, by_column = (waves.unsqueeze(axis).expand(side, side, -1) for axis in (1, 0))
    return torch.cat([by_row, by_column], dim=2).reshape(side * side, width)
