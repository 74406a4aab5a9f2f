"""torchvision's region proposal network with random weights: plumbing, scores, and agreement with torchvision."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import get_model
from torchvision.models.detection.image_list import ImageList

from pipeline.models.state_dict import WeightsError
from pipeline.models.weights import WeightsNotFoundError
from pipeline.propose.rpn import Rpn, RpnConfig
from pipeline.sample import DecodedImage, Pixels
from schemas.boxes import as_boxes

MakeImage = Callable[..., DecodedImage]


def test_boxes_are_those_of_torchvision(rpn: Rpn, make_image: MakeImage, noise: Callable[..., Pixels]) -> None:
    """An image that fills its square needs no padding: torchvision's own `forward` must find the same boxes."""
    config, pixels = rpn.config, noise(192, 192, 1)
    model = get_model(config.model, weights=None, weights_backbone=None, rpn_post_nms_top_n_test=8).eval()
    model.load_state_dict(load_file(config.weights))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((torch.from_numpy(pixels).float() / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        (expected,), _ = model.rpn(ImageList(images, [(192, 192)]), model.backbone(images))
    (proposals,) = rpn.propose([make_image(pixels)])
    assert len(proposals.boxes) == 8
    np.testing.assert_allclose(proposals.boxes, as_boxes(expected.numpy()), atol=0.05)


def test_scores_are_kept_and_boxes_clipped(rpn: Rpn, make_image: MakeImage, noise: Callable[..., Pixels]) -> None:
    for width, height in ((90, 60), (40, 200)):
        (proposals,) = rpn.propose([make_image(noise(width, height, 2))])
        assert 0 < len(proposals.boxes) <= 8
        assert (np.diff(proposals.scores) <= 0).all()
        assert len(np.unique(proposals.scores)) > 1
        assert (proposals.boxes >= 0).all()
        # to a small part of a pixel: the scale of the longer side is that of the square
        assert (proposals.boxes <= np.array([width, height, width, height]) + 0.01).all()


def test_a_pth_gives_what_safetensors_give(
    rpn: Rpn, make_image: MakeImage, noise: Callable[..., Pixels], tmp_path: Path
) -> None:
    path = tmp_path / "rpn.pth"
    torch.save(load_file(rpn.config.weights), path)
    images = [make_image(noise(64, 64, 3))]
    (one,), (other,) = rpn.propose(images), Rpn(replace(rpn.config, weights=str(path))).propose(images)
    np.testing.assert_array_equal(one.boxes, other.boxes)


def test_weights_of_another_model_are_refused(rpn: Rpn, tmp_path: Path) -> None:
    state = {key: value for key, value in load_file(rpn.config.weights).items() if "cls_logits.weight" not in key}
    path = tmp_path / "rpn.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"rpn\.head\.cls_logits\.weight"):
        Rpn(replace(rpn.config, weights=str(path)))


def test_heads_of_other_classes_do_not_matter(rpn: Rpn, tmp_path: Path) -> None:
    state = {key: value for key, value in load_file(rpn.config.weights).items() if not key.startswith("roi_heads.")}
    path = tmp_path / "rpn.safetensors"
    save_file(state, path)
    Rpn(replace(rpn.config, weights=str(path)))


def test_a_missing_file_says_which_flag_takes_a_path() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"--propose\.weights none\.pth: .*fasterrcnn_resnet50_fpn_v2"):
        Rpn.weights(RpnConfig(weights="none.pth"))


def test_torchvision_s_own_weights_must_have_the_published_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another file")
    with pytest.raises(WeightsNotFoundError, match="is not the published one, which begins with dd69338a"):
        Rpn.weights(RpnConfig())


def test_what_names_the_weights_and_their_terms(rpn: Rpn) -> None:
    sha256 = rpn.provenance()["weights"]["sha256"]
    assert Rpn.weights(rpn.config) == {"weights": f"sha256:{sha256}", "license": None}
    assert rpn.provenance()["settings"]["weights"] == "rpn.safetensors"
    assert [terms.license for terms in Rpn.licenses(RpnConfig())] == ["BSD-3-Clause", "BSD-3-Clause"]
    assert [terms.license for terms in Rpn.licenses(rpn.config)] == ["BSD-3-Clause", "unknown"]
