"""Detectors that are asked by text: whatever transformers opens as `AutoModelForZeroShotObjectDetection`.

    Grounding DINO, MM Grounding DINO, LLMDet   a text; each box is of some of its tokens, which are its phrase
    OWLv2, OWL-ViT, OmDet-Turbo                 a list of phrases; each box is of one of them

The text is the image's own caption, or the phrases of a file; the list is of the caption's noun phrases, or the file's.
A region's label is its phrase. An image without a caption, or whose caption names nothing, is filtered.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from pipeline.backends import check_ranges, require
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import TRANSFORMERS, Licensed, model_license
from pipeline.models.weights import ModelFiles
from pipeline.propose.phrases import check_lengths, no_phrases, phrases_of, read_phrases
from pipeline.propose.pretrained import (
    INSTALL,
    Dtype,
    Inputs,
    PretrainedProposer,
    check_answer,
    find_files,
    frames,
)
from pipeline.propose.spans import SpanText, SpanTexts
from pipeline.sample import DecodedImage, Drop, Proposals
from schemas.boxes import as_boxes

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

_MOST_TOKENS = 256
"""Of a text, where a model's own settings do not say."""
_LIST_BUCKET = 8
"""Lists of OWL's are filled up to multiples of so many phrases, so that inputs of few shapes come about."""


@dataclass(frozen=True, kw_only=True)
class GroundingConfig:
    """Settings of `grounding`; the image's size and the rest of the input are the model's own."""

    model: str = "IDEA-Research/grounding-dino-tiny"
    """A hub id (docs/models.md has a table), or a local folder in the hub's layout."""
    revision: str | None = None
    """The hub's branch, tag or commit; its newest when not given."""
    phrases: str | None = None
    """File of phrases, one a line, to look for in every image, in place of what the image's caption names."""
    dtype: Dtype = "float32"
    """What the weights are held and run in."""
    min_score: float = 0.4
    """Lowest score, 0 to 1, of a box: FG-CLIP's. OWLv2's scores are lower: its authors take 0.1."""
    text_threshold: float = 0.25
    """Lowest probability, 0 to 1, of a word that is part of a box's phrase, for models that are given a text."""
    max_proposals: int = 100
    """Most boxes per image."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 4
    """Images and texts per model call; short batches are padded to a power-of-two share of it. Inputs of one shape
    share a call, so batches of models that keep an image's aspect are shorter."""

    def __post_init__(self) -> None:
        check_ranges(self, flag="--propose", shares=("text_threshold",))


