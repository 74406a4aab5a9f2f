"""The training loop of the minis.

    step -> lr(step), batch(seed, step) -> loss -> AdamW -> curve.jsonl every `log_every`, resume.pt every `save_every`

Nothing but the step, the seed and the state in `resume.pt` decides what happens next, so a run that was stopped and
started again gives the weights of one that was not.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

CURVE = "curve.jsonl"
RESUME = "resume.pt"


class ResumeError(ValueError):
    """A folder holds an unfinished run of another recipe; the message says what to do. Commands exit 2 on it."""

    exit_code = 2


class DivergedError(RuntimeError):
    """The loss is no longer finite; the message names the step."""


@dataclass(frozen=True, kw_only=True)
class MiniRecipe:
    """What determines a training run, apart from the model. Each mini has its own subclass."""

    steps: int
    batch_size: int
    lr: float
    """Peak of the learning rate, reached after the warm-up; from there a cosine to 1 % of it."""
    warmup_steps: int
    weight_decay: float
    """Applied to matrices and kernels, not to vectors."""
    ema_decay: float | None = None
    """Decay of the moving average of the weights that is kept instead of the last ones; None: the last ones."""
    seed: int = 0
    """Of the scenes and of the first weights."""
    threads: int = 1
    bf16: bool = True
    """Run the forward pass in bfloat16 where torch's autocast allows it."""
    log_every: int = 50
    save_every: int = 250


def lr_at(recipe: MiniRecipe, step: int) -> float:
    """Return the learning rate of a step, from 0."""
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


Losses = Mapping[str, Tensor]
"""`loss`, which is minimised, and anything else worth a column of the curve: scalars."""


class Run:
    """A training run in a folder: continues what `resume.pt` holds, or starts."""

    def __init__(self, model: nn.Module, recipe: MiniRecipe, folder: Path) -> None:
        self.model, self.recipe, self.folder = model, recipe, folder
        self.step = 0
        self.seconds = 0.0
        parameters = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98))
        self.average = {k: v.clone() for k, v in model.state_dict().items()} if recipe.ema_decay is not None else None
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / RESUME).exists():
            self._resume()
        curve = folder / CURVE
        if curve.exists():
            # Rows beyond the step are of steps that a stopped run takes again.
            rows = curve.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= self.step]
            curve.write_text("".join(kept), encoding="utf-8")

    def train(self, losses_at: Callable[[int], Losses], stop: int | None = None) -> None:
        """Train up to the recipe's last step, or up to `stop`; `losses_at(step)` draws the data and runs the model.

        Leaves the averaged weights in the model if the recipe asks for them and the last step was reached.
        """
        self.model.train()
        last = min(self.recipe.steps, self.recipe.steps if stop is None else stop)
        started = time.monotonic()
        while self.step < last:
            losses = self._advance(losses_at)
            ended = self.step == last
            now = time.monotonic()
            self.seconds, started = self.seconds + now - started, now
            if self.step % self.recipe.log_every == 0 or ended:
                self._log(losses)
            if self.step % self.recipe.save_every == 0 or ended:
                self._save()
        if self.average is not None and self.step == self.recipe.steps:
            self.model.load_state_dict(self.average)

    def _advance(self, losses_at: Callable[[int], Losses]) -> Losses:
        for group in self.optimiser.param_groups:
            group["lr"] = lr_at(self.recipe, self.step)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.recipe.bf16):
            losses = losses_at(self.step)
        if not torch.isfinite(losses["loss"]):
            raise DivergedError(f"{self.folder}: the loss is {losses['loss'].item()} at step {self.step}; lower the lr")
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimiser.step()
        self.step += 1
        if self.average is not None and self.recipe.ema_decay is not None:
            # A short memory at first, so that the random first weights are forgotten.
            decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
            # A state dict's tensors are detached: no gradients are kept here.
            for name, value in self.model.state_dict().items():
                if value.dtype.is_floating_point:
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)
        return losses

    def _log(self, losses: Losses) -> None:
        row = {"step": self.step} | {name: round(value.item(), 5) for name, value in losses.items()}
        row |= {"lr": lr_at(self.recipe, self.step - 1), "seconds": round(self.seconds, 1)}
        with (self.folder / CURVE).open("a", encoding="utf-8") as curve:
            curve.write(json.dumps(row) + "\n")

    def _save(self) -> None:
        state = {
            "recipe": json.dumps(dataclasses.asdict(self.recipe), sort_keys=True),
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "rng": torch.get_rng_state(),
        }
        partial = self.folder / f"{RESUME}.part"
        torch.save(state, partial)
        partial.replace(self.folder / RESUME)

    def _resume(self) -> None:
        path = self.folder / RESUME
        state = torch.load(path, weights_only=True)
        if state["recipe"] != json.dumps(dataclasses.asdict(self.recipe), sort_keys=True):
            raise ResumeError(f"{path} belongs to another recipe: train into another folder, or delete it")
        self.step, self.seconds, self.average = state["step"], state["seconds"], state["average"]
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"])


def start(recipe: MiniRecipe) -> None:
    """Fix the number of threads and seed torch, before the first weights are drawn."""
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)


def save_half(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict with its floating point tensors in fp16. Raises ValueError where one does not fit into it."""
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    for name, value in halves.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: {name} has values beyond fp16")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in halves.items()}, path)
