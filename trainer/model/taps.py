"""Patch tokens of several blocks and the dense map, in one pass: what dense predictors build their pyramids from.

maps of blocks 3, 5, 7 are raw tokens, without a norm and without the class token; that of the last block is its value
path's, which the dense map is embedded from.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from trainer.errors import TrainingError
from trainer.model.towers import Grid, Tower, tower_of

Residual = Literal["own", "cls"]
"""What the last block's value path is added to: each patch's own token, or the class token for all, as CAT-Seg has
it."""


class Tapped(NamedTuple):
    """What a tower says of B images of h x w patches."""

    maps: tuple[Tensor, ...]
    """`[B, C, h, w]` for each block that was asked for, in order."""
    dense_features: Tensor
    """`[B, D, h, w]`: an embedding of each patch, not normalised."""


def tapped(tower: Tower, images: Tensor, blocks: Sequence[int], *, residual: Residual = "own") -> Tapped:
    """Pass images `[B, 3, H, W]` (whole patches) through a tower and return the maps of `blocks`, counted from 0.

    Gradients flow where they are enabled. Raises TrainingError where a block is not there.
    """
    depth = depth_of(tower)
    wrong = [block for block in blocks if not 0 <= block < depth]
    if wrong:
        raise TrainingError(f"there is no block {wrong[0]} to take patches from: the vision tower has {depth}")
    kept: dict[int, Tensor] = {}
    number = 0

    def run(block: Any, *arguments: Any) -> Any:
        nonlocal number
        out = block(*arguments)
        if number in blocks:
            kept[number] = out[:, 1:]
        number += 1
        return out

    tokens, grid = tower.tokens(images, run)
    last = tower.value_tokens(tokens, tokens[:, :1] if residual == "cls" else None)
    kept[depth - 1] = last
    return Tapped(tuple(_as_map(kept[block], grid) for block in blocks), _as_map(tower.embed(last), grid))


def depth_of(tower: Tower) -> int:
    """Return how many blocks a tower has."""
    return len(list(tower.blocks)) + 1


class FrozenTower(nn.Module):
    """A vision tower that is never trained: always in eval mode, its outputs without gradient.

    It holds no parameters of its own in `state_dict`: the CLIP that it is of is kept elsewhere.
    """

    def __init__(self, visual: nn.Module, blocks: Sequence[int], *, residual: Residual = "own") -> None:
        """Take the vision tower of a model of open_clip's. Raises UnsupportedTowerError."""
        super().__init__()
        visual.requires_grad_(False).eval()
        self._visual = (visual,)  # in a tuple, so that it is no part of this module
        self._tower = tower_of(visual)
        self._blocks, self._residual = tuple(blocks), residual

    @property
    def patch_size(self) -> tuple[int, int]:
        """Pixels of a patch, (height, width)."""
        return self._tower.patch_size

    @property
    def num_blocks(self) -> int:
        """How many blocks there are."""
        return depth_of(self._tower)

    def widths(self) -> tuple[int, int]:
        """Return (C, D): channels of tokens and of the dense map."""
        parameter = next(self._visual[0].parameters())
        found = self(torch.zeros(1, 3, *(2 * side for side in self.patch_size), device=parameter.device))
        return found.maps[0].shape[1], found.dense_features.shape[1]

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tapped:
        """Return maps and dense features of images `[B, 3, H, W]`."""
        return tapped(self._tower, images, self._blocks, residual=self._residual)


def _as_map(tokens: Tensor, grid: Grid) -> Tensor:
    """Return tokens `[B, h w, C]` as `[B, C, h, w]`."""
    return cast(Tensor, tokens.transpose(1, 2).unflatten(2, grid))