class Grounding(PretrainedProposer):
    """Proposes the boxes of what a text names, each with its phrase as label."""

    name: ClassVar[str] = "grounding"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[GroundingConfig]] = GroundingConfig

    def __init__(self, config: GroundingConfig, *, device: Device = CPU) -> None:
        """Load weights and processor. Raises WeightsNotFoundError, SettingError for a model that is not asked by text
        and for a file of phrases that cannot be used, and WeightsError where weights are not all there.
        """
        import transformers

        files = _find(config)
        self._phrases = read_phrases(config.phrases)
        processors: Any = transformers.AutoProcessor
        processor = processors.from_pretrained(files.path, local_files_only=True)
        models = transformers.AutoModelForZeroShotObjectDetection
        super().__init__(config, files=files, model_class=models, processor=processor, device=device)
        most = getattr(self._model.config, "max_text_len", _MOST_TOKENS)
        check_lengths(self._phrases, processor.tokenizer, most=most - 1)
        post_process = inspect.signature(processor.post_process_grounded_object_detection).parameters
        finds_spans = "text_threshold" in post_process
        self._texts = SpanTexts(processor.tokenizer, most=most) if finds_spans else None
        self._is_owl = self._model.config.model_type in ("owlv2", "owlvit")

    def questions(self, image: DecodedImage) -> Sequence[SpanText | tuple[str, ...]] | Drop:
        """Return the texts, or the list of phrases, that the model is asked for."""
        caption = image.item.caption or ""
        if self._texts is None:
            phrases = phrases_of(image, self._phrases)
            return phrases if isinstance(phrases, Drop) else (phrases,)
        if self._phrases is not None:
            return self._texts.of_list(self._phrases.phrases)
        return self._texts.of_caption(caption) or no_phrases(caption, f"has no words: {caption[:200]!r}")

    def read(self, picture: Image.Image, question: SpanText | tuple[str, ...]) -> Mapping[str, "Tensor"]:
        """Return what the processor makes of a picture and a question."""
        if isinstance(question, SpanText):
            padded = {"padding": "max_length", "truncation": True, "max_length": question.length}
            inputs: dict[str, Tensor] = dict(
                self._processor(images=picture, text=question.text, return_tensors="pt", **padded)
            )
            return inputs
        inputs = dict(self._processor(images=picture, text=[[*question]], return_tensors="pt", truncation=True))
        return _filled_up(inputs) if self._is_owl else inputs

    def look(self, alike: Sequence[Inputs], batch: dict[str, "Tensor"]) -> Iterator[Proposals]:
        """Yield what the model's own post-processing keeps of each image, with its phrases."""
        output = self._model(**batch)
        names = [name for name in _OUTPUTS if getattr(output, name, None) is not None]
        check_answer(output, names, len(alike))
        sizes = frames(alike, len(getattr(output, names[0])))
        settings = {"threshold": self.config.min_score, "target_sizes": sizes}
        if self._texts is not None:
            settings |= {"text_threshold": self.config.text_threshold, "input_ids": batch["input_ids"]}
        results = self._processor.post_process_grounded_object_detection(output, **settings)
        for row, (one, result) in enumerate(zip(alike, results, strict=False)):  # without those that pad the batch
            scores = result["scores"].cpu().numpy().astype(np.float32)
            if isinstance(one.question, SpanText):
                labels = self._phrases_in(output.logits[row], one.question)
            else:
                labels = tuple(one.question[index] for index in result["labels"].tolist())
            yield Proposals(boxes=as_boxes(result["boxes"].cpu().numpy()), scores=scores, labels=labels)

    def _phrases_in(self, logits: "Tensor", text: SpanText) -> tuple[str | None, ...]:
        """Return the phrase of each box that post-processing keeps: those with a token above the threshold."""
        probabilities = logits.sigmoid()
        kept = probabilities[probabilities.max(dim=-1).values > self.config.min_score]
        return tuple(text.phrase(row, self.config.text_threshold) for row in kept.tolist())

    @staticmethod
    def weights(config: GroundingConfig) -> dict[str, Any]:
        """Return model and phrases by commit or hash. Raises, at start, ImportError where a library is missing, and
        what the constructor does for a model or a file that cannot be used.
        """
        require("transformers", what="the proposer grounding", install=INSTALL)
        phrases = read_phrases(config.phrases)
        named = {"phrases": phrases and f"sha256:{phrases.sha256}"}
        return named | {"model": _find(config).fingerprint(), "revision": None, "license": None}

    @staticmethod
    def licenses(config: GroundingConfig) -> tuple[Licensed, ...]:
        """Return the terms of transformers and of the weights."""
        return (TRANSFORMERS, model_license(config.model, stated=config.license))

    def provenance(self) -> dict[str, Any]:
        """Return a backend's provenance, the phrases by their hash."""
        said = super().provenance()
        said["settings"]["phrases"] = self._phrases and f"sha256:{self._phrases.sha256}"
        return said


_OUTPUTS = ("logits", "pred_boxes", "decoder_class_logits", "decoder_coord_logits")
"""Scores and boxes of a model's output, by the names that either kind has."""


def _filled_up(inputs: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Return OWL's inputs with rows of no text after the phrases, which its model masks."""
    from torch.nn.functional import pad

    num_missing = -len(inputs["input_ids"]) % _LIST_BUCKET
    return inputs | {
        "input_ids": pad(inputs["input_ids"], (0, 0, 0, num_missing), value=0),
        "attention_mask": pad(inputs["attention_mask"], (0, 0, 0, num_missing), value=1),
    }


def _find(config: GroundingConfig) -> ModelFiles:
    from transformers.models.auto import modeling_auto

    types = {*modeling_auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES}
    others = "; models with classes of their own are for --proposer detr"
    what = "a detector that is asked by text"
    return find_files(config.model, config.revision, types=types, what=what, instead=others)
