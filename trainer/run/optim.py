"""AdamW with the paper's groups, and its learning rate: a linear warm-up, then a cosine to 0."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from rich.console import Console
from torch import nn

from trainer.hyperparameters import OptimSettings
from trainer.model.towers import Part

_LN_100 = math.log(100)


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


def tell_long_warmup(warmup_steps: int, num_steps: int, console: Console) -> None:
    """Say where a run ends in its warm-up: its learning rate stays below the one that was asked for."""
    if warmup_steps >= num_steps:
        console.print(
            f"--warmup-steps {warmup_steps}: the run has {num_steps} steps, so the learning rate ends at "
            f"{num_steps / warmup_steps:.1%} of --lr: give fewer, a tenth of the steps, say",
            highlight=False,
        )


@contextmanager
def unchanged(parts: Sequence[Part]) -> Iterator[None]:
    """Keep rows of parameters as they are while an optimizer takes a step."""
    before = [parameter.detach()[rows].clone() for parameter, rows in parts]
    yield
    with torch.no_grad():
        for (parameter, rows), kept in zip(parts, before, strict=True):
            parameter[rows] = kept


@torch.no_grad()
def clamp_logit_scale(logit_scale: nn.Parameter) -> None:
    """Keep the temperature's logarithm in [0, ln 100], after a step."""
    logit_scale.clamp_(0, _LN_100)
