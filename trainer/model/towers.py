"""The two kinds of vision tower: what open_clip's own forward does, taken apart at the last block.

A tower's blocks but the last run once. The last block then runs twice on what they leave: in full for the class
token alone, which is all that the global embedding needs of it, and along its value path for the patches, which gives
the dense map (no query, key, softmax or rotation: each patch keeps to itself). Both share its first norm and values.

Images may be of any size that is a multiple of the patch; position embeddings are resampled to the grid as the original
code has it: bicubic, not antialiased (timm's and open_clip's own default is antialiased, up to 3 % elsewhere).
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

Grid = tuple[int, int]
"""Rows and columns of patches."""

Part = tuple[nn.Parameter, slice]
"""Rows of a parameter."""

Run = Callable[..., Any]
"""Calls its first argument with the others: directly, or under gradient checkpointing."""


class UnsupportedTowerError(ValueError):
    """The model's vision tower is not one that is known here; the message says in what."""


class EvaTower:
    """EVA02-CLIP's vision tower, which open_clip takes from timm."""

    def __init__(self, visual: TimmModel) -> None:
        """Take open_clip's vision tower apart. Raises UnsupportedTowerError where it is not EVA02-CLIP's."""
        self._trunk = cast(Any, visual.trunk)
        _check_eva(visual)
        self.patch_size: Grid = self._trunk.patch_embed.patch_size
        self._rope_of_grid: dict[tuple[Grid, torch.device], Tensor] = {}

    @property
    def blocks(self) -> Iterator[nn.Module]:
        """The blocks but the last."""
        return iter(self._trunk.blocks[:-1])

    @property
    def last_block(self) -> nn.Module:
        """The block that runs twice."""
        return cast(nn.Module, self._trunk.blocks[-1])

    @property
    def class_token_only(self) -> list[Part]:
        """What the dense map does not depend on: query and key of the last block."""
        attention = self._trunk.blocks[-1].attn
        projections = (attention.q_proj, attention.k_proj)
        return [(parameter, slice(None)) for projection in projections for parameter in projection.parameters()]

    def tokens(self, images: Tensor, run: Run) -> tuple[Tensor, Grid]:
        """Return what the last block is given, `[B, 1 + h w, C]` with the class token first, and (h, w)."""
        trunk = self._trunk
        patches = trunk.patch_embed.proj(images)
        grid = (patches.shape[2], patches.shape[3])
        tokens = trunk.patch_embed.norm(patches.flatten(2).transpose(1, 2))
        tokens = torch.cat([trunk.cls_token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)
        positions = resample_abs_pos_embed(
            trunk.pos_embed,
            new_size=list(grid),
            old_size=list(trunk.patch_embed.grid_size),
            num_prefix_tokens=1,
            antialias=False,
        )
        tokens = trunk.norm_pre(trunk.pos_drop(tokens + positions))
        rope = self._rope(grid)
        for block in self.blocks:
            tokens = run(block, tokens, rope)
        return tokens, grid

    def last(self, tokens: Tensor, grid: Grid, dense: bool) -> tuple[Tensor, Tensor | None]:
        """Return the global embedding `[B, D]` and, if `dense`, those of the patches `[B, h w, D]`; not normalised."""
        block = self._trunk.blocks[-1]
        attention = block.attn
        normed = block.norm1(tokens)
        values = attention.v_proj(normed)
        query, keys = attention.q_proj(normed[:, :1]), _heads(attention.k_proj(normed), attention.num_heads)
        rotated = apply_rot_embed_cat(keys[:, :, 1:], self._rope(grid), half=attention.rotate_half)
        keys = torch.cat([keys[:, :, :1], rotated], dim=2).type_as(values)
        mixed = _attend(_heads(query, attention.num_heads), keys, _heads(values, attention.num_heads))
        pooled = self._finish(tokens[:, :1], mixed)[:, 0]
        return pooled, self._finish(tokens[:, 1:], values[:, 1:]) if dense else None

    def value_tokens(self, tokens: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return `[B, h w, C]`: the patches as they leave the last block by its value path, not embedded yet.

        `tokens` are what the block is given; `residual`, `[B, 1 or h w, C]`, is what the values are added to, the
        patches' own tokens where it is None.
        """
        block = self._trunk.blocks[-1]
        values = block.attn.v_proj(block.norm1(tokens))[:, 1:]
        return self._leave(tokens[:, 1:] if residual is None else residual, values)

    def embed(self, tokens: Tensor) -> Tensor:
        """Return embeddings `[B, L, D]` of tokens `[B, L, C]` that have left the last block."""
        return cast(Tensor, self._trunk.head(self._trunk.norm(tokens)))

    def _finish(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        """Return embeddings from tokens as they entered the last block, and what its attention mixed for each."""
        return self.embed(self._leave(tokens, mixed))

    def _leave(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        block = self._trunk.blocks[-1]
        attended = block.attn.proj(block.attn.norm(mixed))
        tokens = tokens + (attended if block.gamma_1 is None else block.gamma_1 * attended)
        changed = block.mlp(block.norm2(tokens))
        return cast(Tensor, tokens + (changed if block.gamma_2 is None else block.gamma_2 * changed))

    def _rope(self, grid: Grid) -> Tensor:
        """Return the rotation of a grid's patches, `[h w, 2 * head width]`: sines, then cosines."""
        device = self._trunk.pos_embed.device
        if (grid, device) not in self._rope_of_grid:
            rope = copy.deepcopy(self._trunk.rope)
            if grid != tuple(self._trunk.patch_embed.grid_size):
                rope.update_feat_shape(list(grid))
            self._rope_of_grid[grid, device] = rope.get_embed().to(device)
        return self._rope_of_grid[grid, device]


def _check_eva(visual: TimmModel) -> None:
    trunk = cast(Any, visual.trunk)
    if not isinstance(trunk, Eva):
        raise UnsupportedTowerError(
            f"a vision tower of timm's {type(trunk).__name__}; there is Eva, and open_clip's own"
        )
    block = cast(Any, trunk.blocks[-1])
    known = {
        "blocks that are not EvaBlock": isinstance(block, EvaBlock),
        "attention other than EvaAttention": isinstance(block.attn, EvaAttention),
        "one projection for query, key and value": block.attn.qkv is None,
        "normalised queries": isinstance(block.attn.q_norm, nn.Identity),
        "gated attention": getattr(block.attn, "gate", None) is None,  # timm has it from 1.0.28
        "no class token, or registers": trunk.num_prefix_tokens == 1 and not trunk.no_embed_class,
        "no rotary positions": trunk.rope is not None and not trunk.rope_mixed,
        "pooling other than the class token": trunk.global_pool == "token" and len(visual.head) == 0,
        "dropped patches": trunk.patch_drop is None,
        "stochastic depth": isinstance(block.drop_path1, nn.Identity),
        "a norm after pooling": isinstance(trunk.fc_norm, nn.Identity),
    }
    broken = [what for what, holds in known.items() if not holds]
    if broken:
        raise UnsupportedTowerError(f"an EVA vision tower with {', '.join(broken)}, which EVA02-CLIP has not")


class VitTower:
    """OpenAI's vision tower, as open_clip builds it."""

    def __init__(self, visual: VisionTransformer) -> None:
        """Take open_clip's vision tower apart. Raises UnsupportedTowerError where it is not OpenAI's."""
        self._visual = cast(Any, visual)
        _check_vit(visual)
        self.patch_size: Grid = self._visual.patch_size

    @property
    def blocks(self) -> Iterator[nn.Module]:
        """The blocks but the last."""
        return iter(self._visual.transformer.resblocks[:-1])

    @property
    def last_block(self) -> nn.Module:
        """The block that runs twice."""
        return cast(nn.Module, self._visual.transformer.resblocks[-1])

    @property
    def class_token_only(self) -> list[Part]:
        """What the dense map does not depend on: query and key of the last block."""
        attention = self._visual.transformer.resblocks[-1].attn
        rows = slice(0, 2 * attention.in_proj_weight.shape[1])
        return [(attention.in_proj_weight, rows), (attention.in_proj_bias, rows)]

    def tokens(self, images: Tensor, run: Run) -> tuple[Tensor, Grid]:
        """Return what the last block is given, `[B, 1 + h w, C]` with the class token first, and (h, w)."""
        visual = self._visual
        patches = visual.conv1(images)
        grid = (patches.shape[2], patches.shape[3])
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([visual.class_embedding.expand(len(tokens), 1, -1).to(tokens.dtype), tokens], dim=1)
        positions = resample_abs_pos_embed(
            visual.positional_embedding[None],
            new_size=list(grid),
            old_size=list(visual.grid_size),
            num_prefix_tokens=1,
            antialias=False,
        )
        tokens = visual.ln_pre(tokens + positions.to(tokens.dtype))
        for block in self.blocks:
            tokens = run(block, tokens)
        return tokens, grid

    def last(self, tokens: Tensor, grid: Grid, dense: bool) -> tuple[Tensor, Tensor | None]:
        """Return the global embedding `[B, D]` and, if `dense`, those of the patches `[B, h w, D]`; not normalised."""
        block = self._visual.transformer.resblocks[-1]
        attention = block.attn
        normed = block.ln_1(tokens)
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        query, keys, values = (
            linear(tensor, weight, bias)
            for tensor, weight, bias in zip((normed[:, :1], normed, normed), weights, biases, strict=True)
        )
        mixed = _attend(*(_heads(tensor, attention.num_heads) for tensor in (query, keys, values)))
        pooled = self._finish(tokens[:, :1], mixed)[:, 0]
        return pooled, self._finish(tokens[:, 1:], values[:, 1:]) if dense else None

    def value_tokens(self, tokens: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return `[B, h w, C]`: the patches as they leave the last block by its value path, not embedded yet.

        `tokens` are what the block is given; `residual`, `[B, 1 or h w, C]`, is what the values are added to, the
        patches' own tokens where it is None.
        """
        block = self._visual.transformer.resblocks[-1]
        weight, bias = block.attn.in_proj_weight.chunk(3)[2], block.attn.in_proj_bias.chunk(3)[2]
        values = linear(block.ln_1(tokens)[:, 1:], weight, bias)
        return self._leave(tokens[:, 1:] if residual is None else residual, values)

    def embed(self, tokens: Tensor) -> Tensor:
        """Return embeddings `[B, L, D]` of tokens `[B, L, C]` that have left the last block."""
        return cast(Tensor, self._visual.ln_post(tokens) @ self._visual.proj)

    def _finish(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        """Return embeddings from tokens as they entered the last block, and what its attention mixed for each."""
        return self.embed(self._leave(tokens, mixed))

    def _leave(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        block = self._visual.transformer.resblocks[-1]
        tokens = tokens + block.ls_1(block.attn.out_proj(mixed))
        return cast(Tensor, tokens + block.ls_2(block.mlp(block.ln_2(tokens))))


def _check_vit(visual: VisionTransformer) -> None:
    blocks = cast(Any, visual.transformer.resblocks)
    known = {
        "blocks of another kind": all(isinstance(block, ResidualAttentionBlock) for block in blocks),
        "pooling other than the class token": visual.pool_type == "tok" and visual.attn_pool is None,
        "no projection": visual.proj is not None,
        "dropped patches": isinstance(visual.patch_dropout, nn.Identity),
    }
    broken = [what for what, holds in known.items() if not holds]
    if broken:
        raise UnsupportedTowerError(f"an open_clip vision tower with {', '.join(broken)}, which OpenAI's has not")


def _heads(tensor: Tensor, num_heads: int) -> Tensor:
    """Return `[B, L, C]` as `[B, heads, L, C / heads]`."""
    batch_size, length, width = tensor.shape
    return tensor.view(batch_size, length, num_heads, width // num_heads).transpose(1, 2)


def _attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return `[B, L, C]`: attention of `[B, heads, L, C / heads]` queries."""
    return scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)


Tower = EvaTower | VitTower


def tower_of(visual: nn.Module) -> Tower:
    """Return the tower that a model's `visual` is. Raises UnsupportedTowerError."""
    if isinstance(visual, TimmModel):
        return EvaTower(visual)
    if isinstance(visual, VisionTransformer):
        return VitTower(visual)
    raise UnsupportedTowerError(f"a vision tower of class {type(visual).__name__}; there is EVA02's, and OpenAI's ViT")


def can_be_taken_apart(visual: nn.Module) -> bool:
    """Say whether a model's `visual` is a tower that is known here, with a dense map."""
    try:
        tower_of(visual)
    except UnsupportedTowerError:
        return False
    return True
