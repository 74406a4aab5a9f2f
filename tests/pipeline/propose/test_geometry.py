"""Boxes and masks come back to a pixel through every model proposer's mapping, whatever images are in the batch.

A fake stands in for the model at the lowest seam and "detects" the painted rectangle in the very input that the model
would get. So the way there and back is the real one, and what is compared does not depend on any weights.
"""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from pipeline.propose.base import PreparingProposer
from pipeline.propose.fastsam import FastSam
from pipeline.propose.rpn import Rpn
from pipeline.propose.sam import Sam
from pipeline.propose.yolov9 import Yolov9
from pipeline.sample import DecodedImage, Pixels, Proposals
from schemas.boxes import as_boxes
from tests.pipeline.propose.painted import SIZES, box_in, coverage, painted

MakeImage = Callable[..., DecodedImage]
ModelProposer = Yolov9 | FastSam | Rpn | Sam
# pycocotools' decode is older than numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _rectangles(squares: torch.Tensor) -> list[list[float]]:
    """The rectangle of each of `[P, S, S, 3]` squares; of those without one, which pad the batch and come last, any."""
    found = [box_in(square) for square in squares.numpy() if coverage(square).any()]
    return found + [[0.0, 0.0, 1.0, 1.0]] * (len(squares) - len(found))


