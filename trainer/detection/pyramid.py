"""Tokens of several blocks to maps of halving resolution: trained resizers, then torchvision's feature pyramid."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

MakeNorm = Callable[[int], nn.Module]

_GROUP_CHANNELS = 8


def norm_of(kind: str) -> MakeNorm:
    """Return what makes the norm of a number of channels: `batch`, or `group` with 8 channels a group."""
    if kind == "group":
        return lambda channels: nn.GroupNorm(max(channels // _GROUP_CHANNELS, 1), channels)
    return nn.BatchNorm2d


def resizer(width: int, scale: float, norm: MakeNorm) -> nn.Module:
    """Return a module from `[B, width, h, w]` to `scale` times as many rows and columns: 4, 2, 1 or 0.5."""
    if scale == 4:
        return nn.Sequential(
            nn.ConvTranspose2d(width, width, 2, 2), norm(width), nn.GELU(), nn.ConvTranspose2d(width, width, 2, 2)
        )
    return {2: nn.ConvTranspose2d(width, width, 2, 2), 1: nn.Identity(), 0.5: nn.MaxPool2d(2, 2)}[scale]


class Pyramid(nn.Module):
    """Maps of blocks, all of one size, to levels of channels, from fine to coarse."""

    def __init__(
        self, width: int, scales: Sequence[float], *, channels: int, norm: MakeNorm, extra_level: bool
    ) -> None:
        """`width` is the tokens', `scales` the cells of the levels in patches of a side."""
        super().__init__()
        self.resizers = nn.ModuleList(resizer(width, scale, norm) for scale in scales)
        # Laterals and outputs have norms and no activation; coarser levels are added by nearest neighbour.
        self.fpn = FeaturePyramidNetwork(
            [width] * len(scales), channels, LastLevelMaxPool() if extra_level else None, norm_layer=norm
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return `[B, channels, h_l, w_l]` for each level l of maps `[B, width, h, w]`."""
        resized = (resize(one) for resize, one in zip(self.resizers, maps, strict=True))
        levels: dict[str, Tensor] = self.fpn(OrderedDict((str(number), one) for number, one in enumerate(resized)))
        return list(levels.values())
