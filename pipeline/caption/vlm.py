"""Models that see and are asked: whatever transformers opens as an image-text-to-text model.

Chat models are asked in their chat template. The others (Florence-2, BLIP, PaliGemma) get the prompt as it is, which
must be in the words that they were trained with.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pipeline.backends import SettingError, require
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
from pipeline.caption.locations import location_tags, without_locations
from pipeline.caption.pixels import scaled
from pipeline.models.batches import padded_size
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import BITSANDBYTES, TRANSFORMERS, Licensed, model_license, remote_code
from pipeline.models.weights import ModelFiles, find_model
from pipeline.sample import Caption, Crop
from schemas.hashes import sha256

_FLAG = "--caption.model"
_MINI = None
"""None ships for it."""
_PIXELS_A_PLACE = 448 * 448
_BLIP, _PALIGEMMA = "blip", "paligemma"
_PALIGEMMA_IMAGE = "<image>"
"""Its processor puts one before a prompt that has none, with a page of warning at each call."""
_WORDS = {_BLIP: "'' or 'a photo of'", "florence2": "'<CAPTION>'", _PALIGEMMA: "'caption en'"}
"""What to ask of a kind of model, for people."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class VlmConfig(Decoding):
    """Settings of `vlm`."""

    model: str = "Qwen/Qwen2-VL-2B-Instruct"
    """A hub id, or a local folder in the hub's layout."""
    revision: str | None = None
    """The hub's branch, tag or commit; its newest when not given."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model: from a local folder, or the hub at a --caption.revision that is a
    commit."""
    dtype: Dtype = "bfloat16"
    """What the weights are held and run in. int8 (with bitsandbytes) runs in float16."""
    prompt: str = "Describe this image in one sentence."
    """What the model is asked about each crop; the paper's words. A model without a chat template gets it as it is:
    docs/models.md has the words that some were trained with."""
    max_new_tokens: int = 64
    """Longest caption, in tokens."""
    unfinished: Unfinished = "dead"
    """What becomes of an answer cut at --caption.max-new-tokens: dead or keep. Chat models write whole sentences, so a
    cut answer breaks off within one."""
    min_side: int = 28
    """Pixels; crops with a shorter side are scaled up to it, since models refuse images smaller than their patches."""
    max_side: int = 2048
    """Pixels; crops with a longer side are scaled down to it."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 64
    """Crops of up to 448 x 448 pixels a model call, fewer of larger ones; short batches are padded to a power-of-two
    share of it as far as that leaves room."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.min_side <= self.max_side:
            raise ValueError(
                f"--caption.min-side is {self.min_side} and --caption.max-side {self.max_side}: "
                "the first must be at least 1 and not above the second"
            )


@dataclass(frozen=True)
class _Prepared:
    num_crops: int
    inputs: dict[str, Any]
    """What `generate` takes, on the model's device: `input_ids` and `attention_mask` `[B, L]`, and the pixels in
    whatever form the model has."""


