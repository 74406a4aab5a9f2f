"""The tensors of an original EVA02-CLIP checkpoint, by name, as its model code defines them."""

from collections.abc import Iterator

Shapes = dict[str, tuple[int, ...]]


def original_shapes(
    *,
    width: int,
    layers: int,
    hidden: int,
    patch: int,
    grid: int,
    head_width: int,
    dim: int,
    text: tuple[int, int, int],
) -> Shapes:
    """Return shape by name. `text` is (width, layers, context length); `hidden` the SwiGLU's width."""
    num_patches = grid * grid
    shapes: Shapes = {
        "logit_scale": (),
        "visual.cls_token": (1, 1, width),
        "visual.pos_embed": (1, num_patches + 1, width),
        "visual.patch_embed.proj.weight": (width, 3, patch, patch),
        "visual.head.weight": (dim, width),
    }
    shapes |= _vectors(width, "visual.patch_embed.proj.bias", "visual.norm.weight", "visual.norm.bias")
    shapes |= _vectors(dim, "visual.head.bias")
    shapes |= dict(_rope("visual", num_patches, head_width))
    for layer in range(layers):
        shapes |= _block(f"visual.blocks.{layer}", width, hidden)
        shapes |= dict(_rope(f"visual.blocks.{layer}.attn", num_patches, head_width))
    return shapes | _text(dim, *text)


def _vectors(size: int, *names: str) -> Shapes:
    return dict.fromkeys(names, (size,))


def _rope(owner: str, num_patches: int, head_width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for table in ("cos", "sin"):
        yield f"{owner}.rope.freqs_{table}", (num_patches, head_width)


def _block(name: str, width: int, hidden: int) -> Shapes:
    norms = (f"{norm}.{part}" for norm in ("norm1", "norm2", "attn.inner_attn_ln") for part in ("weight", "bias"))
    vectors = [*norms, "attn.q_bias", "attn.v_bias", "attn.proj.bias", "mlp.w3.bias"]
    shapes = _vectors(width, *(f"{name}.{vector}" for vector in vectors))
    hidden_vectors = ("mlp.w1.bias", "mlp.w2.bias", "mlp.ffn_ln.weight", "mlp.ffn_ln.bias")
    shapes |= _vectors(hidden, *(f"{name}.{vector}" for vector in hidden_vectors))
    for matrix in ("q_proj", "k_proj", "v_proj", "proj"):
        shapes[f"{name}.attn.{matrix}.weight"] = (width, width)
    for matrix in ("w1", "w2"):
        shapes[f"{name}.mlp.{matrix}.weight"] = (hidden, width)
    return shapes | {f"{name}.mlp.w3.weight": (width, hidden)}


def _text(dim: int, width: int, layers: int, context_length: int) -> Shapes:
    shapes: Shapes = {
        "text.positional_embedding": (context_length, width),
        "text.text_projection": (width, dim),
        "text.token_embedding.weight": (49408, width),
        **_vectors(width, "text.ln_final.weight", "text.ln_final.bias"),
    }
    for layer in range(layers):
        name = f"text.transformer.resblocks.{layer}"
        vectors = ("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias", "attn.out_proj.bias", "mlp.c_proj.bias")
        shapes |= _vectors(width, *(f"{name}.{vector}" for vector in vectors))
        shapes |= _vectors(3 * width, f"{name}.attn.in_proj_bias") | _vectors(4 * width, f"{name}.mlp.c_fc.bias")
        shapes[f"{name}.attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{name}.attn.out_proj.weight"] = (width, width)
        shapes[f"{name}.mlp.c_fc.weight"] = (4 * width, width)
        shapes[f"{name}.mlp.c_proj.weight"] = (width, 4 * width)
    return shapes


EVA02_B_16 = original_shapes(
    width=768, layers=12, hidden=2048, patch=16, grid=14, head_width=64, dim=512, text=(512, 12, 77)
)
EVA02_L_14_336 = original_shapes(
    width=1024, layers=24, hidden=2730, patch=14, grid=24, head_width=64, dim=768, text=(768, 12, 77)
)
TINY = original_shapes(width=32, layers=3, hidden=85, patch=16, grid=14, head_width=16, dim=8, text=(8, 1, 16))
