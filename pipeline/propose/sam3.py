"""Segment Anything 3 as transformers has it: phrases in, boxes and masks of all that each names out.

The phrases are those of a file, or the noun phrases of the image's own caption. The image is encoded once, then asked
about some phrases at a time. Its weights are gated, under a licence of Meta's own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from pipeline.backends import check_ranges, require
from pipeline.models.batches import padded_size
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import TRANSFORMERS, Licensed, model_license
from pipeline.models.weights import ModelFiles
from pipeline.propose.phrases import check_lengths, phrases_of, read_phrases
from pipeline.propose.pretrained import INSTALL, Dtype, Inputs, PretrainedProposer, check_answer, find_files
from pipeline.sample import DecodedImage, Drop, Proposals
from schemas.boxes import as_boxes

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

_TYPES = ("sam3", "sam3_video")
"""The published weights hold both the detector, which is used here, and the tracker."""
_MOST_TOKENS = 32
"""Of a phrase, as the model's own processor pads them."""


@dataclass(frozen=True, kw_only=True)
class Sam3Config:
    """Settings of `sam3`."""

    model: str = "facebook/sam3"
    """A hub id (gated: accept its terms there, then `hf auth login`), or a local folder in the hub's layout."""
    revision: str | None = None
    """The hub's branch, tag or commit; its newest when not given."""
    phrases: str | None = None
    """File of phrases, one a line, to look for in every image, in place of what the image's caption names."""
    phrases_per_batch: int = 8
    """Phrases per call of the detector on an image."""
    dtype: Dtype = "float32"
    """What the weights are held and run in."""
    min_score: float = 0.5
    """Lowest score, 0 to 1, of a box."""
    max_proposals: int = 100
    """Most boxes per image."""
    masks: bool = False
    """Keep the masks too, in the table's column `mask_rle`; the boxes are the same either way."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 4
    """Images that are prepared together; the model sees one at a time, with `phrases_per_batch` phrases."""

    def __post_init__(self) -> None:
        check_ranges(self, flag="--propose", least={"phrases_per_batch": 1})


class Sam3(PretrainedProposer):
    """Proposes the model's boxes of what each phrase names, the phrase as label."""

    name: ClassVar[str] = "sam3"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[Sam3Config]] = Sam3Config

    def __init__(self, config: Sam3Config, *, device: Device = CPU) -> None:
        """Load weights and processor. Raises WeightsNotFoundError, SettingError for another model and for a file of
        phrases that cannot be used, and WeightsError where weights are not all there.
        """
        import transformers

        files = _find(config)
        self._phrases = read_phrases(config.phrases)
        processors: Any = transformers.Sam3Processor
        processor = processors.from_pretrained(files.path, local_files_only=True)
        check_lengths(self._phrases, processor.tokenizer, most=_MOST_TOKENS)
        super().__init__(config, files=files, model_class=transformers.Sam3Model, processor=processor, device=device)

    def questions(self, image: DecodedImage) -> Sequence[tuple[str, ...]] | Drop:
        """Return the phrases to look for, all in one."""
        phrases = phrases_of(image, self._phrases)
        return phrases if isinstance(phrases, Drop) else (phrases,)

    def read(self, picture: Image.Image, question: tuple[str, ...]) -> Mapping[str, "Tensor"]:
        """Return what the processor makes of a picture."""
        return {"pixel_values": self._processor(images=picture, return_tensors="pt")["pixel_values"]}

    def look(self, alike: Sequence[Inputs], batch: dict[str, "Tensor"]) -> Iterator[Proposals]:
        """Yield what the model's own post-processing keeps of each phrase in each image."""
        for one, pixels in zip(alike, batch["pixel_values"], strict=False):  # without those that pad the batch
            seen = self._model.get_vision_features(pixel_values=pixels[None])
            size = self.config.phrases_per_batch
            parts = [one.question[start : start + size] for start in range(0, len(one.question), size)]
            found = [proposals for phrases in parts for proposals in self._named(phrases, seen, one)]
            yield Proposals(
                boxes=np.concatenate([proposals.boxes for proposals in found]),
                scores=np.concatenate([proposals.scores for proposals in found]),
                labels=tuple(label for proposals in found for label in proposals.labels),
                masks=tuple(mask for proposals in found for mask in proposals.masks or ()) or None,
            )

    def _named(self, phrases: tuple[str, ...], seen: Any, one: Inputs) -> Iterator[Proposals]:
        """Yield what is found of each phrase in the image whose features are `seen`."""
        count = padded_size(len(phrases), self.config.phrases_per_batch)
        asked = [*phrases, *phrases[-1:] * (count - len(phrases))]
        settings = {"padding": "max_length", "truncation": True, "max_length": _MOST_TOKENS, "return_tensors": "pt"}
        text = self._processor.tokenizer(asked, **settings).to(self._device)
        output = self._model(vision_embeds=_repeated(seen, count), **text)
        check_answer(output, ("pred_logits", "pred_boxes", "presence_logits", "pred_masks"), len(phrases))
        results = self._processor.post_process_object_detection(
            output, threshold=self.config.min_score, target_sizes=[one.frame] * count
        )
        for row, (phrase, result) in enumerate(zip(phrases, results, strict=False)):
            scores = result["scores"].cpu().numpy()
            yield Proposals(
                boxes=as_boxes(result["boxes"].cpu().numpy()),
                scores=scores,
                labels=(phrase,) * len(scores),
                masks=tuple(self._masks(output, row, one)) if self.config.masks else None,
            )

    def _masks(self, output: Any, row: int, one: Inputs) -> Iterator[str]:
        """Yield the mask of each box that post-processing keeps of a phrase; one at a time, as large as they are."""
        from pipeline.propose.masks import as_rle

        scores = output.pred_logits[row].sigmoid() * output.presence_logits[row].sigmoid()
        for query in (scores > self.config.min_score).nonzero().flatten().tolist():
            alone = SimpleNamespace(
                pred_logits=output.pred_logits[row : row + 1, query : query + 1],
                pred_boxes=output.pred_boxes[row : row + 1, query : query + 1],
                pred_masks=output.pred_masks[row : row + 1, query : query + 1],
                presence_logits=output.presence_logits[row : row + 1],
            )
            (result,) = self._processor.post_process_instance_segmentation(
                alone, threshold=self.config.min_score, target_sizes=[one.frame]
            )
            height, width = one.size
            yield as_rle(result["masks"][0, :height, :width].byte().cpu().numpy())

    @staticmethod
    def weights(config: Sam3Config) -> dict[str, Any]:
        """Return model and phrases by commit or hash. Raises, at start, ImportError where a library is missing, and
        what the constructor does for a model or a file that cannot be used.
        """
        require("transformers", what="the proposer sam3", install=INSTALL)
        if config.masks:
            require("pycocotools", what="--propose.masks", install="pip install pycocotools")
        phrases = read_phrases(config.phrases)
        named = {"phrases": phrases and f"sha256:{phrases.sha256}"}
        return named | {"model": _find(config).fingerprint(), "revision": None, "license": None}

    @staticmethod
    def licenses(config: Sam3Config) -> tuple[Licensed, ...]:
        """Return the terms of transformers and of the weights."""
        return (TRANSFORMERS, model_license(config.model, stated=config.license))

    def provenance(self) -> dict[str, Any]:
        """Return a backend's provenance, the phrases by their hash."""
        said = super().provenance()
        said["settings"]["phrases"] = self._phrases and f"sha256:{self._phrases.sha256}"
        return said


def _repeated(seen: Any, count: int) -> Any:
    """Return an image's features as those of `count` images."""
    return type(seen)(
        fpn_hidden_states=tuple(level.expand(count, -1, -1, -1) for level in seen.fpn_hidden_states),
        fpn_position_encoding=tuple(level.expand(count, -1, -1, -1) for level in seen.fpn_position_encoding),
    )


def _find(config: Sam3Config) -> ModelFiles:
    what = "Segment Anything 3"
    return find_files(
        config.model, config.revision, types=_TYPES, what=what, instead="; --proposer sam takes the first"
    )
