"""BLIP-2 as transformers has it, OPT or T5 head: one loader for the hub's models, a local folder and the mini."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.backends import require
from pipeline.batches import padded_size
from pipeline.caption.base import Caption, Crop
from pipeline.device import CPU, Device
from pipeline.weights import ModelFiles, find_model

_FLAG = "--caption.model"


@dataclass(frozen=True, kw_only=True)
class Blip2Config:
    """Settings of `blip2`.

    The paper names the model; dtype, batch and decoding are not in it.
    """

    model: str = "Salesforce/blip2-opt-6.7b-coco"
    """A hub id, a local folder in the hub's layout, or `mini` (synthetic scenes only)."""
    revision: str | None = None
    """The hub's branch, tag or commit; its newest when not given."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    """What the weights are held and run in; CPUs want float32."""
    prompt: str | None = None
    """What the model is asked; models fine-tuned on COCO captions want nothing."""
    max_new_tokens: int = 30
    """Longest caption, in tokens."""
    num_beams: int = 1
    """Beams of the search; 1 is greedy."""
    batch_size: int = 32
    """Crops a model call; short batches are padded to a power-of-two share of it."""


class Blip2:
    """Captions crops. `caption_score` is the mean probability (geometric, 0 to 1) of the caption's tokens."""

    name: ClassVar[str] = "blip2"
    version: ClassVar[int] = 1
    """Raised when the same input would give another output: it is part of the fingerprint."""
    config_class: ClassVar[type[Blip2Config]] = Blip2Config

    def __init__(self, config: Blip2Config, *, device: Device = CPU) -> None:
        """Load weights and processor. Raises WeightsNotFoundError, and ImportError where transformers is missing."""
        import torch
        from transformers import Blip2ForConditionalGeneration, Blip2Processor
        from transformers.utils import logging

        logging.disable_progress_bar()  # a worker's; the job has one of its own
        self.config = config
        self.batch_size = config.batch_size
        self.prompt = config.prompt
        self._files = _find(config)
        self._device = device.resolve()
        self._processor: Any = Blip2Processor.from_pretrained(self._files.path, local_files_only=True)
        model: Any = Blip2ForConditionalGeneration.from_pretrained(
            self._files.path, dtype=getattr(torch, config.dtype), local_files_only=True
        )
        self._model = model.to(self._device).eval()

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption]:
        """Return the caption of each crop, in order; all prompts of a call are alike."""
        import torch

        inputs = self._inputs(crops, prompts[0])
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                max_new_tokens=self.config.max_new_tokens,
                num_beams=self.config.num_beams,
                do_sample=False,
                output_scores=True,
                return_dict_in_generate=True,
            )
            scores, tokens = self._scores(output)
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [
            Caption(text=text.strip(), score=score)
            for text, score, _ in zip(texts, scores, crops, strict=False)  # what pads the batch is left out
        ]

    def _inputs(self, crops: Sequence[Crop], prompt: str | None) -> dict[str, Any]:
        """Return the model's inputs for the crops, padded with black ones to one of few batch sizes."""
        from PIL import Image

        size = padded_size(len(crops), self.batch_size)
        pictures = [Image.fromarray(np.ascontiguousarray(crop.pixels)) for crop in crops]
        pictures += [Image.new("RGB", (8, 8))] * (size - len(crops))
        text = None if prompt is None else [prompt] * size
        inputs = self._processor(images=pictures, text=text, return_tensors="pt")
        return dict(inputs.to(self._device, self._model.dtype))

    def _scores(self, output: Any) -> tuple[list[float], Any]:
        """Return the geometric mean of the probabilities of each caption's tokens, its end included, and the tokens.

        The tokens are `[B, L]`, without the prompt: as many as have scores, which with beams is the longest chosen one.
        """
        import torch

        beams = getattr(output, "beam_indices", None)
        logs = self._model.language_model.compute_transition_scores(
            output.sequences, output.scores, beams, normalize_logits=beams is None
        ).float()
        tokens = output.sequences[:, -logs.shape[1] :]
        pad = self._model.generation_config.pad_token_id
        is_token = torch.isfinite(logs)
        if pad is not None:
            ended = torch.cumsum((tokens == pad).int(), dim=1)
            is_token &= ended <= (1 if pad == self._model.generation_config.eos_token_id else 0)
        means = torch.where(is_token, logs, 0).sum(dim=1) / is_token.sum(dim=1).clamp(min=1)
        scores: list[float] = means.exp().tolist()
        return scores, tokens

    @staticmethod
    def weights(config: Blip2Config) -> dict[str, Any]:
        """Return the model by its commit or hash. Raises ImportError, at start, where transformers is missing."""
        require("transformers", what="the captioner blip2", install="pip install 'fineclip-regions[pipeline]'")
        return {"model": _find(config).fingerprint(), "revision": None}

    def provenance(self) -> dict[str, Any]:
        """Return name, version, weights, prompt, settings, library versions and licence."""
        return {
            "name": self.name,
            "version": self.version,
            "weights": self._files.identity(),
            "license": "Apache-2.0" if self._files.name == "mini" else "MIT code; the weights' own licence",
            "prompt": self.prompt,
            "settings": dataclasses.asdict(self.config) | {"model": self._files.name},
            "libraries": {name: version(name) for name in ("torch", "transformers")},
        }


def _find(config: Blip2Config) -> ModelFiles:
    return find_model(config.model, mini="captioner", flag=_FLAG, revision=config.revision)
