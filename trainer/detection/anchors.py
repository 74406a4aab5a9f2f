"""Anchors: boxes around the corner of each cell, three a cell. Strides need not be whole numbers (3.5 for L/14).

torchvision's generator rounds anchors and strides, which is wrong there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

RATIOS = (0.5, 1.0, 2.0)
"""Height by width."""


class Anchors(nn.Module):
    """Gives the anchors of an image's levels, as torchvision's proposal network asks for them."""

    def __init__(self, strides: Sequence[float], scale: float) -> None:
        """Take the levels' strides in pixels, and the side of a square anchor in strides."""
        super().__init__()
        self.strides = tuple(strides)
        self._scale = scale

    def forward(self, images: Any, features: Sequence[Tensor]) -> list[Tensor]:
        """Return `[A, 4]` float32 xyxy for each image, pixels of the input: by level, row and cell."""
        levels = [
            level_anchors((level.shape[2], level.shape[3]), stride, self._scale * stride)
            for level, stride in zip(features, self.strides, strict=True)
        ]
        return [torch.cat(levels).to(features[0].device)] * len(images.image_sizes)


def level_anchors(grid: tuple[int, int], stride: float, side_px: float) -> Tensor:
    """Return `[rows * columns * 3, 4]` anchors of equal areas about the upper left corner of each cell of a level."""
    roots = torch.tensor(RATIOS).sqrt()
    halves = torch.stack([1 / roots, roots], dim=1) * (side_px / 2)
    around = torch.cat([-halves, halves], dim=1)
    y, x = torch.meshgrid(torch.arange(grid[0]) * stride, torch.arange(grid[1]) * stride, indexing="ij")
    corners = torch.stack([x, y, x, y], dim=2).reshape(-1, 1, 4)
    return (corners + around).reshape(-1, 4)