class Vlm(CaptionerBase):
    """Asks a model about each crop. `caption_score` is the mean probability (geometric, 0 to 1) of the tokens."""

    name: ClassVar[str] = "vlm"
    version: ClassVar[int] = 1
    """Raised when the same input would give another output: it is part of the fingerprint."""
    config_class: ClassVar[type[VlmConfig]] = VlmConfig
    not_output: ClassVar[tuple[str, ...]] = ("allow_constant",)

    def __init__(self, config: VlmConfig, *, device: Device = CPU) -> None:
        """Load weights and processor.

        Raises WeightsNotFoundError, ImportError where a package is missing, and ValueError for a model that needs code
        of its own which is not trusted, and for one without a chat template that is not asked in words of its own.
        """
        import transformers

        _check_trust(config)
        files = _find(config)
        super().__init__(config, files=files, libraries=libraries(config.dtype))
        self.prompt = config.prompt
        self._code = _code_sha256(files.path) if config.trust_remote_code else None
        self._device = device.resolve()
        settings = json.loads((files.path / "config.json").read_text(encoding="utf-8"))
        needs_code = "auto_map" in settings and settings.get("model_type") not in transformers.CONFIG_MAPPING
        if needs_code and not config.trust_remote_code:
            raise ValueError(
                f"{_FLAG} {config.model}: it runs Python code of its own. Read it, then give "
                "--caption.trust-remote-code true (for a hub id with the commit you read as --caption.revision), "
                "or let a server run it and use --captioner openai"
            )
        trust = {"trust_remote_code": config.trust_remote_code}
        processors: Any = transformers.AutoProcessor
        self._processor = processors.from_pretrained(files.path, local_files_only=True, **trust)
        self._kind = settings.get("model_type")
        self._chats = bool(getattr(self._processor, "chat_template", None))
        if not self._chats:
            _check_plain(config, self._kind)
        self._tags = thought_tags(self._processor.tokenizer) | location_tags(self._processor.tokenizer)
        models = transformers.AutoModelForImageTextToText
        self._model = load_model(models, files, dtype=config.dtype, device=self._device, **trust)
        self._generation = getattr(getattr(self._model, "language_model", None), "generation_config", None)
        self._generation = self._generation or self._model.generation_config
        if self._kind == _BLIP:  # its `generate` ends captions by this one, whatever its settings say
            self._generation.eos_token_id = self._model.config.text_config.sep_token_id

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption]:
        """Return the caption of each crop, in order."""
        return self.generate(self.prepare(crops, prompts))

    def prepare(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> _Prepared:
        """Return the model's inputs on its device, padded to one of few batch sizes as far as its places allow.

        The padding is copies of the crop that is the smallest as the model sees it: they are the least work, and their
        captions end when that one does.
        """
        from PIL import Image

        sides = {"min_side": self.config.min_side, "max_side": self.config.max_side}
        pictures = [Image.fromarray(scaled(crop.pixels, **sides)) for crop in crops]
        smallest = min(range(len(crops)), key=lambda index: pictures[index].width * pictures[index].height)
        copies = [smallest] * self._num_copies(crops, of=crops[smallest])
        asked = [(pictures[index], prompts[index]) for index in (*range(len(crops)), *copies)]
        inputs = self._chat_inputs(asked) if self._chats else self._plain_inputs(asked)
        return _Prepared(len(crops), {name: self._sent(value) for name, value in inputs.items()})

    def _chat_inputs(self, asked: Sequence[tuple[Any, str | None]]) -> Any:
        """Return the inputs of pictures, each with its prompt, in the model's chat template."""
        chats = [
            [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": prompt}]}]
            for picture, prompt in asked
        ]
        return self._processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},  # captions begin where the prompts end
        )

    def _plain_inputs(self, asked: Sequence[tuple[Any, str | None]]) -> Any:
        """Return the inputs of pictures, each with its prompt as it is. All prompts are alike: none is padded."""
        images, prompts = zip(*asked, strict=True)
        assert len({*prompts}) == 1, prompts
        mark = _PALIGEMMA_IMAGE if self._kind == _PALIGEMMA and _PALIGEMMA_IMAGE not in prompts[0] else ""
        inputs = self._processor(
            images=list(images), text=[f"{mark}{prompt}" for prompt in prompts], return_tensors="pt"
        )
        return {name: value for name, value in inputs.items() if name != "labels"}  # PaliGemma's, for training

    def _num_copies(self, crops: Sequence[Crop], *, of: Crop) -> int:
        """Return how many copies of a crop fill its batch up."""
        free = self.batch_size - sum(map(self.places, crops))
        wanted = padded_size(len(crops), self.batch_size) - len(crops)
        return max(0, min(wanted, int(free / self.places(of))))

    def places(self, crop: Crop) -> float:
        """Return how many places of a batch the crop takes: 1 up to 448 x 448 pixels, then in proportion.

        Models of this kind cut large images into more tokens.
        """
        height, width = crop.pixels.shape[:2]
        shrunk: float = min(1.0, self.config.max_side / max(height, width))
        return max(1.0, crop.pixels.size // 3 * shrunk**2 / _PIXELS_A_PLACE)

    def _sent(self, value: Any) -> Any:
        """Return an input on the model's device, pixels in its dtype, without waiting for the copy."""
        dtype = torch_dtype(self.config.dtype) if value.is_floating_point() else value.dtype
        if self._device.startswith("cuda"):
            value = value.pin_memory()
        return value.to(self._device, dtype=dtype, non_blocking=True)

    def generate(self, prepared: _Prepared) -> list[Caption]:
        """Return the caption of each prepared crop, in order."""
        import torch

        with torch.inference_mode():
            tokens, logs = answers_of(self._model, prepared.inputs, self.config)
            captions = captions_of(tokens, logs, self._processor.tokenizer, self._generation, tags=self._tags)
        return [
            replace(caption, text=without_locations(caption.text, self._processor, prompt=self.prompt or ""))
            for caption in captions[: prepared.num_crops]  # the others pad the batch
        ]

    @staticmethod
    def weights(config: VlmConfig) -> dict[str, Any]:
        """Return the model, and the code that comes with it where it is trusted, by commit or hash.

        Raises ImportError, at start, where a package is missing, and ValueError for code that is not pinned.
        """
        require("transformers", what="the captioner vlm", install="pip install 'fineclip-regions[pipeline]'")
        check_dtype(config.dtype, "vlm")
        _check_trust(config)
        files = _find(config)
        code = {"code": _code_sha256(files.path)} if config.trust_remote_code else {}
        named = {"model": files.fingerprint(), "revision": None, "license": None}
        return code | named | dict.fromkeys(Vlm.not_output)

    @staticmethod
    def licenses(config: VlmConfig) -> tuple[Licensed, ...]:
        """Return the terms of the code, that which comes with the model too where it is trusted, and of the weights."""
        weights = model_license(config.model, mini=_MINI, stated=config.license)
        quantised = (BITSANDBYTES,) if config.dtype == "int8" else ()
        remote = (remote_code(weights.what),) if config.trust_remote_code else ()
        return (TRANSFORMERS, *quantised, *remote, weights)

    def provenance(self) -> dict[str, Any]:
        """Return a captioner's provenance, with the sha256 of the code that came with the model."""
        return super().provenance() | {"code": self._code}


def _find(config: VlmConfig) -> ModelFiles:
    return find_model(config.model, mini=_MINI, flag=_FLAG, revision=config.revision)


def _check_plain(config: VlmConfig, kind: str | None) -> None:
    """Raise ValueError for a model without a chat template that is another captioner's, or is asked in our words."""
    if kind == "blip-2":
        raise ValueError(f"{_FLAG} {config.model}: it is a BLIP-2; give --captioner blip2")
    if config.prompt == VlmConfig.prompt:
        raise ValueError(
            f"{_FLAG} {config.model}: it has no chat template, so it is asked in the words that it was trained with: "
            f"give --caption.prompt {_WORDS.get(kind or '', 'those of its card')} (docs/models.md has others), or an "
            "instruction-tuned model"
        )


def _check_trust(config: VlmConfig) -> None:
    """Raise SettingError where code would be run that its author can change under the same name."""
    pinned = Path(config.model).is_dir() or _COMMIT.fullmatch(config.revision or "")
    if config.trust_remote_code and not pinned:
        raise SettingError(
            f"--caption.trust-remote-code: {config.model} at {config.revision or 'its newest revision'} can be changed "
            "by others; read its code, then give --caption.revision the commit you read (40 hex digits)"
        )


def _code_sha256(folder: Path) -> str:
    """Return what names the Python files of a model's folder, by name and content."""
    files = sorted(folder.rglob("*.py"))
    return sha256("\n".join(f"{file.relative_to(folder)} {sha256(file.read_bytes())}" for file in files).encode())