class FakeYolo:
    """Finds the rectangle of each square that has one."""

    names: ClassVar[dict[int, str]] = {0: "painted"}

    def boxes_and_scores(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        boxes = _rectangles((pictures * 255).round().permute(0, 2, 3, 1))
        return torch.tensor(boxes)[:, None], torch.full((len(boxes), 1, 1), 0.5)


class FakeFastSam:
    """Gives the painted pixels of each square as its mask."""

    def detect(self, squares: torch.Tensor) -> list[tuple[torch.Tensor, list[float]]]:
        masks = [torch.from_numpy(coverage(square) > 0.5).byte()[None] for square in squares.numpy()]
        return [(mask, [0.5]) for mask in masks]


class FakeRpn:
    """Finds the rectangle of each square that has one, and clips to the image's part as torchvision does."""

    def detect(self, squares: torch.Tensor, sizes: list[tuple[int, int]]) -> list[tuple[np.ndarray, list[float]]]:
        assert len(sizes) == len(squares)
        found = []
        for box, (height, width) in zip(_rectangles(squares), sizes, strict=True):
            found.append((as_boxes([box]).clip(0, [width, height, width, height]), [0.5]))
        return found


class FakeSam:
    """Gives, for every point, the signed distance to the rectangle's edges at a quarter of the input's resolution.

    Interpolation keeps it exact along straight edges, so the mask's precision is the mapping's, not the fake's.
    """

    dtype = torch.float32
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    def get_image_embeddings(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return pixel_values

    def __call__(
        self, *, image_embeddings: torch.Tensor, input_points: torch.Tensor, input_labels: torch.Tensor
    ) -> SimpleNamespace:
        assert input_labels.shape == input_points.shape[:-1]
        pixels = (image_embeddings[0].permute(1, 2, 0).numpy() * self.std + self.mean) * 255
        x0, y0, x1, y1 = box_in(pixels)
        centres = (torch.arange(len(pixels) // 4) + 0.5) * 4
        across, down = torch.minimum(centres - x0, x1 - centres), torch.minimum(centres - y0, y1 - centres)
        logits = 100 * torch.minimum(across[None, :], down[:, None]).float()
        count = input_points.shape[1]
        scores = torch.zeros(1, count, 3)
        scores[..., 1] = 0.9
        return SimpleNamespace(pred_masks=logits.expand(1, count, 3, *logits.shape), iou_scores=scores)


SQUARED = pytest.mark.parametrize(
    "model_proposer", ["ultralytics", "libreyolo", "fastsam", "rpn", "sam"], indirect=True
)
"""The mini is a `detr`, whose way back has a test of its own in `test_detr.py`."""


@pytest.fixture
def with_fake(model_proposer: ModelProposer, monkeypatch: pytest.MonkeyPatch) -> ModelProposer:
    """Each proposer with a fake instead of its model."""
    if isinstance(model_proposer, Sam):
        monkeypatch.setattr(model_proposer, "_model", FakeSam())
        monkeypatch.setattr(model_proposer, "config", replace(model_proposer.config, points_per_side=1, max_iou=0.5))
    else:
        fake = {Yolov9: FakeYolo, FastSam: FakeFastSam, Rpn: FakeRpn}[type(model_proposer)]
        monkeypatch.setattr(model_proposer, "_engine", fake())
    return model_proposer


def _painted(width: int, height: int, side: int) -> tuple[Pixels, list[int]]:
    """Return an image and the rectangle on it, for a model that takes squares of `side` with the aspect kept."""
    scale = side / max(width, height)
    return painted((width, height), (round(width * scale), round(height * scale)))


def _side(proposer: ModelProposer) -> int:
    return 128 if isinstance(proposer, Sam) else proposer.config.image_side


def _mask(rle: str | None, width: int, height: int) -> np.ndarray:
    assert rle is not None
    return np.asarray(coco.decode({"size": [height, width], "counts": rle.encode()}))


@SQUARED
def test_known_boxes_come_back_to_a_pixel(with_fake: ModelProposer, make_image: MakeImage) -> None:
    """All sizes in one batch: each is among very different neighbours."""
    pictures = [_painted(*size, _side(with_fake)) for size in SIZES]
    found = with_fake.propose([make_image(pixels) for pixels, _ in pictures])
    for size, (_, box), proposals in zip(SIZES, pictures, found, strict=True):
        np.testing.assert_allclose(proposals.boxes[0], box, atol=1, err_msg=str(size))


@pytest.mark.parametrize("model_proposer", ["fastsam", "sam"], indirect=True)
def test_known_masks_come_back_to_a_pixel(with_fake: ModelProposer, make_image: MakeImage) -> None:
    for width, height in SIZES:
        pixels, (x0, y0, x1, y1) = _painted(width, height, _side(with_fake))
        (proposals,) = with_fake.propose([make_image(pixels)])
        assert proposals.masks is not None
        mask = _mask(proposals.masks[0], width, height)
        assert mask.shape == (height, width)
        # What is more than a pixel inside the rectangle is in the mask, and nothing more than a pixel outside is; the
        # fake's distance rounds corners, by less than a cell of the resolution it gives its masks in.
        cell = 4 * max(width, height) / 128 if isinstance(with_fake, Sam) else 0
        grown = np.zeros_like(mask)
        grown[max(0, y0 - 1) : y1 + 1, max(0, x0 - 1) : x1 + 1] = 1
        assert not (mask & ~grown & 1).any()
        middle_x, middle_y = (x0 + x1) // 2, (y0 + y1) // 2
        assert mask[y0 + 1 : y1 - 1, middle_x].all()
        assert mask[middle_y, x0 + 1 : x1 - 1].all()
        inset = 1 + int(np.ceil(cell))
        assert mask[y0 + inset : y1 - inset, x0 + inset : x1 - inset].all()


def _assert_alike(one: Proposals, other: Proposals, image: DecodedImage) -> None:
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    assert one.labels == other.labels
    for mine, its in zip(one.masks or (), other.masks or (), strict=True):
        differing = _mask(mine, image.width, image.height) != _mask(its, image.width, image.height)
        assert differing.mean() < 1e-3


def test_alone_and_among_different_batch_mates_an_image_gives_the_same(
    model_proposer: ModelProposer, make_image: MakeImage, noise: Callable[..., Pixels]
) -> None:
    sizes = [(120, 80), (40, 200), (33, 33), (300, 90), (64, 64)]
    images = [make_image(noise(*size, seed)) for seed, size in enumerate(sizes)]
    together = model_proposer.propose(images)
    reversed_order = model_proposer.propose(images[::-1])[::-1]
    for image, among, otherwise in zip(images, together, reversed_order, strict=True):
        _assert_alike(model_proposer.propose([image])[0], among, image)
        _assert_alike(otherwise, among, image)


def test_the_random_models_tell_images_apart(
    model_proposer: ModelProposer, make_image: MakeImage, noise: Callable[..., Pixels]
) -> None:
    """Or the test above could not fail."""
    one, other = model_proposer.propose([make_image(noise(96, 64, seed)) for seed in (1, 2)])
    assert one.scores.tolist() != other.scores.tolist()


def test_the_cpu_part_can_run_ahead(
    model_proposer: ModelProposer, make_image: MakeImage, noise: Callable[..., Pixels]
) -> None:
    assert isinstance(model_proposer, PreparingProposer)
    image = make_image(noise(96, 64, 3))
    prepared: Any = model_proposer.prepare([image])
    _assert_alike(model_proposer.detect(prepared)[0], model_proposer.propose([image])[0], image)


def test_a_flat_image_does_no_harm(model_proposer: ModelProposer, make_image: MakeImage) -> None:
    for size in ((1, 1), (1, 60), (60, 1)):
        (proposals,) = model_proposer.propose([make_image(np.zeros((*size, 3), np.uint8))])
        assert np.isfinite(proposals.boxes).all()
        assert ((proposals.scores >= 0) & (proposals.scores <= 1)).all()
