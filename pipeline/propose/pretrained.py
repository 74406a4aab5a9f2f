"""What proposers share whose model is one of transformers': files checked at start, inputs by the model's processor.

Each image goes through the processor alone, and images whose inputs have one shape share a call of the model: nothing
is padded to the largest of a batch, so its batch mates change nothing.
"""

import inspect
import itertools
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from pipeline.backends import BackendBase, SettingError
from pipeline.models.batches import padded_size
from pipeline.models.device import Device
from pipeline.models.pretrained import from_pretrained
from pipeline.models.weights import ModelFiles, WeightsNotFoundError, find_model
from pipeline.propose.order import best_first
from pipeline.sample import DecodedImage, Drop, Pixels, Proposals
from schemas.boxes import Boxes, clip, is_valid

if TYPE_CHECKING:  # planning must not import torch
    from torch import Tensor

Dtype = Literal["float32", "float16", "bfloat16"]

FLAG = "--propose.model"
LIBRARIES = ("torch", "torchvision", "transformers")
INSTALL = "pip install 'fineclip-regions[pipeline]'"

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_WIDEST = 8
"""Longer side by shorter side beyond which an image is laid on a canvas: resized, its shorter side would be nothing."""
_CANVAS = (124, 116, 104)
"""ImageNet's mean as a colour, which is about 0 once normalised."""
_FARTHEST = 10
"""Of the longer side, by which a box may reach beyond its image. Models do by some, and broken ones by any number."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """One image as a model takes it, with what it is asked about it."""

    tensors: Mapping[str, "Tensor"]
    """What the processor made of it, by the name of the model's argument; pinned if they go to a GPU."""
    frame: tuple[int, int]
    """What the model's boxes are shares of, height and width in pixels: the image, or the canvas it lies on."""
    size: tuple[int, int]
    """Of the image: height and width in pixels."""
    question: Any = None
    """What is asked; None where a model cannot be asked."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """What inputs that share a call have in common."""
        return tuple((name, tuple(tensor.shape)) for name, tensor in sorted(self.tensors.items()))


def find_files(
    model: str, revision: str | None, *, types: Collection[str], what: str, instead: str = "", mini: str | None = None
) -> ModelFiles:
    """Return the files of `model`, a local folder, a hub id, or `mini` (which ships as that), checked without loading.

    Raises WeightsNotFoundError, and SettingError where they are not those of a model of one of `types` (transformers'
    names) with its processor; `what` says what such a model does, `instead` what takes others.
    """
    files = find_model(model, mini=mini, flag=FLAG, revision=revision)
    if not files.path.is_dir():
        raise WeightsNotFoundError(
            f"{FLAG} {model}: is a file; give the folder that holds it, its config.json and preprocessor_config.json"
        )
    try:
        model_type = json.loads((files.path / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise SettingError(
            f"{FLAG} {model}: its config.json cannot be read ({getattr(error, 'strerror', None) or error}); give a "
            "folder that transformers' save_pretrained wrote"
        ) from error
    if model_type not in types:
        raise SettingError(
            f"{FLAG} {model}: is a {model_type}, which the transformers installed here does not open as {what}; it "
            f"opens {', '.join(sorted(types))}{instead}"
        )
    if not any((files.path / name).is_file() for name in _PROCESSORS):
        raise SettingError(
            f"{FLAG} {model}: has no preprocessor_config.json, which says how images become its input; save the "
            f"processor of the model that it was trained from beside it, with "
            f"AutoProcessor.from_pretrained(HUB_ID).save_pretrained({model!r})"
        )
    return files


class PretrainedProposer(BackendBase):
    """Brings images to a model's inputs and what is found in them back. A subclass says how the model is asked."""

    def __init__(self, config: Any, *, files: ModelFiles, model_class: Any, processor: Any, device: Device) -> None:
        """Load the weights as `model_class` (of transformers). Raises WeightsError where they are not the model's."""
        import torch

        super().__init__(config, files=files, libraries={name: name for name in LIBRARIES})
        self._device = device.resolve()
        self._processor = processor
        dtype = getattr(torch, config.dtype)
        model = from_pretrained(model_class, files, flag=FLAG, dtype=dtype, trust_remote_code=False)
        self._model = model.to(self._device).eval()
        self._arguments = {*inspect.signature(self._model.forward).parameters}

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals | Drop]:
        """Return the proposals of each image in its own frame, best first, or why it has none."""
        return self.detect(self.prepare(images))

    def prepare(self, images: Sequence[DecodedImage]) -> list[tuple[Inputs, ...] | Drop]:
        """Return the inputs of each image on the CPU, one a question; or the drop of an image that gives none."""
        return [self._inputs(image) for image in images]

    def _inputs(self, image: DecodedImage) -> tuple[Inputs, ...] | Drop:
        questions = self.questions(image)
        if isinstance(questions, Drop):
            return questions
        pixels = on_canvas(image.pixels)
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        frame, size = (pixels.shape[0], pixels.shape[1]), (image.pixels.shape[0], image.pixels.shape[1])
        return tuple(
            Inputs(tensors=self._pinned(self.read(picture, question)), frame=frame, size=size, question=question)
            for question in questions
        )

    def _pinned(self, tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
        """Return the tensors that the model has arguments for, pinned if they go to a GPU."""
        on_gpu = self._device.startswith("cuda")
        known = {name: tensor for name, tensor in tensors.items() if name in self._arguments}
        return {name: tensor.pin_memory() if on_gpu else tensor for name, tensor in known.items()}

    def questions(self, image: DecodedImage) -> Sequence[Any] | Drop:
        """Return what the model is asked about an image, a call each; or why there is nothing to ask."""
        return (None,)

    def read(self, picture: Image.Image, question: Any) -> Mapping[str, "Tensor"]:
        """Return what the processor makes of a picture, and of what is asked about it."""
        inputs: Mapping[str, Tensor] = self._processor(images=picture, return_tensors="pt")
        return inputs

    def detect(self, prepared: Sequence[tuple[Inputs, ...] | Drop]) -> list[Proposals | Drop]:
        """Return what `propose` does for the images of `prepare`.

        Raises ValueError where the model's answer holds NaN, or boxes far outside of their images.
        """
        import torch

        by_shape: dict[Any, list[Inputs]] = defaultdict(list)
        for one in itertools.chain.from_iterable(inputs for inputs in prepared if not isinstance(inputs, Drop)):
            by_shape[one.shape].append(one)
        found: dict[int, Proposals] = {}
        with torch.inference_mode():
            for alike in by_shape.values():
                for start in range(0, len(alike), self.batch_size):
                    part = alike[start : start + self.batch_size]
                    answers = self.look(part, self._stacked(part))
                    found |= {id(one): answer for one, answer in zip(part, answers, strict=True)}
        most = self.config.max_proposals
        return [
            inputs if isinstance(inputs, Drop) else finished(inputs[0], [found[id(one)] for one in inputs], most)
            for inputs in prepared
        ]

    def _stacked(self, alike: Sequence[Inputs]) -> dict[str, "Tensor"]:
        """Return inputs of one shape as a batch on the device, the last repeated up to a share of `batch_size`."""
        import torch

        padding = [alike[-1]] * (padded_size(len(alike), self.batch_size) - len(alike))
        batch = {}
        for name in alike[0].tensors:
            stacked = torch.cat([one.tensors[name] for one in (*alike, *padding)])
            dtype = self._model.dtype if stacked.is_floating_point() else stacked.dtype
            batch[name] = stacked.to(self._device, dtype, non_blocking=True)
        return batch

    def look(self, alike: Sequence[Inputs], batch: dict[str, "Tensor"]) -> Iterator[Proposals]:
        """Run the model on a batch; yield the proposals of each image, boxes in pixels of its frame."""
        raise NotImplementedError


def frames(alike: Sequence[Inputs], count: int) -> list[tuple[int, int]]:
    """Return the frame of each, the last repeated for what pads their batch to `count`."""
    return [one.frame for one in alike] + [alike[-1].frame] * (count - len(alike))


def check_answer(output: Any, names: Sequence[str], count: int) -> None:
    """Make the named tensors of a model's output float32.

    Raises ValueError for NaN in the first `count` rows: its score is above no threshold, so nothing would be told.
    """
    for name in names:
        values = getattr(output, name).float()
        setattr(output, name, values)
        if values[:count].isnan().any():
            raise ValueError("the model's answer holds NaN")


def on_canvas(pixels: Pixels) -> Pixels:
    """Return `[H, W, 3]` pixels, or those of a strip in the top left corner of a canvas of its length by an eighth."""
    height, width = pixels.shape[:2]
    least = -(-max(height, width) // _WIDEST)
    if min(height, width) >= least:
        return pixels
    canvas = np.full((max(height, least), max(width, least), 3), _CANVAS, dtype=np.uint8)
    canvas[:height, :width] = pixels
    return canvas


def finished(inputs: Inputs, found: Sequence[Proposals], most: int) -> Proposals:
    """Return the best proposals of an image, at most `most`, of all that was asked about it.

    Boxes are clipped to the image; those without a part in it stay as they are, for `select` to say so. Raises
    ValueError for boxes or scores that are not finite, and for boxes far outside of the frame.
    """
    boxes: Boxes = np.concatenate([one.boxes for one in found])
    scores = np.concatenate([one.scores for one in found])
    labels = tuple(itertools.chain.from_iterable(one.labels for one in found))
    masks = tuple(itertools.chain.from_iterable(one.masks or () for one in found))
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise ValueError("the model's answer holds NaN or infinity")
    if (np.abs(boxes) > _FARTHEST * max(inputs.frame)).any():
        raise ValueError(f"the model's boxes reach {_FARTHEST} image sides beyond the image and more")
    clipped = clip(boxes, inputs.size[1], inputs.size[0])
    boxes = np.where(is_valid(clipped)[:, None], clipped, boxes)
    return best_first(Proposals(boxes=boxes, scores=scores, labels=labels, masks=masks or None)).first(most)
