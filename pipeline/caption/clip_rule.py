"""Captions as RegionCLIP makes them: of a pool of concepts the one nearest to the region under a CLIP, in a template.

The crop is encoded as a picture of its own, where RegionCLIP pools features of the whole image.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np

from pipeline.backends import require
from pipeline.caption.concepts import Pool, filled, find_pool
from pipeline.models.batches import padded_size
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import OPEN_CLIP, Licensed, model_license
from pipeline.models.weights import ModelFiles, find_model
from pipeline.sample import Caption, Crop, Drop
from schemas.reasons import Reason, Stage

_FLAG = "--caption.model"
_MINI = "clip"
_PROMPTS_A_CALL = 256


@dataclass(frozen=True, kw_only=True)
class ClipRuleConfig:
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
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"--caption.min_confidence is {self.min_confidence}, but must be between 0 and 1")


@dataclass(frozen=True)
class _Prepared:
    num_crops: int
    pictures: Any
    """`[B, 3, S, S]` float32 on the model's device."""


class ClipRule:
    """Names the concept nearest to each crop. `caption_score` is its probability among the pool, 0 to 1."""

    name: ClassVar[str] = "clip_rule"
    version: ClassVar[int] = 1
    """Raised when the same input would give another output: it is part of the fingerprint."""
    config_class: ClassVar[type[ClipRuleConfig]] = ClipRuleConfig
    prompt: str | None = None

    def __init__(self, config: ClipRuleConfig, *, device: Device = CPU) -> None:
        """Load the CLIP and encode the pool. Raises WeightsNotFoundError, and ValueError for a pool that is none."""
        from pipeline.minis.clip import load

        self.config = config
        self.batch_size = config.batch_size
        self._pool = find_pool(config.concepts)
        self._files = _find(config)
        self._device = device.resolve()
        self._clip = load(self._files.path)
        self._clip.model.to(self._device)
        self._concept_features = self._encoded(self._pool)

    def _encoded(self, pool: Pool) -> Any:
        """Return `[D, C]` float32: of each concept the normalised mean of its prompts' features."""
        import torch

        prompts = [prompt for prompts in pool.prompts for prompt in prompts]
        calls = [prompts[first : first + _PROMPTS_A_CALL] for first in range(0, len(prompts), _PROMPTS_A_CALL)]
        with torch.inference_mode():
            features = torch.cat([self._encode_text(call) for call in calls])
            means = features.view(len(pool.concepts), -1, features.shape[-1]).mean(dim=1)
            return torch.nn.functional.normalize(means, dim=-1).T

    def _encode_text(self, prompts: list[str]) -> Any:
        return self._clip.model.encode_text(self._clip.tokenizer(prompts).to(self._device), normalize=True)

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption | Drop]:
        """Return the caption of each crop, in order, or a Drop `low_confidence`. Prompts are not read."""
        return self.generate(self.prepare(crops, prompts))

    def prepare(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> _Prepared:
        """Return the crops as the CLIP wants them, padded with black ones to one of few batch sizes."""
        from pipeline.minis.clip import images_to_input

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
        return [
            self._outcome(self._pool.concepts[index], confidence)
            for index, confidence in zip(nearest.tolist(), confidences.tolist(), strict=True)
        ]

    def _outcome(self, concept: str, confidence: float) -> Caption | Drop:
        if confidence < self.config.min_confidence:
            message = f"most likely {concept!r}, with a probability of {confidence:.3f}"
            return Drop(reason=Reason.LOW_CONFIDENCE, stage=Stage.CAPTION, message=message)
        return Caption(text=filled(self.config.template, concept), score=confidence)

    @staticmethod
    def weights(config: ClipRuleConfig) -> dict[str, Any]:
        """Return the model and the pool by commit or hash.

        Raises ImportError, at start, where open_clip is missing, and ValueError for a pool that is none.
        """
        require("open_clip", what="the captioner clip_rule", install="pip install open_clip_torch")
        pool = f"sha256:{find_pool(config.concepts).sha256}"
        return {"model": _find(config).fingerprint(), "concepts": pool, "revision": None, "license": None}

    @staticmethod
    def licenses(config: ClipRuleConfig) -> tuple[Licensed, ...]:
        """Return the terms of open_clip and of the weights."""
        return (OPEN_CLIP, model_license(config.model, mini=_MINI, stated=config.license))

    def provenance(self) -> dict[str, Any]:
        """Return name, version, weights, pool, settings and library versions; nothing is asked."""
        pool = {"num_concepts": len(self._pool.concepts), "sha256": self._pool.sha256}
        return {
            "name": self.name,
            "version": self.version,
            "weights": self._files.identity(),
            "prompt": self.prompt,
            "concepts": pool,
            "settings": dataclasses.asdict(self.config) | {"model": self._files.name, "concepts": pool["sha256"]},
            "libraries": {"open_clip": version("open_clip_torch"), "torch": version("torch")},
        }


def _find(config: ClipRuleConfig) -> ModelFiles:
    return find_model(config.model, mini=_MINI, flag=_FLAG, revision=config.revision)
