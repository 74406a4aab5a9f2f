"""BLIP-2 as transformers has it, OPT or T5 head: one loader for the hub's models, a local folder and the mini."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.backends import check_ranges, require
from pipeline.caption.base import CaptionerBase
from pipeline.caption.generation import (
    Decoding,
    Dtype,
    Unfinished,
    answers_of,
    captions_of,
    check_dtype,
    libraries,
    load_model,
    thought_tags,
    torch_dtype,
)
from pipeline.caption.pixels import to_device
from pipeline.models.batches import padded_size
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import BITSANDBYTES, TRANSFORMERS, Licensed, model_license
from pipeline.models.weights import ModelFiles, find_model
from pipeline.sample import Caption, Crop

_FLAG = "--caption.model"
_MINI = "captioner"


@dataclass(frozen=True, kw_only=True)
class Blip2Config(Decoding):
    """Settings of `blip2`.

    The paper names the model; dtype, batch and decoding are not in it.
    """

    model: str = "Salesforce/blip2-opt-6.7b-coco"
    """A hub id, a local folder in the hub's layout, or `mini` (synthetic scenes only)."""
    revision: str | None = None
    """The hub's branch, tag or commit; its newest when not given."""
    dtype: Dtype = "float16"
    """What the weights are held and run in; CPUs want float32. int8 (with bitsandbytes) runs in float16."""
    prompt: str | None = None
    """What the model is asked; models fine-tuned on COCO captions want nothing."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    unfinished: Unfinished = "keep"
    """What becomes of a caption cut at --caption.max-new-tokens: keep or dead. BLIP-2's own code keeps it as it is,
    and the paper names no rule against it."""
    batch_size: int = 256
    """Crops a model call: as many as let a GPU write captions at its speed, since a step of writing costs the same host
    work for one crop and for hundreds. Short batches are padded to a power-of-two share of it."""
    vision_batch_size: int = 64
    """Crops that the vision tower sees at once: it is at its speed with fewer, and its activations take the most
    memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, flag="--caption", least={"vision_batch_size": 1})


@dataclass(frozen=True)
class _Prepared:
    num_crops: int
    inputs: dict[str, Any]
    """What `generate` takes, on the model's device: `pixel_values` `[B, 3, H, W]`, and for a prompt `input_ids` and
    `attention_mask` `[B, L]`."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A BLIP-2 on its device, and what its inputs are made with."""

    files: ModelFiles
    processor: Any
    model: Any


def load(config: Blip2Config, device: str) -> Loaded:
    """Load the weights and processor that `config` names. Raises WeightsNotFoundError."""
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    files = _find(config)
    model = load_model(Blip2ForConditionalGeneration, files, dtype=config.dtype, device=device)
    processor = Blip2Processor.from_pretrained(files.path, local_files_only=True)
    return Loaded(files=files, processor=processor, model=model)


def arranged(model: Any, config: Blip2Config) -> Any:
    """Return the model as it captions: all of it in one dtype, its vision tower in batches of its own.

    transformers keeps the Q-Former in float32 beside halves: on a GPU 6 to 10 % of the time, by arithmetic, for 1 % of
    the operations.
    """
    import torch

    class InBatches(torch.nn.Module):
        """A vision tower that sees at most so many pictures at once."""

        def __init__(self, tower: Any, batch_size: int) -> None:
            super().__init__()
            self.tower, self.batch_size = tower, batch_size

        def forward(self, pixel_values: torch.Tensor, **options: Any) -> Any:
            outputs = [self.tower(part, **options) for part in pixel_values.split(self.batch_size)]
            if len(outputs) > 1:
                outputs[0].last_hidden_state = torch.cat([output.last_hidden_state for output in outputs])
            return outputs[0]

    dtype = torch_dtype(config.dtype)
    model.qformer.to(dtype)
    model.query_tokens.data = model.query_tokens.data.to(dtype)
    model.vision_model = InBatches(model.vision_model, config.vision_batch_size)
    return model


class Blip2(CaptionerBase):
    """Captions crops. `caption_score` is the mean probability (geometric, 0 to 1) of the caption's tokens."""

    name: ClassVar[str] = "blip2"
    version: ClassVar[int] = 2
    """Raised when the same input would give another output: it is part of the fingerprint."""
    config_class: ClassVar[type[Blip2Config]] = Blip2Config
    not_output: ClassVar[tuple[str, ...]] = ("allow_constant",)

    def __init__(
        self, config: Blip2Config, *, device: Device = CPU, load: Callable[[Blip2Config, str], Loaded] = load
    ) -> None:
        """Load weights and processor, by `load`.

        Raises WeightsNotFoundError, ImportError where a package is missing, and ValueError for a model that must be
        asked something and is not.
        """
        self._device = device.resolve()
        loaded = load(config, self._device)
        super().__init__(config, files=loaded.files, libraries=libraries(config.dtype))
        self.prompt = config.prompt
        self._processor, self._model = loaded.processor, arranged(loaded.model, config)
        self._tags = thought_tags(self._processor.tokenizer)
        if config.prompt is None and getattr(self._model.config.text_config, "bos_token_id", None) is None:
            raise ValueError(
                f"{_FLAG} {config.model}: its language model has no token to begin with; "
                "give it words, such as --caption.prompt 'a photo of'"
            )

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption]:
        """Return the caption of each crop, in order; all prompts of a call are alike."""
        return self.generate(self.prepare(crops, prompts))

    def prepare(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> _Prepared:
        """Return the model's inputs on its device, padded with black crops to one of few batch sizes.

        A GPU gets the crops as they are, and scales them itself.
        """
        size = padded_size(len(crops), self.batch_size)
        padding = [np.zeros((8, 8, 3), dtype=np.uint8)] * (size - len(crops))
        pictures = to_device([*(crop.pixels for crop in crops), *padding], self._device)
        text = None if prompts[0] is None else [prompts[0]] * size
        inputs = self._processor(
            images=pictures,
            text=text,
            return_tensors="pt",
            images_kwargs={"input_data_format": "channels_first", "device": self._device},
        )
        return _Prepared(len(crops), dict(inputs.to(self._device, torch_dtype(self.config.dtype))))

    def generate(self, prepared: _Prepared) -> list[Caption]:
        """Return the caption of each prepared crop, in order."""
        import torch

        with torch.inference_mode():
            tokens, logs = answers_of(self._model, prepared.inputs, self.config)
            tokenizer, settings = self._processor.tokenizer, self._model.language_model.generation_config
            captions = captions_of(tokens, logs, tokenizer, settings, tags=self._tags)
        return captions[: prepared.num_crops]  # the others pad the batch

    @staticmethod
    def weights(config: Blip2Config) -> dict[str, Any]:
        """Return the model by its commit or hash. Raises ImportError, at start, where a package is missing."""
        require("transformers", what="the captioner blip2", install="pip install 'fineclip-regions[pipeline]'")
        check_dtype(config.dtype, "blip2")
        named = {"model": _find(config).fingerprint(), "revision": None, "license": None}
        return named | dict.fromkeys(Blip2.not_output)

    @staticmethod
    def licenses(config: Blip2Config) -> tuple[Licensed, ...]:
        """Return the terms of the code and of the weights."""
        quantised = (BITSANDBYTES,) if config.dtype == "int8" else ()
        return (TRANSFORMERS, *quantised, model_license(config.model, mini=_MINI, stated=config.license))


def _find(config: Blip2Config) -> ModelFiles:
    return find_model(config.model, mini=_MINI, flag=_FLAG, revision=config.revision)
