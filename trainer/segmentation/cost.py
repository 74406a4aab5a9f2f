"""Cost volumes: how similar each patch is to each name."""

from typing import cast

from torch import Tensor
from torch.nn.functional import normalize


def cost_volume(dense_features: Tensor, texts: Tensor) -> Tensor:
    """Return cosines `[B, T, h, w]` of patches `[B, D, h, w]` and names, `[T, D]` for all images or `[B, T, D]`."""
    patches, names = normalize(dense_features, dim=1), normalize(texts, dim=-1)
    return cast(Tensor, (names @ patches.flatten(2)).unflatten(2, patches.shape[2:]))


def likeliest(cost: Tensor, most: int) -> Tensor:
    """Return `[B, min(T, most)]`: the classes of each image whose best patch is the most similar, ascending."""
    best = cost.flatten(2).amax(dim=2)
    return best.topk(min(most, best.shape[1]), dim=1).indices.sort(dim=1).values
