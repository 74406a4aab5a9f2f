"""Detectors as transformers has them (RF-DETR, D-FINE, RT-DETR, LW-DETR, Deformable DETR, YOLOS and others): whatever
it opens as `AutoModelForObjectDetection`, with the model's own processor before and after it, and its own class names.

Such models find each thing once, so there is no NMS here; what overlaps all the same is for `select`.
"""

import inspect
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.backends import SettingError, require
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import TRANSFORMERS, Licensed, model_license
from pipeline.models.weights import ModelFiles
from pipeline.propose.pretrained import (
    FLAG,
    INSTALL,
    Dtype,
    Inputs,
    PretrainedProposer,
    check_answer,
    find_files,
    frames,
)
from pipeline.sample import Proposals
from schemas.boxes import as_boxes

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

_MINI = "detector"
_NO_NAME = re.compile(r"LABEL_\d+|N/A|")
"""What stands where a class has no name: transformers' own invention, and the gaps in COCO's numbers."""


@dataclass(frozen=True, kw_only=True)
class DetrConfig:
    """Settings of `detr`; the image's size and the rest of the input are the model's own."""

    model: str = "ustc-community/dfine-medium-obj2coco"
    """A hub id (docs/models.md has a table), a local folder in the hub's layout, or `mini` (synthetic scenes only)."""
    revision: str | None = None
    """The hub's branch, tag or commit; its newest when not given."""
    dtype: Dtype = "float32"
    """What the weights are held and run in."""
    min_score: float = 0.25
    """Lowest score, 0 to 1, of a box, above which the model's own post-processing keeps it."""
    max_proposals: int = 100
    """Most boxes per image."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 8
    """Images per model call; short batches are padded to a power-of-two share of it. Models that keep an image's
    aspect get images of one shape together, so their batches are shorter."""


class Detr(PretrainedProposer):
    """Proposes the boxes of a detector, with the names of their classes."""

    name: ClassVar[str] = "detr"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[DetrConfig]] = DetrConfig

    def __init__(self, config: DetrConfig, *, device: Device = CPU) -> None:
        """Load weights and processor. Raises WeightsNotFoundError, SettingError for a model that is no detector, and
        WeightsError where its weights are not all there.
        """
        import transformers

        files = _find(config)
        processors: Any = transformers.AutoImageProcessor
        processor = processors.from_pretrained(files.path, local_files_only=True)
        models = transformers.AutoModelForObjectDetection
        super().__init__(config, files=files, model_class=models, processor=processor, device=device)
        names = self._model.config.id2label.items()
        self._names = {index: None if _NO_NAME.fullmatch(name or "") else name for index, name in names}
        post_process = inspect.signature(processor.post_process_object_detection).parameters
        self._limit = {"top_k": config.max_proposals} if "top_k" in post_process else {}

    def look(self, alike: Sequence[Inputs], batch: dict[str, "Tensor"]) -> Iterator[Proposals]:
        """Yield what the model's own post-processing keeps of each image."""
        output = self._model(**batch)
        check_answer(output, ("logits", "pred_boxes"), len(alike))
        results = self._processor.post_process_object_detection(
            output, threshold=self.config.min_score, target_sizes=frames(alike, len(output.logits)), **self._limit
        )
        for result in results[: len(alike)]:
            yield Proposals(
                boxes=as_boxes(result["boxes"].cpu().numpy()),
                scores=result["scores"].cpu().numpy(),
                labels=tuple(self._names.get(index) for index in result["labels"].tolist()),
            )

    @staticmethod
    def weights(config: DetrConfig) -> dict[str, Any]:
        """Return the model by its commit or hash. Raises, at start, ImportError where a library is missing, and what
        the constructor does for a model that is no detector.
        """
        require("transformers", what="the proposer detr", install=INSTALL)
        return {"model": _find(config).fingerprint(), "revision": None, "license": None}

    @staticmethod
    def licenses(config: DetrConfig) -> tuple[Licensed, ...]:
        """Return the terms of transformers and of the weights."""
        return (TRANSFORMERS, model_license(config.model, mini=_MINI, stated=config.license))


def _find(config: DetrConfig) -> ModelFiles:
    from transformers.models.auto import modeling_auto

    types = {*modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES}
    others = "; models that are asked by text are for --proposer grounding"
    files = find_files(config.model, config.revision, mini=_MINI, types=types, what="a detector", instead=others)
    settings = json.loads((files.path / "config.json").read_text(encoding="utf-8"))
    if not _names_classes(settings.get("id2label")):
        raise SettingError(
            f"{FLAG} {config.model}: id2label in its config.json does not name its classes by their numbers, as in "
            '{"0": "person", "1": "bicycle"}; write the names that it was trained with there'
        )
    if settings.get("use_focal_loss") is False:
        raise SettingError(
            f"{FLAG} {config.model}: was trained without focal loss (use_focal_loss in its config.json), and what "
            "transformers makes of the scores of such a model is wrong; take one that was trained with it, as is "
            "the default"
        )
    return files


def _names_classes(id2label: Any) -> bool:
    """Return whether a config's `id2label` can be read: classes that are not named, or have null, have no label."""
    names = {} if id2label is None else id2label
    return isinstance(names, dict) and all(
        number.isdecimal() and isinstance(name, str | None) for number, name in names.items()
    )
