"""Captions as RegionCLIP makes them: of a pool of concepts the one nearest to the region under a CLIP, in a template.

The crop is encoded as a picture of its own, where RegionCLIP pools features of the whole image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.backends import check_ranges, require
from pipeline.caption.base import CaptionerBase, Watched
from pipeline.caption.concepts import filled, find_pool
from pipeline.models.batches import padded_size
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import OPEN_CLIP, Licensed, model_license
from pipeline.models.weights import ModelFiles, find_model
from pipeline.sample import Caption, Crop, Drop
from schemas.reasons import Reason, Stage

_FLAG = "--caption.model"
_MINI = "clip"


@dataclass(frozen=True, kw_only=True)
class ClipRuleConfig(Watched):
    """Settings of `clip_rule`. Temperature and threshold are RegionCLIP's."""

    model: str = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    """A CLIP for open_clip: a hub id, a local folder in open_clip's layout, or `mini` (synthetic scenes only)."""
    revision: str | None = None
    """The hub's branch, tag or commit; its newest when not given."""
    concepts: str | None = None
    """Text file of what a region may be, a concept a line; `scenes` for synthetic ones; a list of some 500 common
    things when not given."""
    template: str = "a photo of a {}"
    """The caption; the concept takes the place of {}."""
    temperature: float = 0.01
    """Divides the similarities before the softmax over the pool."""
    min_confidence: float = 0.1
    """Probability, 0 to 1, below which a region is filtered instead of described."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 64
    """Crops a model call; short batches are padded to a power-of-two share of it."""

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise ValueError(f"--caption.template {self.template!r}: has no {{}} for the concept")
        if self.temperature <= 0:
            raise ValueError(f"--caption.temperature is {self.temperature}, but must be above 0")
        check_ranges(self, flag="--caption")


@dataclass(frozen=True)
class _Prepared:
    num_crops: int
    pictures: Any
    """`[B, 3, S, S]` float32 on the model's device."""


class ClipRule(CaptionerBase):
    """Names the concept nearest to each crop. `caption_score` is its probability among the pool, 0 to 1."""

    name: ClassVar[str] = "clip_rule"
    version: ClassVar[int] = 1
    """Raised when the same input would give another output: it is part of the fingerprint."""
    config_class: ClassVar[type[ClipRuleConfig]] = ClipRuleConfig
    not_output: ClassVar[tuple[str, ...]] = ("allow_constant",)

    def __init__(self, config: ClipRuleConfig, *, device: Device = CPU) -> None:
        """Load the CLIP and encode the pool. Raises WeightsNotFoundError, and ValueError for a pool that is none."""
        import torch

        from pipeline.caption import clip

        self._pool = find_pool(config.concepts)
        files = _find(config)
        super().__init__(config, files=files, libraries={"open_clip": "open_clip_torch", "torch": "torch"})
        self._device = device.resolve()
        self._clip = clip.load(files.path, device=self._device)
        prompts = [prompt for prompts in self._pool.prompts for prompt in prompts]
        features = clip.encode_captions(self._clip, prompts)
        with torch.inference_mode():
            means = features.view(len(self._pool.concepts), -1, features.shape[-1]).mean(dim=1)
            self._concept_features = torch.nn.functional.normalize(means, dim=-1).T  # [D, C] float32

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption | Drop]:
        """Return the caption of each crop, in order, or a Drop `low_confidence`. Prompts are not read."""
        return self.generate(self.prepare(crops, prompts))

    def prepare(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> _Prepared:
        """Return the crops as the CLIP wants them, padded with black ones to one of few batch sizes."""
        from pipeline.caption.clip import images_to_input

        num_black = padded_size(len(crops), self.batch_size) - len(crops)
        black = np.zeros((8, 8, 3), dtype=np.uint8)
        pictures = images_to_input(self._clip.preprocess, [crop.pixels for crop in crops] + [black] * num_black)
        if self._device.startswith("cuda"):
            pictures = pictures.pin_memory()
        return _Prepared(len(crops), pictures.to(self._device, non_blocking=True))

    def generate(self, prepared: _Prepared) -> list[Caption | Drop]:
        """Return the caption of each prepared crop, in order, or why it has none."""
        import torch

        with torch.inference_mode():
            features = self._clip.model.encode_image(prepared.pictures, normalize=True)
            probabilities = (features @ self._concept_features / self.config.temperature).softmax(dim=-1)
            confidences, nearest = probabilities[: prepared.num_crops].max(dim=-1)
        outcomes: list[Caption | Drop] = []
        for index, confidence in zip(nearest.tolist(), confidences.tolist(), strict=True):
            concept = self._pool.concepts[index]
            if confidence < self.config.min_confidence:
                message = f"most likely {concept!r}, with a probability of {confidence:.3f}"
                outcomes.append(Drop(reason=Reason.LOW_CONFIDENCE, stage=Stage.CAPTION, message=message))
            else:
                outcomes.append(Caption(text=filled(self.config.template, concept), score=confidence))
        return outcomes

    @staticmethod
    def weights(config: ClipRuleConfig) -> dict[str, Any]:
        """Return the model and the pool by commit or hash.

        Raises ImportError, at start, where open_clip is missing, and ValueError for a pool that is none.
        """
        require("open_clip", what="the captioner clip_rule", install="pip install open_clip_torch")
        pool = f"sha256:{find_pool(config.concepts).sha256}"
        named = {"model": _find(config).fingerprint(), "concepts": pool, "revision": None, "license": None}
        return named | dict.fromkeys(ClipRule.not_output)

    @staticmethod
    def licenses(config: ClipRuleConfig) -> tuple[Licensed, ...]:
        """Return the terms of open_clip and of the weights."""
        return (OPEN_CLIP, model_license(config.model, mini=_MINI, stated=config.license))

    def provenance(self) -> dict[str, Any]:
        """Return a captioner's provenance, with the pool by its content."""
        said = super().provenance()
        said["settings"]["concepts"] = self._pool.sha256
        return said | {"concepts": {"num_concepts": len(self._pool.concepts), "sha256": self._pool.sha256}}


def _find(config: ClipRuleConfig) -> ModelFiles:
    return find_model(config.model, mini=_MINI, flag=_FLAG, revision=config.revision)
