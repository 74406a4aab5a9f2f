"""One step: a batch in, weights changed, losses out.

Batches larger than memory are embedded in pieces (GradCache, Gao et al. 2021), with the same result as at once:

    1. embed each piece without gradient, remembering the random state
    2. gather all features, compute the loss of the whole batch, and its gradient for every feature
    3. embed each piece again from its random state, with gradient, and pass its features' gradient on

The temperature has its gradient from 2 alone. Processes synchronise once, in the last piece's backward pass.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from trainer.data.batch import LoadedBatch, split_batch
from trainer.data.index import SampleIndex
from trainer.data.pixels import Preparation
from trainer.hyperparameters import Precision
from trainer.loss.gather import exchange_counts, world_size
from trainer.loss.objective import Losses, Objective, Pairs
from trainer.model.student import Features, Inputs, SeparateTeacher, Student
from trainer.model.text import FrozenText, TrainedText
from trainer.run.optim import clamp_logit_scale

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class StepResult(NamedTuple):
    """What a step found. Losses are this process's parts, detached; None where absent."""

    losses: Losses
    num_images: int
    """Used by all processes."""
    num_regions: int
    num_skipped: int
    stop: bool
    """Whether any process asked to stop after this step."""


class BatchTexts:
    """What a batch's texts are: features or tokens, and which are equal."""

    def __init__(
        self,
        index: SampleIndex,
        source: FrozenText | TrainedText,
        *,
        labels: Tensor | None = None,
    ) -> None:
        """`labels` `[R]` int64 are the concepts of the index's regions, for RegionCLIP."""
        self._index, self.source, self._labels = index, source, labels

    def captioned(self, batch: LoadedBatch) -> Tensor:
        """Return `[c]` int64, on the host: which of the batch's images have a caption."""
        has_caption = torch.from_numpy(self._index.has_caption[batch.image_index.numpy()])
        return has_caption.nonzero().squeeze(1)

    def ids(self, batch: LoadedBatch, captioned: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return int64 ids of the captions of images `[c]` and regions `[n]`, and labels `[n]`, beside the pixels."""
        device = batch.device
        image_rows, region_rows = batch.image_index[captioned].numpy(), batch.region_index.numpy()
        image_ids = torch.from_numpy(self._index.image_text_ids[image_rows]).to(device)
        region_ids = torch.from_numpy(self._index.region_text_ids[region_rows]).to(device)
        labels = region_ids if self._labels is None else self._labels[batch.region_index].to(device)
        return image_ids, region_ids, labels


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
    max_images: int
    """Images embedded at a time."""
    device: torch.device

    def run(self, batch: LoadedBatch, *, lr: float, seed: int, stop: bool = False) -> StepResult:
        """Train on a batch. `seed` is that of the step, equal in all processes; `stop` asks all of them to stop."""
        batch = batch.to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        captioned = self.texts.captioned(batch)
        mine = [len(captioned), len(batch.region_index), len(batch.keys), len(batch.skipped), int(stop)]
        counts = exchange_counts(mine, self.device)
        with self._kernels():
            losses = self._backward(batch, captioned, counts, seed)
        totals = [sum(column) for column in zip(*counts, strict=True)]
        if totals[2]:
            self._update()
        else:
            self.optimizer.zero_grad(set_to_none=True)  # nothing was seen: not even weight decay may change a weight
        return StepResult(losses, totals[2], totals[1], totals[3], totals[4] > 0)

    def _backward(self, batch: LoadedBatch, captioned: Tensor, counts: Sequence[Sequence[int]], seed: int) -> Losses:
        """Compute the losses, and leave every parameter's gradient of the joined batch in it."""
        pieces = split_batch(batch, self.max_images)
        if len(pieces) == 1:
            features = self._embed(batch)
            return self._losses(batch, captioned, counts, features, seed)
        states, cached = [], []
        for piece in pieces:
            states.append(_random_state(self.device))
            with torch.no_grad():
                cached.append(self._embed(piece))
        leaves = _joined(cached, self._differentiable)
        losses = self._losses(batch, captioned, counts, leaves, seed)
        for number, (piece, state) in enumerate(zip(pieces, states, strict=True)):
            with self._synchronised(number == len(pieces) - 1):
                _restore(state, self.device)
                self._embed_again(piece, _gradients(leaves, cached, number))
        return losses

    def _losses(
        self,
        batch: LoadedBatch,
        captioned: Tensor,
        counts: Sequence[Sequence[int]],
        features: Features,
        seed: int,
    ) -> Losses:
        """Compute the losses and run their backward pass, down to `features` or through them."""
        pairs = self._pairs(batch, captioned, features)
        losses = self.objective(
            pairs,
            [row[:2] for row in counts],
            logit_scale=self.logit_scale,
            global_batch_size=sum(row[2] for row in counts),
            seed=seed,
        )
        # DDP takes the mean over processes, where the gradient of the joined batch is the sum: see `gather.py`.
        self.scaler.scale(losses.loss * world_size()).backward()
        return losses.detached()

    def _pairs(self, batch: LoadedBatch, captioned: Tensor, features: Features) -> Pairs:
        image_ids, region_ids, labels = self.texts.ids(batch, captioned)
        if features.text is not None:
            image_text, region_text = self._split_text(batch, features.text)
        else:
            assert isinstance(self.texts.source, FrozenText)
            found = self.texts.source.features(batch.image_index[captioned], self._captioned_regions(batch))
            image_text, region_text = (features.to(self.device) for features in found)
        processes = self.objective.settings.official_quirks or 1
        position = batch.position[batch.region_image_index].to(self.device)
        return Pairs(
            image=features.image[captioned.to(self.device)],
            image_text=image_text,
            image_text_ids=image_ids,
            roi=features.roi,
            region_text=region_text,
            region_text_ids=region_ids,
            crop=features.crop,
            official_process=position * processes // max(batch.joined_size, 1),
            labels=labels,
        )

    def _split_text(self, batch: LoadedBatch, text: Tensor) -> tuple[Tensor, Tensor]:
        """Take apart trained text features, which each piece holds as its images' captions, then its regions'."""
        images, regions, first = [], [], 0
        for piece in split_batch(batch, self.max_images):
            num_images, num_regions = len(self.texts.captioned(piece)), len(self._captioned_regions(piece))
            images.append(text[first : first + num_images])
            regions.append(text[first + num_images : first + num_images + num_regions])
            first += num_images + num_regions
        return torch.cat(images), torch.cat(regions)

    def _captioned_regions(self, batch: LoadedBatch) -> Tensor:
        """Return the rows in the index of regions whose captions are compared."""
        settings = self.objective.settings
        compared = settings.region_weight and settings.region_objective == "captions"
        return batch.region_index if compared else batch.region_index[:0]

    @property
    def _differentiable(self) -> tuple[bool, ...]:
        """Which of `Features` have a gradient."""
        return (True, True, self.objective.settings.teacher == "live", True)

    def _embed(self, batch: LoadedBatch) -> Features:
        """Return the features of a batch, with gradient where it is enabled."""
        settings = self.objective.settings
        crops = self.preparation.crops(batch) if settings.distill_weight else None
        source, tokens = self.texts.source, None
        if isinstance(source, TrainedText):
            images = batch.image_index[self.texts.captioned(batch)]
            tokens = source.tokens(images, self._captioned_regions(batch)).to(self.device)
        inputs = Inputs(
            self.preparation.images(batch), batch.boxes_norm, batch.region_image_index.to(self.device), crops, tokens
        )
        with self._autocast():
            features = cast(Features, self.module(inputs, rois=settings.uses_regions, teacher=settings.teacher))
            if self.teacher is not None and crops is not None:
                features = features._replace(crop=self.teacher.embed(crops))
        return features

    def _embed_again(self, piece: LoadedBatch, gradients: Sequence[Tensor | None]) -> None:
        features = self._embed(piece)
        products = [(f * g).sum() for f, g in zip(features, gradients, strict=True) if f is not None and g is not None]
        torch.stack(products).sum().backward()

    def _update(self) -> None:
        """Change the weights by the gradients, and clear these."""
        if self.logit_scale.grad is not None and world_size() > 1:
            dist.all_reduce(self.logit_scale.grad)
            self.logit_scale.grad /= world_size()
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        clamp_logit_scale(self.logit_scale)
        if self.teacher is not None:
            self.teacher.update(self.student)

    @property
    def student(self) -> Student:
        """The student, without DDP."""
        module = self.module.module if isinstance(self.module, DistributedDataParallel) else self.module
        return cast(Student, module)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.precision])

    def _kernels(self) -> contextlib.AbstractContextManager[Any]:
        # On CPUs the backward pass of torch's fused attention is several times slower than plain attention.
        return sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else contextlib.nullcontext()

    @contextlib.contextmanager
    def _synchronised(self, now: bool) -> Iterator[None]:
        if isinstance(self.module, DistributedDataParallel) and not now:
            with self.module.no_sync():
                yield
        else:
            yield


def _joined(pieces: Sequence[Features], differentiable: Sequence[bool]) -> Features:
    """Return the features of all pieces as leaves that collect gradients."""
    kinds = []
    for of_kind, has_gradient in zip(zip(*pieces, strict=True), differentiable, strict=True):
        kinds.append(None if of_kind[0] is None else torch.cat(of_kind).requires_grad_(has_gradient))
    return Features(*kinds)  # type: ignore[arg-type]  # the image's features are never None


def _gradients(leaves: Features, pieces: Sequence[Features], number: int) -> list[Tensor | None]:
    """Return the part of each leaf's gradient that belongs to a piece."""
    parts: list[Tensor | None] = []
    for leaf, of_kind in zip(leaves, zip(*pieces, strict=True), strict=True):
        if leaf is None or leaf.grad is None:
            parts.append(None)
            continue
        lengths = [len(features) for features in of_kind]
        parts.append(leaf.grad.split(lengths)[number])
    return parts


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
