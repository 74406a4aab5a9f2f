"""Segment Anything through transformers with random weights, and the rules that choose masks with a fake model."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.models.weights import WeightsNotFoundError
from pipeline.propose.sam import Sam, SamConfig
from pipeline.sample import DecodedImage, Pixels

MakeImage = Callable[..., DecodedImage]


class FakeSam:
    """Gives each point one mask, the rows from the top down to it, and notes the points in parts of the image."""

    dtype = torch.float32

    def __init__(self, *, inner_size: tuple[int, int], slope: float = 100.0) -> None:
        self.inner_size = inner_size
        self.slope = slope
        """Logits an input pixel: the lower, the less stable."""
        self.batches: list[torch.Tensor] = []

    def get_image_embeddings(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return pixel_values

    def __call__(
        self, *, image_embeddings: torch.Tensor, input_points: torch.Tensor, input_labels: torch.Tensor
    ) -> SimpleNamespace:
        points = input_points[0, :, 0]
        self.batches.append(points / torch.tensor(self.inner_size).flip(0))
        rows = (torch.arange(32) + 0.5) * 4
        masks = self.slope * (points[:, 1, None] - rows)[:, None, :, None].expand(-1, 3, 32, 32)
        scores = torch.tensor([0.1, 0.9, 0.2]).expand(1, len(points), 3)
        return SimpleNamespace(pred_masks=masks[None], iou_scores=scores)


@pytest.fixture
def of_rows(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeSam]:
    """Returns a function that puts the fake and some settings in the place of the model and its settings."""

    def use(*, slope: float = 100.0, inner_size: tuple[int, int] = (128, 128), **settings: Any) -> FakeSam:
        fake = FakeSam(inner_size=inner_size, slope=slope)
        monkeypatch.setattr(sam, "_model", fake)
        monkeypatch.setattr(sam, "config", replace(SamConfig(points_per_side=4, max_iou=1), **settings))
        return fake

    return use


def test_points_are_a_grid_over_the_image_in_batches_of_one_size(
    sam: Sam, of_rows: Callable[..., FakeSam], make_image: MakeImage
) -> None:
    fake = of_rows(inner_size=(64, 128), points_per_batch=5)
    sam.propose([make_image(np.zeros((100, 200, 3), np.uint8))])
    assert [len(batch) for batch in fake.batches] == [5, 5, 5, 5]
    steps = [0.125, 0.375, 0.625, 0.875]
    grid = torch.cat(fake.batches)[:16]
    np.testing.assert_allclose(grid.numpy(), [[x, y] for y in steps for x in steps], atol=1e-6)


def test_what_fills_the_last_batch_of_points_gives_no_masks(
    sam: Sam, of_rows: Callable[..., FakeSam], make_image: MakeImage
) -> None:
    of_rows(points_per_batch=5)
    (proposals,) = sam.propose([make_image(np.zeros((128, 128, 3), np.uint8))])
    assert len(proposals.boxes) == 16


def test_of_equal_masks_one_is_left(sam: Sam, of_rows: Callable[..., FakeSam], make_image: MakeImage) -> None:
    of_rows(max_iou=0.95)
    (proposals,) = sam.propose([make_image(np.zeros((256, 256, 3), np.uint8))])
    np.testing.assert_allclose(proposals.boxes, [[0, 0, 256, y] for y in (32, 96, 160, 224)], atol=1)
    np.testing.assert_allclose(proposals.scores, 0.9)


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 16), ({"min_score": 0.95}, 0), ({"min_score": 0.15}, 32), ({"max_proposals": 3}, 3)],
)
def test_masks_below_the_score_or_beyond_the_limit_are_left_out(
    sam: Sam, of_rows: Callable[..., FakeSam], make_image: MakeImage, settings: dict[str, Any], count: int
) -> None:
    of_rows(**settings)
    (proposals,) = sam.propose([make_image(np.zeros((64, 64, 3), np.uint8))])
    assert len(proposals.boxes) == len(proposals.scores) == len(proposals.labels) == count


def test_unstable_masks_are_left_out(sam: Sam, of_rows: Callable[..., FakeSam], make_image: MakeImage) -> None:
    """With 1/8 a logit an input pixel the edge moves by 8 pixels each way: of 16 rows are 8 left of 24, of 112 104."""
    of_rows(slope=1 / 8, max_iou=0.95, min_stability=0.8)
    (proposals,) = sam.propose([make_image(np.zeros((128, 128, 3), np.uint8))])
    np.testing.assert_allclose(proposals.boxes[:, 3], [80, 112], atol=1)


def test_scores_beyond_1_are_cut(sam: Sam, make_image: MakeImage, noise: Callable[..., Pixels]) -> None:
    (proposals,) = sam.propose([make_image(noise(50, 70, 1))])
    assert 0 < len(proposals.boxes) <= 9
    assert ((proposals.scores >= 0) & (proposals.scores <= 1)).all()
    assert (np.diff(proposals.scores) <= 0).all()


def test_boxes_do_not_depend_on_whether_masks_are_kept(
    sam: Sam, make_image: MakeImage, noise: Callable[..., Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [make_image(noise(90, 60, 1))]
    (masked,) = sam.propose(images)
    monkeypatch.setattr(sam, "config", replace(sam.config, masks=False))
    (bare,) = sam.propose(images)
    assert bare.masks is None
    np.testing.assert_array_equal(bare.boxes, masked.boxes)


def test_a_large_image_is_done_in_parts(
    sam: Sam, make_image: MakeImage, noise: Callable[..., Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [make_image(noise(90, 60, 1))]
    (at_once,) = sam.propose(images)
    monkeypatch.setattr("pipeline.propose.sam._MASK_PIXELS", 1)
    (in_parts,) = sam.propose(images)
    np.testing.assert_array_equal(in_parts.boxes, at_once.boxes)
    assert in_parts.masks == at_once.masks


@pytest.mark.parametrize("name", ["points_per_side", "points_per_batch"])
def test_settings_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"--propose.{name.replace('_', '-')} is 0"):
        SamConfig(**{name: 0})


def test_missing_weights_say_which_flag_takes_a_path() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"--propose\.model \./nothing"):
        Sam.weights(SamConfig(model="./nothing"))


def test_what_names_the_weights_and_their_terms(sam: Sam) -> None:
    sha256 = sam.provenance()["weights"]["sha256"]
    named = {"model": f"sha256:{sha256}", "revision": None, "sha256": None, "license": None}
    assert Sam.weights(sam.config) == named
    assert [terms.license for terms in Sam.licenses(SamConfig())] == ["Apache-2.0", "Apache-2.0"]
    assert [terms.license for terms in Sam.licenses(sam.config)] == ["Apache-2.0", "unknown"]
