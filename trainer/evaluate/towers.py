"""A model's vision tower as evaluation uses it: ours, with a dense map, or any other of open_clip's without one."""

from typing import Any, cast

from torch import Tensor, nn

from trainer.errors import TrainingError
from trainer.model.backbone import Backbone, Embeddings, normalise
from trainer.model.towers import can_be_taken_apart


class PlainTower(nn.Module):
    """A vision tower whose last block has no value path that is known here: it embeds images and crops, no patches."""

    def __init__(self, clip: nn.Module) -> None:
        """Take a model of open_clip's."""
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor, dense: bool = False) -> Embeddings:
        """Embed images `[B, 3, H, W]`. Raises TrainingError where patches are asked for."""
        if dense:
            raise TrainingError("this vision tower has no dense map: take --region-feature crop")
        if not len(images):
            blank: Tensor = self(images.new_zeros(1, *images.shape[1:])).image_features
            return Embeddings(blank[:0], None)
        return Embeddings(cast(Tensor, cast(Any, self.clip).encode_image(images)), None)


ImageTower = Backbone | PlainTower


def image_tower(clip: nn.Module) -> ImageTower:
    """Return the tower of a model, with a dense map where it has one."""
    visual = cast(nn.Module, clip.visual)
    return Backbone(visual) if can_be_taken_apart(visual) else PlainTower(clip)


def has_dense_map(tower: ImageTower) -> bool:
    """Say whether regions can be pooled from patches."""
    return isinstance(tower, Backbone)


def grid_of(tower: ImageTower, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Return (rows, columns) of the dense map of an input of (height, width); None without one."""
    if not isinstance(tower, Backbone):
        return None
    return image_size[0] // tower.patch_size[0], image_size[1] // tower.patch_size[1]


def pool_masks(dense_features: Tensor, mask_shares: Tensor, region_image_index: Tensor) -> Tensor:
    """Return `[N, D]` float32 normalised features of regions from `dense_features` `[B, D, h, w]`.

    Each patch is normalised, then averaged with the share of it that the mask covers as weight (`mask_shares`
    `[N, h w]`), then normalised again. `region_image_index` `[N]` int64 says whose regions they are.
    """
    maps = normalise(dense_features).flatten(2)
    pooled = mask_shares.new_zeros(len(mask_shares), maps.shape[1])
    for image in region_image_index.unique().tolist():
        mine = region_image_index == image
        pooled[mine] = mask_shares[mine] @ maps[image].T
    return normalise(pooled)
