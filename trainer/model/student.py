"""The model that is trained, as one module whose forward pass gives every feature that the losses need."""

import copy
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from trainer.hyperparameters import TeacherKind
from trainer.model.backbone import Backbone, normalise, pool_regions


class Inputs(NamedTuple):
    """A batch on the device: B images, N regions, c images whose captions are compared, n regions whose are."""

    images: Tensor
    """`[B, 3, H, W]` float, normalised."""
    boxes_norm: Tensor
    """`[N, 4]` float32 xyxy in fractions of their image."""
    region_image_index: Tensor
    """`[N]` int64: which image each region is of."""
    crops: Tensor | None
    """`[N, 3, S, S]` float, normalised; None where nothing is distilled."""
    image_tokens: Tensor | None
    """`[c, L]` int64; None where the text tower is frozen."""
    region_tokens: Tensor | None
    """`[n, L]` int64; None where the text tower is frozen."""
    negative_tokens: Tensor | None
    """`[h, L]` int64, of hard negatives; None where the text tower is frozen."""


class Features(NamedTuple):
    """L2-normalised, float32 at least; None where they were not asked for, or are computed elsewhere."""

    image: Tensor
    """`[B, D]`."""
    roi: Tensor | None
    """`[N, D]`: the student's features of regions."""
    crop: Tensor | None
    """`[N, D]`: the teacher's."""
    image_text: Tensor | None
    """`[c, D]`."""
    region_text: Tensor | None
    """`[n, D]`."""
    negative_text: Tensor | None = None
    """`[h, D]`: of hard negatives."""


class Student(nn.Module):
    """A CLIP model with its vision tower taken apart. The model's own parameters are its parameters."""

    def __init__(self, clip: nn.Module, *, gradient_checkpointing: bool = False) -> None:
        """Wrap `clip`, which keeps its names. Raises UnsupportedTowerError."""
        super().__init__()
        self.clip = clip
        self.backbone = Backbone(cast(nn.Module, clip.visual), gradient_checkpointing=gradient_checkpointing)

    def forward(self, inputs: Inputs, *, rois: bool, teacher: TeacherKind) -> Features:
        """Embed a batch: images once, for both global and region features; crops if the student is its own teacher."""
        embeddings = self.backbone(inputs.images, dense=rois)
        roi = None
        if embeddings.dense_features is not None:
            roi = pool_regions(embeddings.dense_features, inputs.boxes_norm, inputs.region_image_index)
        # Crops come after the images: autocast keeps the weights it cast, and casts made without gradient have none.
        crop = None
        if inputs.crops is not None and teacher in ("live", "detached"):
            with torch.set_grad_enabled(teacher == "live" and torch.is_grad_enabled()):
                crop = embed_crops(self.backbone, inputs.crops)
        tokens = [t for t in (inputs.image_tokens, inputs.region_tokens, inputs.negative_tokens) if t is not None]
        texts: list[Tensor | None] = [None, None, None]
        if tokens:
            texts = [*encode_text(self.clip, torch.cat(tokens)).split([len(of_kind) for of_kind in tokens])]
        return Features(normalise(embeddings.image_features), roi, crop, *texts)


def embed_crops(backbone: Backbone, crops: Tensor) -> Tensor:
    """Return normalised global embeddings `[N, D]` of crops `[N, 3, S, S]`."""
    return normalise(backbone(crops).image_features)


def encode_text(clip: nn.Module, tokens: Tensor) -> Tensor:
    """Return normalised embeddings `[T, D]` of tokens `[T, L]`, T 0 included."""
    if not len(tokens):
        return encode_text(clip, tokens.new_zeros(1, tokens.shape[1]))[:0]
    return normalise(cast(Tensor, clip.encode_text(tokens)))  # type: ignore[operator]


class SeparateTeacher:
    """A copy of the vision tower that embeds crops without gradient: the start's weights, or a moving average."""

    def __init__(self, student: Student, *, ema_decay: float | None) -> None:
        """Copy the student's tower; with `ema_decay`, `update` follows it."""
        self.backbone = copy.deepcopy(student.backbone).eval().requires_grad_(False)
        self._ema_decay = ema_decay

    @torch.no_grad()
    def embed(self, crops: Tensor) -> Tensor:
        """Return normalised embeddings `[N, D]` of crops `[N, 3, S, S]`."""
        return embed_crops(self.backbone, crops)

    @torch.no_grad()
    def update(self, student: Student) -> None:
        """Move the average towards the student's weights, after a step; nothing for a frozen teacher."""
        if self._ema_decay is None:
            return
        pairs = zip(self.backbone.parameters(), student.backbone.parameters(), strict=True)
        for mine, theirs in pairs:
            mine.lerp_(theirs, 1 - self._ema_decay)
