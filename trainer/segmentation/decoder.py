"""Each class's map at the patches' size to logits of twice the sides a level, guided by earlier blocks' patches."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from trainer.segmentation.settings import HeadSettings


class Guides(nn.Module):
    """Patches of earlier blocks at the sizes of the decoder's levels."""

    def __init__(self, width: int, channels: Sequence[int]) -> None:
        """`width` is the channels of tokens; level n has 2^(n + 1) times the patches' sides."""
        super().__init__()
        self.resizers = nn.ModuleList(
            nn.ConvTranspose2d(width, wanted, 2 << level, stride=2 << level) for level, wanted in enumerate(channels)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return `[B, channels, 2h, 2w]`, `[B, channels, 4h, 4w]`, ... of maps `[B, width, h, w]`."""
        return [resize(one) for resize, one in zip(self.resizers, maps, strict=True)]


class Level(nn.Module):
    """Twice the sides: the maps of classes beside what is kept of the guide, through two convolutions."""

    def __init__(self, before: int, channels: int, guide: int, kept: int) -> None:
        """Channels before and after, of the guide and of what is kept of it."""
        super().__init__()
        self.grow = nn.ConvTranspose2d(before, before - kept, 2, stride=2)
        self.keep = nn.Sequential(nn.Conv2d(guide, kept, 3, padding=1), nn.ReLU())
        self.convs = nn.Sequential(
            nn.Conv2d(before, channels, 3, padding=1, bias=False),
            nn.GroupNorm(channels // 16, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(channels // 16, channels),
            nn.ReLU(),
        )

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """Return `[B T, channels, 2h, 2w]` of `[B T, before, h, w]`, guided by `[B, guide, 2h, 2w]`."""
        kept = self.keep(guide).repeat_interleave(len(x) // len(guide), dim=0)
        return cast(Tensor, self.convs(torch.cat([self.grow(x), kept], dim=1)))


class Decoder(nn.Module):
    """All levels, and the logits."""

    def __init__(self, settings: HeadSettings) -> None:
        """See `HeadSettings`."""
        super().__init__()
        before = [settings.dim, *settings.decoder_channels]
        self.levels = nn.ModuleList(
            Level(*parts)
            for parts in zip(
                before, settings.decoder_channels, settings.guide_channels, settings.guide_kept, strict=False
            )
        )
        self.logits = nn.Conv2d(before[-1], 1, 3, padding=1)

    def forward(self, x: Tensor, guides: Sequence[Tensor]) -> Tensor:
        """Return logits `[B, T, H, W]` of `[B, C, T, h, w]`; `guides` are those of `Guides`."""
        batch, _, classes = x.shape[:3]
        maps = x.transpose(1, 2).flatten(0, 1)
        for level, guide in zip(self.levels, guides, strict=True):
            maps = level(maps, guide)
        return cast(Tensor, self.logits(maps)[:, 0].unflatten(0, (batch, classes)))
