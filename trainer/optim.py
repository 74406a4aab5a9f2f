"""AdamW with the paper's groups, and its learning rate: a linear warm-up, then a cosine to 0."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Precision = Literal["fp32", "bf16", "fp16"]

_LN_100 = math.log(100)


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """How weights are updated. The defaults are the paper's."""

    epochs: int = 10
    """Times that every image is seen."""
    lr: float = 1e-5
    """Learning rate at the end of the warm-up."""
    warmup_steps: int = 1000
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = 0.1
    """Of weights with two or more dimensions; biases, norms and the temperature have none."""
    beta1: float = 0.9
    """Of AdamW."""
    beta2: float = 0.999
    """Of AdamW."""
    eps: float = 1e-8
    """Of AdamW."""
    clip_norm: float | None = None
    """Largest norm of all gradients together; None does not clip, as in the paper."""
    precision: Precision = "bf16"
    """Of the towers' activations: `bf16`, `fp16` (with a scaled loss) or `fp32`. Weights and losses are float32."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ValueError."""
        if self.epochs < 1 or self.lr <= 0 or self.warmup_steps < 0:
            raise ValueError(f"--epochs {self.epochs} --lr {self.lr} --warmup-steps {self.warmup_steps}: out of range")


def make_optimizer(named: Iterable[tuple[str, nn.Parameter]], settings: OptimSettings) -> torch.optim.AdamW:
    """Return AdamW over those named parameters that have a gradient, matrices with weight decay, the rest without."""
    trained = [parameter for _, parameter in sorted(named, key=lambda item: item[0]) if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    others = [parameter for parameter in trained if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps)


def learning_rate(step: int, num_steps: int, settings: OptimSettings) -> float:
    """Return the learning rate of a step, from 0 of `num_steps`."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(num_steps - settings.warmup_steps, 1)
    return settings.lr * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def clamp_logit_scale(logit_scale: nn.Parameter) -> None:
    """Keep the temperature's logarithm in [0, ln 100], after a step."""
    logit_scale.clamp_(0, _LN_100)
