"""The original EVA-CLIP checkpoint layout, to open_clip's names and back.

timm knows most of the way (`checkpoint_filter_fn`). The rotation tables are constants that timm computes itself: they
are left out on the way in and computed on the way out, where the original model code keeps them in its state.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from open_clip.timm_model import TimmModel
from timm.models.eva import Eva, checkpoint_filter_fn
from torch import Tensor, nn

from trainer.errors import TrainingError

State = dict[str, Tensor]

_VISUAL, _TRUNK = "visual.", "visual.trunk."
_TO_ORIGINAL = (
    (r"\.mlp\.norm\.", ".mlp.ffn_ln."),
    (r"\.attn\.norm\.", ".attn.inner_attn_ln."),
    (r"\.mlp\.fc1_g\.", ".mlp.w1."),
    (r"\.mlp\.fc1_x\.", ".mlp.w2."),
    (r"\.mlp\.fc2\.", ".mlp.w3."),
    (r"\.attn\.([qv])_proj\.bias$", r".attn.\1_bias"),
)


def is_original_layout(state: Mapping[str, Tensor]) -> bool:
    """Say whether the names are those of the original EVA-CLIP code."""
    return "visual.blocks.0.attn.q_bias" in state


def to_open_clip(state: Mapping[str, Tensor], model: nn.Module) -> State:
    """Return an original state under the names of `model`, open_clip's EVA02; sizes of its position grid are adapted.

    Raises TrainingError where `model` is not an EVA02.
    """
    visual = _visual(model)
    converted = checkpoint_filter_fn(dict(state), visual.trunk, interpolation="bicubic", antialias=False)
    others = {name: tensor for name, tensor in state.items() if not name.startswith(_VISUAL)}
    return others | {_TRUNK + name: tensor for name, tensor in converted.items()}


def to_original(state: Mapping[str, Tensor], model: nn.Module) -> State:
    """Return a state of `model`, open_clip's EVA02, under the original names, rotation tables included.

    Raises TrainingError where `model` is not an EVA02.
    """
    trunk = cast(Any, _visual(model).trunk)
    original = {}
    for name, tensor in state.items():
        if name.startswith(_TRUNK):
            name = _VISUAL + name.removeprefix(_TRUNK)
            for pattern, replacement in _TO_ORIGINAL:
                name = re.sub(pattern, replacement, name)
        original[name] = tensor
    sines, cosines = (table.clone() for table in trunk.rope.get_embed().cpu().chunk(2, dim=-1))
    owners = ["visual.rope", *(f"visual.blocks.{i}.attn.rope" for i in range(len(trunk.blocks)))]
    for owner in owners:
        original |= {f"{owner}.freqs_cos": cosines, f"{owner}.freqs_sin": sines}
    return {name: tensor.to(torch.float32) for name, tensor in original.items()}


def _visual(model: nn.Module) -> TimmModel:
    visual = model.visual
    if not isinstance(visual, TimmModel) or not isinstance(visual.trunk, Eva):
        raise TrainingError("the original EVA-CLIP layout is for EVA02 models, such as EVA02-B-16 and EVA02-L-14-336")
    return visual
