"""The detector as a whole, on tiny towers of both kinds."""

import open_clip
import pytest
import torch

from tests.trainer.towers import EVA, VIT, random_weights
from trainer.detection.detector import Classes, Detector, best, taps_of
from trainer.detection.settings import DetectorSettings, ScoreSettings
from trainer.errors import TrainingError

SETTINGS = DetectorSettings(
    taps=(0, 1, 2), tap_scales=(4.0, 2.0, 1.0), channels=16, sampled_regions=32, proposals=20, finest_px=8
)


def make(name: str = VIT, **changes) -> Detector:
    """Return a detector of two base classes and a novel one, on random weights."""
    torch.manual_seed(0)
    model = open_clip.create_model(name)
    random_weights(model)
    texts = torch.nn.functional.normalize(torch.randn(4, 8))
    classes = Classes(texts=texts, is_base=torch.tensor([True, False, True]))
    return Detector(model.visual, classes, settings=SETTINGS, image_size=64, **changes)


def batch() -> tuple:
    generator = torch.Generator().manual_seed(0)
    canvases = torch.randint(0, 255, (2, 3, 64, 64), generator=generator, dtype=torch.uint8)
    boxes = [torch.tensor([[4.0, 4, 30, 30], [30, 10, 60, 40]]), torch.zeros(0, 4)]
    return (
        canvases,
        torch.tensor([[48, 64], [64, 64]]),
        boxes,
        [torch.tensor([0, 2]), torch.zeros(0, dtype=torch.int64)],
    )


@pytest.mark.parametrize(("name", "precision"), [(EVA, "fp32"), (VIT, "fp32"), (VIT, "bf16")])
def test_all_that_is_trained_gets_a_gradient_and_the_tower_none(name, precision):
    detector = make(name, precision=precision)
    detector.train()
    losses = detector.losses(*batch())
    assert list(losses) == ["proposal_loss", "proposal_box_loss", "class_loss", "box_loss", "loss"]
    assert losses["loss"].item() == pytest.approx(sum(losses[part].item() for part in list(losses)[:-1]), rel=1e-6)
    losses["loss"].backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert not any("tower" in name for name in detector.state_dict())
    (visual,) = detector.tower._visual
    assert not any(module.training for module in visual.modules())
    assert all(parameter.grad is None for parameter in visual.parameters())


def test_strides_follow_patches_and_scales():
    detector = make()
    assert detector.strides == [4, 8, 16]
    assert detector.proposer.anchor_generator.strides == (4, 8, 16, 32)
    levels, dense = detector._see(*batch()[:2])
    assert [tuple(level.shape) for level in levels] == [(2, 16, 16 >> n, 16 >> n) for n in range(4)]
    assert dense.shape == (2, 8, 4, 4)


def test_what_is_found_lies_in_the_image_and_is_of_a_class():
    detector = make().eval()
    first, second = detector.detect(*batch()[:2], ScoreSettings(score_threshold=0.0, max_detections=7))
    assert len(first.boxes) == len(second.boxes) == 7
    assert first.boxes.min() >= 0 and (first.boxes[:, 3] <= 48).all() and (first.boxes[:, 2] <= 64).all()
    assert set(first.labels.tolist()) <= {0, 1, 2}
    assert first.scores.tolist() == sorted(first.scores.tolist(), reverse=True)
    assert not len(detector.detect(*batch()[:2], ScoreSettings(score_threshold=1.0))[0].boxes)


def test_padding_is_the_mean_colour_whatever_it_was():
    detector = make().eval()
    canvases, sizes, *_ = batch()
    other = canvases.clone()
    other[0, :, 48:] = 255
    scores = ScoreSettings(score_threshold=0.0)
    found, again = (detector.detect(one, sizes, scores)[0] for one in (canvases, other))
    assert torch.equal(found.boxes, again.boxes) and torch.equal(found.scores, again.scores)


def test_one_box_may_be_of_several_classes_and_each_is_thinned_for_itself():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    scores = torch.tensor([[0.9, 0.3], [0.8, 0.4], [0.005, 0.2]])
    found = best(boxes, scores, ScoreSettings())
    assert found.labels.tolist() == [0, 1, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.4, 0.2])
    assert torch.equal(found.boxes, boxes[[0, 1, 2]])


@pytest.mark.parametrize(
    ("taps", "said"),
    [
        (None, "for towers of 12 and 24 blocks, and this one has 3; name 3 of them, from 0 to 2"),
        ((0, 1, 5), r"--taps \[0, 1, 5\]: name blocks from 0 to 2, ascending, the last one last"),
        ((1, 0, 2), "ascending"),
        ((0, 0, 2), "ascending"),
    ],
)
def test_taps_that_the_tower_has_not_are_refused(taps, said):
    visual = open_clip.create_model(VIT).visual
    with pytest.raises(TrainingError, match=said):
        taps_of(visual, DetectorSettings(taps=taps, tap_scales=(2.0, 1.0, 0.5)))


def test_a_size_of_no_whole_patches_is_refused():
    with pytest.raises(TrainingError, match=r"--image-size 60: .* take 64 x 64"):
        make_at(60)


def make_at(size: int) -> Detector:
    classes = Classes(texts=torch.ones(2, 8), is_base=torch.tensor([True]))
    return Detector(open_clip.create_model(VIT).visual, classes, settings=SETTINGS, image_size=size)
