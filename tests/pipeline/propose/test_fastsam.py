"""FastSAM through Ultralytics. Random weights prove the plumbing: their masks mean nothing, but boxes must fit them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.models.device import CPU
from pipeline.models.weights import WeightsNotFoundError
from pipeline.propose.fastsam import FastSam, FastSamConfig
from pipeline.sample import DecodedImage, Pixels

MakeImage = Callable[..., DecodedImage]


class FakeMasks:
    """Gives one square the masks it was made with."""

    def __init__(self, *masks: torch.Tensor) -> None:
        self.masks = torch.stack(masks)

    def detect(self, squares: torch.Tensor) -> list[tuple[torch.Tensor, list[float]]]:
        return [(self.masks, [0.5] * len(self.masks)) for _ in squares]


def test_proposals_are_within_their_limits(
    fastsam: FastSam, make_image: MakeImage, noise: Callable[..., Pixels]
) -> None:
    for one in fastsam.propose([make_image(noise(90, 60, seed)) for seed in range(3)]):
        assert 0 < len(one.boxes) <= 5
        assert one.masks is not None
        assert (np.diff(one.scores) <= 0).all()
        assert (one.boxes >= 0).all()
        assert (one.boxes <= [90, 60, 90, 60]).all()


def test_boxes_do_not_depend_on_whether_masks_are_kept(
    fastsam: FastSam, make_image: MakeImage, noise: Callable[..., Pixels]
) -> None:
    images = [make_image(noise(90, 60, 1))]
    without = FastSam(replace(fastsam.config, masks=False), device=CPU)
    (bare,), (masked,) = without.propose(images), fastsam.propose(images)
    assert bare.masks is None
    np.testing.assert_array_equal(bare.boxes, masked.boxes)
    np.testing.assert_array_equal(bare.scores, masked.scores)


def test_of_a_mask_only_what_lies_in_the_image_counts(
    fastsam: FastSam, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A panorama lies in rows 32 to 95 of its square of 128; the rest is padding."""
    padding, over_the_edge = torch.zeros(2, 128, 128, dtype=torch.uint8)
    padding[:32] = 1
    over_the_edge[90:128, 16:32] = 1
    monkeypatch.setattr(fastsam, "_engine", FakeMasks(padding, over_the_edge))
    (proposals,) = fastsam.propose([make_image(np.zeros((128, 256, 3), np.uint8))])
    assert proposals.boxes.tolist() == [[32, 116, 64, 128]]
    assert len(proposals.scores) == len(proposals.labels) == len(proposals.masks or ()) == 1


def test_an_image_without_masks_has_no_proposals(fastsam: FastSam, make_image: MakeImage) -> None:
    picky = FastSam(replace(fastsam.config, min_score=0.999), device=CPU)
    (proposals,) = picky.propose([make_image(np.zeros((40, 40, 3), np.uint8))])
    assert proposals.boxes.shape == (0, 4)
    assert proposals.masks == ()


def test_a_pickled_checkpoint_must_be_named_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "FastSAM-s.pt"
    path.write_bytes(b"anything")
    with pytest.raises(WeightsNotFoundError, match=r"can run code.*--propose\.sha256"):
        FastSam.weights(FastSamConfig(model=str(path)))


def test_missing_weights_say_which_flag_takes_a_path() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"--propose\.model FastSAM-s\.pt: .*local path of FastSAM-s\.pt"):
        FastSam.weights(FastSamConfig())


def test_what_names_the_weights_and_their_terms(fastsam: FastSam) -> None:
    config = fastsam.config
    assert FastSam.weights(config) == {"model": f"sha256:{config.sha256}", "sha256": None, "license": None}
    assert fastsam.provenance()["weights"] == {"model": "FastSAM-n.pt", "revision": None, "sha256": config.sha256}
    assert [terms.license for terms in FastSam.licenses(config)] == ["AGPL-3.0", "unknown"]
    assert [terms.license for terms in FastSam.licenses(replace(config, license="MIT"))] == ["AGPL-3.0", "MIT"]
