"""Which weights of a CLIP a segmenter's training changes: those of queries and values, in the blocks of its towers."""

from dataclasses import dataclass
from typing import cast

import torch
from timm.models.eva import EvaAttention
from torch import Tensor, nn

from trainer.errors import TrainingError
from trainer.model.towers import tower_of


@dataclass(frozen=True)
class Tuned:
    """A weight of a CLIP that is trained."""

    name: str
    parameter: nn.Parameter
    kept: tuple[slice, Tensor] | None
    """Rows that are not trained, the keys of a weight that holds all three, and their values."""


def tuned_weights(clip: nn.Module, *, text: bool) -> list[Tuned]:
    """Freeze a CLIP but for queries and values of the vision tower, and of the `text` tower; return those weights.

    Raises TrainingError where the text tower's attention is of another kind than OpenAI's.
    """
    clip.requires_grad_(False)
    last = tower_of(cast(nn.Module, clip.visual)).last_block
    unused = {id(module) for module in last.modules()}  # its queries: the dense map has no use for them
    found = []
    for name, module in clip.named_modules():
        if not name.startswith("visual.") and not text:
            continue
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            rows = slice(0 if id(module) in unused else module.embed_dim, 2 * module.embed_dim)
            kept = (rows, module.in_proj_weight.detach()[rows].clone())
            found.append(Tuned(f"{name}.in_proj_weight", module.in_proj_weight, kept))
        elif isinstance(module, EvaAttention) and module.qkv is None:
            parts = ["v_proj"] if id(module) in unused else ["q_proj", "v_proj"]
            found += [Tuned(f"{name}.{part}.weight", getattr(module, part).weight, None) for part in parts]
    if text and not any(not one.name.startswith("visual.") for one in found):
        raise TrainingError("--text tuned: this text tower's queries and values are not known; give --text frozen")
    for one in found:
        one.parameter.requires_grad_(True)
    return found


def forget_keys(tuned: list[Tuned]) -> None:
    """Take the keys out of the gradients, so that their norm does not count them."""
    for one in tuned:
        if one.kept is not None and one.parameter.grad is not None:
            one.parameter.grad[one.kept[0]] = 0


@torch.no_grad()
def restore_keys(tuned: list[Tuned]) -> None:
    """Undo what the optimizer's weight decay did to the keys."""
    for one in tuned:
        if one.kept is not None:
            rows, values = one.kept
            one.parameter[rows] = values.to(one.parameter.device)
