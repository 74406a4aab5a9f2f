"""NMS of a batch: by one call and image by image it keeps the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from pipeline.propose.nms import suppressed

NAMES = {0: "cat", 1: "dog"}


def _random(seed: int, images: int, boxes: int, side: float = 640.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(images, boxes, 2, generator=generator) * side * 0.7
    sides = torch.rand(images, boxes, 2, generator=generator) * side * 0.3
    return torch.cat([first, first + sides], dim=2), torch.rand(images, boxes, len(NAMES), generator=generator)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(0, 40))
def test_both_ways_keep_the_same(seed: int, images: int, boxes: int) -> None:
    arguments = {"min_score": 0.3, "max_iou": 0.4, "max_kept": 10}
    corners, scores = _random(seed, images, boxes)
    ways = [suppressed(corners, scores, NAMES, at_once=at_once, **arguments) for at_once in (True, False)]
    for ours, theirs in zip(*ways, strict=True):
        assert (ours.boxes.tolist(), ours.scores.tolist(), ours.labels) == (
            theirs.boxes.tolist(),
            theirs.scores.tolist(),
            theirs.labels,
        )


def test_it_is_torchvisions_of_each_image() -> None:
    corners, scores = _random(7, 3, 200)
    for index, found in enumerate(suppressed(corners, scores, NAMES, min_score=0.5, max_iou=0.3, max_kept=1000)):
        best, classes = scores[index].max(dim=1)
        is_candidate = best > 0.5
        kept = batched_nms(corners[index][is_candidate], best[is_candidate], torch.zeros(int(is_candidate.sum())), 0.3)
        assert found.boxes.tolist() == corners[index][is_candidate][kept].tolist()
        assert list(found.labels) == [NAMES[int(number)] for number in classes[is_candidate][kept]]
        assert (np.diff(found.scores) <= 0).all()


def test_the_better_box_wins_whatever_its_class() -> None:
    corners = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.6, 0.1], [0.1, 0.9], [0.4, 0.3]]])
    (found,) = suppressed(corners, scores, NAMES, min_score=0.25, max_iou=0.5, max_kept=9)
    assert found.labels == ("dog", "cat")
    assert found.scores.tolist() == pytest.approx([0.9, 0.4])


@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_not_finite_is_no_box(at_once: bool) -> None:
    corners, scores = _random(1, 2, 4)
    corners[0, :, 2] = float("nan")
    scores[1, :, 0] = float("nan")
    for found in suppressed(corners, scores, NAMES, min_score=0.0, max_iou=0.5, max_kept=9, at_once=at_once):
        assert len(found.boxes) == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_the_best_boxes_of_each_image_are_compared(monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    monkeypatch.setattr("pipeline.propose.nms._MOST_CANDIDATES", 5)
    corners, scores = _random(3, 2, 20)
    corners[0, :10] = float("nan")
    found = suppressed(corners, scores, NAMES, min_score=0.1, max_iou=1.0, max_kept=20, at_once=at_once)
    best = scores.max(dim=2).values
    assert found[0].scores.tolist() == best[0, 10:].sort(descending=True).values[:5].tolist()
    assert found[1].scores.tolist() == best[1].sort(descending=True).values[:5].tolist()
