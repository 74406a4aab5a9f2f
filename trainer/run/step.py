"""One training step: a batch in, weights changed, losses out. `TrainStep.run` has its parts in order:

1. pixels      uint8 images to the model's input, regions' crops cut out     data/pixels.py
2. features    one pass of the student; its teacher's                        model/student.py
3. texts       known features, or tokens that went through 2                 run/texts.py
4. gather      what all processes hold                                       loss/gather.py
5. losses      those of the recipe's method                                  loss/methods.py, official.py
6. backward    to every parameter                                            run/grad_cache.py
7. optimiser   AdamW, the temperature's limits, the moving average           run/optim.py

Batches larger than memory run through 1 and 2 in pieces, and through both again in 6: see `grad_cache.py`.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from trainer.data.batch import LoadedBatch, split_batch
from trainer.data.pixels import Preparation
from trainer.hyperparameters import Precision
from trainer.loss.gather import exchange_counts, world_size
from trainer.loss.objective import Counts, Losses, Objective
from trainer.model.student import Features, Inputs, SeparateTeacher, Student
from trainer.model.towers import Part
from trainer.run.grad_cache import GradCache
from trainer.run.optim import clamp_logit_scale, unchanged
from trainer.run.texts import BatchTexts

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class StepResult(NamedTuple):
    """What a step found. Losses are this process's parts, detached; None where absent."""

    losses: Losses
    num_images: int
    """Used by all processes."""
    num_regions: int
    num_skipped: int
    stop: bool
    """Whether any process asked to stop after this step."""


@dataclass(kw_only=True)
class TrainStep:
    """All that a step needs. Every process must run each step, with images or without."""

    module: Student | DistributedDataParallel
    """The student, behind DDP where there are several processes."""
    logit_scale: nn.Parameter
    """The temperature's logarithm; apart from `module`, because it is used once a step and not once a piece."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Does nothing but in fp16."""
    objective: Objective
    preparation: Preparation
    texts: BatchTexts
    teacher: SeparateTeacher | None
    """None for the teachers `live` and `detached`."""
    precision: Precision
    clip_norm: float | None
    unreached: Sequence[Part]
    """Rows of parameters that no loss depends on: their gradient is 0, and weight decay alone would change them."""
    max_images: int | None
    """Images embedded at a time; None where all of a step's are. Equal in all processes: they do the same in turn."""
    device: torch.device

    def run(self, batch: LoadedBatch, *, lr: float, seed: int, stop: bool = False) -> StepResult:
        """Train on a batch. `seed` is that of the step, equal in all processes; `stop` asks all of them to stop."""
        batch = batch.to(self.device)
        # On CPUs the backward pass of torch's fused attention is several times slower than plain attention.
        kernels = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else contextlib.nullcontext()
        with kernels:

            def embed(piece: LoadedBatch) -> Features:
                inputs = self._inputs(piece)  # 1. pixels
                return self._features(inputs)  # 2. features

            teacher = self.objective.settings.teacher
            trained = (True, True, teacher == "live", True, True, True)
            pieces = None if self.max_images is None else split_batch(batch, self.max_images)
            cache = GradCache(batch, pieces, embed, module=self.module, trained=trained)
            features = cache.embed()
            # 3. texts
            pairs = self.texts.pairs(batch, features)
            # 4. gather
            mine = Counts(len(pairs.image), len(batch.region_index), len(batch.keys))
            everyone = exchange_counts([*mine, len(batch.skipped), int(stop)], self.device)
            gathered = self.objective.gather(pairs, [Counts(*row[:3]) for row in everyone])
            # 5. losses
            losses = self.objective.losses(gathered, logit_scale=self.logit_scale, seed=seed)
            # 6. backward: DDP takes the mean over processes, the joined batch's gradient is the sum (see `gather.py`)
            self.scaler.scale(losses.loss * world_size()).backward()
            cache.backward()
        # 7. optimiser; where nothing was seen, not even weight decay may change a weight
        _, num_regions, num_images, num_skipped, stopping = (sum(column) for column in zip(*everyone, strict=True))
        if num_images:
            self._update(lr)
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(losses.detached(), num_images, num_regions, num_skipped, stopping > 0)

    def _inputs(self, batch: LoadedBatch) -> Inputs:
        """Return a batch as the student is given it."""
        tokens = self.texts.tokens(batch)
        on_device = [None, None, None] if tokens is None else [of_kind.to(self.device) for of_kind in tokens]
        return Inputs(
            images=self.preparation.images(batch),
            boxes_norm=batch.boxes_norm,
            region_image_index=batch.region_image_index.to(self.device),
            crops=self.preparation.crops(batch) if self.objective.distills else None,
            image_tokens=on_device[0],
            region_tokens=on_device[1],
            negative_tokens=on_device[2],
        )

    def _features(self, inputs: Inputs) -> Features:
        """Return the student's features and its teacher's, with gradient where it is enabled."""
        dtype, teacher = _DTYPES[self.precision], self.objective.settings.teacher
        with torch.autocast(self.device.type, dtype=dtype) if dtype else contextlib.nullcontext():
            features = cast(Features, self.module(inputs, rois=self.objective.uses_regions, teacher=teacher))
            if self.teacher is not None and inputs.crops is not None:
                features = features._replace(crop=self.teacher.embed(inputs.crops))
        return features

    def _update(self, lr: float) -> None:
        """Change the weights by their gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.logit_scale.grad is not None and world_size() > 1:
            dist.all_reduce(self.logit_scale.grad)
            self.logit_scale.grad /= world_size()
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        with unchanged(self.unreached):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        clamp_logit_scale(self.logit_scale)
        if self.teacher is not None:
            self.teacher.update(self.student)

    @property
    def student(self) -> Student:
        """The student, without DDP."""
        module: Any = self.module
        return cast(Student, module.module if isinstance(module, DistributedDataParallel) else module)
