"""A cost volume made smooth: over windows of each class's own map, then over the classes of each patch.

Both look for what belongs together with the help of a guide: the image's features for patches, the texts' for classes.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, elu, interpolate, scaled_dot_product_attention

_EPSILON = 1e-6


class WindowBlock(nn.Module):
    """A block of a Swin transformer: attention within windows, which may be shifted by half a window, then an MLP."""

    def __init__(self, dim: int, guide: int, *, heads: int, window: int, shift: int) -> None:
        """`guide` is the channels of the guide; `window` and `shift` count patches."""
        super().__init__()
        self._heads, self._window, self._shift = heads, window, shift
        self.norm = nn.LayerNorm(dim)
        self.query, self.key = nn.Linear(dim + guide, dim), nn.Linear(dim + guide, dim)
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """Return maps `[N, h, w, C]` of maps, guided by `[N, h, w, G]`; h and w are whole windows."""
        normed = self.norm(x)
        guided = self._cut(torch.cat([normed, guide], dim=3))
        query, key, value = self.query(guided), self.key(guided), self.value(self._cut(normed))
        query, key, value = (part.unflatten(2, (self._heads, -1)).transpose(1, 2) for part in (query, key, value))
        grid = (x.shape[1], x.shape[2])
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=self._mask(grid, len(x), x.device))
        x = x + self._join(self.out(mixed.transpose(1, 2).flatten(2)), grid)
        return cast(Tensor, x + self.mlp(x))

    def _cut(self, x: Tensor) -> Tensor:
        """Return the windows `[N windows, side squared, C]` of maps, image by image."""
        side = self._window
        if self._shift:
            x = x.roll((-self._shift, -self._shift), dims=(1, 2))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        cut = x.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3)
        return cast(Tensor, cut.reshape(-1, side * side, x.shape[3]))

    def _join(self, windows: Tensor, grid: tuple[int, int]) -> Tensor:
        side = self._window
        rows, columns = grid[0] // side, grid[1] // side
        cut = windows.reshape(-1, rows, columns, side, side, windows.shape[2]).transpose(2, 3)
        x = cut.reshape(-1, *grid, windows.shape[2])
        return x.roll((self._shift, self._shift), dims=(1, 2)) if self._shift else x

    def _mask(self, grid: tuple[int, int], number: int, device: torch.device) -> Tensor | None:
        """Return which patches of a shifted window were neighbours before the shift; None where all were."""
        if not self._shift:
            return None
        parts = [self._part(length, device) for length in grid]
        place = (3 * parts[0][:, None] + parts[1])[None, :, :, None]
        rows, columns = grid[0] // self._window, grid[1] // self._window
        cut = place.unflatten(2, (columns, self._window)).unflatten(1, (rows, self._window)).transpose(2, 3)
        cut = cut.reshape(rows * columns, -1)
        same = cut[:, :, None] == cut[:, None, :]
        return cast(Tensor, same.repeat(number, 1, 1)[:, None])

    def _part(self, length: int, device: torch.device) -> Tensor:
        """Return which part of a shifted side each place is of: all but the last window, its start, what wrapped."""
        place = torch.arange(length, device=device)
        return (place >= length - self._window).long() + (place >= length - self._shift).long()


class ClassBlock(nn.Module):
    """Linear attention over the classes of each patch, then an MLP."""

    def __init__(self, dim: int, guide: int, *, heads: int, most: int) -> None:
        """`most` is the number of classes that fewer are filled up to."""
        super().__init__()
        self._heads, self._most = heads, most
        self.norm = nn.LayerNorm(dim)
        self.query, self.key = nn.Linear(dim + guide, dim), nn.Linear(dim + guide, dim)
        self.value = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))
        self.filler, self.filler_guide = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(guide))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """Return `[B, P, T, C]` for B images of P patches, guided by the classes' `[B, T, G]`."""
        num_classes = x.shape[2]
        missing = max(self._most - num_classes, 0)
        guide = torch.cat([guide, self.filler_guide.expand(len(guide), missing, -1)], dim=1)
        x = torch.cat([x, self.filler.expand(*x.shape[:2], missing, -1)], dim=2)
        normed = self.norm(x)
        guided = torch.cat([normed, guide[:, None].expand(-1, x.shape[1], -1, -1)], dim=3)
        x = x + self._attend(self.query(guided), self.key(guided), self.value(normed))
        x = x + self.mlp(x)
        return x[:, :, :num_classes]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (part.unflatten(3, (self._heads, -1)) for part in (query, key, value))
        query, key = elu(query) + 1, elu(key) + 1
        summed = torch.einsum("bpthk,bpthv->bphkv", key, value)
        total = torch.einsum("bpthk,bphk->bpth", query, key.sum(dim=2))
        return (torch.einsum("bpthk,bphkv->bpthv", query, summed) / (total + _EPSILON)[..., None]).flatten(3)


class AggregateLayer(nn.Module):
    """A round: two window blocks over each class's map, then a class block over each patch's classes."""

    def __init__(self, dim: int, *, heads: int, window: int, most: int, train_pool: int) -> None:
        """See `HeadSettings`."""
        super().__init__()
        self._train_pool = train_pool
        self.guide_norm = nn.LayerNorm(dim)
        self.windows = nn.ModuleList(
            WindowBlock(dim, dim, heads=heads, window=window, shift=shift) for shift in (0, window // 2)
        )
        self.classes = ClassBlock(dim, dim, heads=heads, most=most)

    def forward(self, x: Tensor, image_guide: Tensor, text_guide: Tensor) -> Tensor:
        """Return `[B, C, T, h, w]` of as much, guided by `[B, C, h, w]` and `[B, T, C]`."""
        batch, _, classes, height, width = x.shape
        maps = x.permute(0, 2, 3, 4, 1).flatten(0, 1)
        guide = self.guide_norm(image_guide.permute(0, 2, 3, 1)).repeat_interleave(classes, dim=0)
        for block in self.windows:
            maps = block(maps, guide)
        x = maps.unflatten(0, (batch, classes)).permute(0, 1, 4, 2, 3)
        pool = self._train_pool if self.training else 1
        pooled = avg_pool2d(x.flatten(0, 1), pool) if pool > 1 else x.flatten(0, 1)
        rows, columns = pooled.shape[2:]
        patches = pooled.unflatten(0, (batch, classes)).permute(0, 3, 4, 1, 2).flatten(1, 2)
        mixed = self.classes(patches, text_guide)
        back = mixed.unflatten(1, (rows, columns)).permute(0, 3, 4, 1, 2).flatten(0, 1)
        if pool > 1:
            back = interpolate(back, size=(height, width), mode="bilinear", align_corners=True)
        return cast(Tensor, (x + back.unflatten(0, (batch, classes))).transpose(1, 2))
