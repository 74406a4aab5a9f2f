"""The vision tower as training uses it: one pass gives the global embedding and the dense map.

embeddings = backbone(images, dense=True)        global [B, D] and dense_features [B, D, h, w]
roi_features = pool_regions(dense_features, ...)  [N, D]
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint
from torchvision.ops import roi_align

from trainer.model.towers import Part, tower_of


class Embeddings(NamedTuple):
    """What one pass over B images gives. Nothing is normalised."""

    image_features: Tensor
    """`[B, D]`."""
    dense_features: Tensor | None
    """`[B, D, h, w]`: an embedding of each patch, None where it was not asked for."""


class Backbone(nn.Module):
    """A vision tower of open_clip's, with its parameters and names untouched (`visual.*`)."""

    def __init__(self, visual: nn.Module, *, gradient_checkpointing: bool = False) -> None:
        """Wrap `visual`, a model's vision tower. Raises UnsupportedTowerError."""
        super().__init__()
        self.visual = visual
        self._gradient_checkpointing = gradient_checkpointing
        self._tower = tower_of(visual)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Backbone":
        # The tower holds the visual's modules: a copy must hold its own.
        return Backbone(copy.deepcopy(self.visual, memo), gradient_checkpointing=self._gradient_checkpointing)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Pixels of a patch, (height, width)."""
        return self._tower.patch_size

    def train_blocks_only(self) -> None:
        """Freeze everything but the blocks: patch embedding, class token, positions, final norm and head."""
        self.visual.requires_grad_(False)
        for block in (*self._tower.blocks, self._tower.last_block):
            block.requires_grad_(True)

    @property
    def class_token_only(self) -> list[Part]:
        """Rows of parameters that only the global embedding depends on."""
        return self._tower.class_token_only

    def compile_blocks(self) -> None:
        """Compile each block but the last (`torch.compile`): minutes at first, faster steps after."""
        for block in self._tower.blocks:
            block.compile(dynamic=True)

    def forward(self, images: Tensor, dense: bool = False) -> Embeddings:
        """Embed images `[B, 3, H, W]`; H and W are multiples of the patch, and may be other than the model's own.

        Gradient checkpointing, where on, covers every block, the last one's two paths included.
        """
        if not len(images):
            # A process without images must still give every parameter a gradient, of 0: others wait for it.
            blank = self(images.new_zeros(1, *images.shape[1:]), dense)
            return Embeddings(
                blank.image_features[:0], None if blank.dense_features is None else blank.dense_features[:0]
            )
        tokens, grid = self._tower.tokens(images, self._run)
        pooled, patches = self._run(self._tower.last, tokens, grid, dense)
        maps = None if patches is None else patches.transpose(1, 2).unflatten(2, grid)
        return Embeddings(pooled, maps)

    def _run(self, function: Any, *arguments: Any) -> Any:
        if self._gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False)
        return function(*arguments)


def pool_regions(dense_features: Tensor, boxes_norm: Tensor, region_image_index: Tensor) -> Tensor:
    """Return `[N, D]` float32 normalised roi_features of regions from `dense_features` `[B, D, h, w]`.

    Each patch is normalised, then pooled over the box by RoIAlign to one cell, then normalised again. `boxes_norm`
    `[N, 4]` float32 are xyxy in fractions of the image, `region_image_index` `[N]` int64 says whose they are.
    """
    maps = normalise(dense_features)
    height, width = maps.shape[2:]
    boxes = boxes_norm.to(maps.dtype) * boxes_norm.new_tensor([width, height, width, height])
    rois = torch.cat([region_image_index[:, None].to(maps.dtype), boxes], dim=1)
    # Every argument is given: torchvision's default is not to align.
    pooled = roi_align(maps, rois, output_size=(1, 1), spatial_scale=1.0, sampling_ratio=-1, aligned=True)
    return normalise(pooled.flatten(1))


def normalise(features: Tensor) -> Tensor:
    """Return features L2-normalised along dim 1, in float32 at least: losses and pooling never have half precision."""
    return normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)


def check_size(size: tuple[int, int], patch_size: tuple[int, int]) -> None:
    """Raise ValueError where an input size (height, width) is not whole patches, and name the nearest that are."""
    if any(pixels % patch for pixels, patch in zip(size, patch_size, strict=True)):
        nearest = [max(round(pixels / patch), 1) * patch for pixels, patch in zip(size, patch_size, strict=True)]
        raise ValueError(
            f"an input of {size[0]} x {size[1]} pixels is not whole patches of {patch_size[0]} x {patch_size[1]}; "
            f"take {nearest[0]} x {nearest[1]}"
        )
