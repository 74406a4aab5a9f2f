"""Detectors of transformers with random weights of the real architectures, and the way there and back with a fake."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file

from pipeline.backends import SettingError
from pipeline.models.state_dict import WeightsError
from pipeline.models.weights import WeightsNotFoundError
from pipeline.propose.detr import Detr, DetrConfig
from pipeline.propose.pretrained import on_canvas
from pipeline.sample import DecodedImage, Pixels, Proposals
from schemas.boxes import clip, is_valid
from tests.pipeline.propose.alike import assert_batch_mates_change_nothing
from tests.pipeline.propose.painted import SIZES, box_in, painted
from tests.random_detectors import DETECTORS, NAMES, NUM_QUERIES, random_detector

MakeImage = Callable[..., DecodedImage]
Noise = Callable[..., Pixels]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detectors")
    for architecture in DETECTORS:
        random_detector(folder / architecture, architecture)
    return folder


@pytest.fixture(scope="module", params=[*DETECTORS])
def detr(request: pytest.FixtureRequest, folders: Path) -> Detr:
    return Detr(DetrConfig(model=str(folders / request.param), min_score=0, max_proposals=8))


def test_alone_and_among_different_batch_mates_an_image_gives_the_same(
    detr: Detr, make_image: MakeImage, noise: Noise
) -> None:
    sizes = [(120, 80), (40, 200), (33, 33), (300, 90), (64, 64)]
    assert_batch_mates_change_nothing(detr, [make_image(noise(*size, seed)) for seed, size in enumerate(sizes)])


def test_what_is_proposed_lies_in_the_image_best_first_with_the_model_s_labels(
    detr: Detr, make_image: MakeImage, noise: Noise
) -> None:
    (proposals,) = detr.propose([make_image(noise(120, 80, 1))])
    assert len(proposals.boxes) == 8
    inside = is_valid(clip(proposals.boxes, 120, 80))  # random weights may see things beyond the image
    assert inside.any()
    assert (proposals.boxes[inside] >= 0).all()
    assert (proposals.boxes[inside] <= [120, 80, 120, 80]).all()
    assert (np.diff(proposals.scores) <= 0).all()
    assert {*proposals.labels} <= {"person", "bicycle", None}


def test_the_rows_of_a_low_image_are_not_taken_for_its_channels(detr: Detr, make_image: MakeImage) -> None:
    """Arrays of 1 or 3 rows can be read either way."""
    low = np.zeros((3, 20, 3), np.uint8)
    low[:, 10:] = (250, 120, 0)
    (inputs,), (larger,) = detr.prepare([make_image(low), make_image(low.repeat(20, axis=0).repeat(20, axis=1))])
    for of_low, of_larger in zip(inputs.tensors.values(), larger.tensors.values(), strict=True):
        assert of_low.shape == of_larger.shape
        assert (of_low.float() - of_larger.float()).abs().mean() < 0.35, "but for how the colours meet"


def test_a_model_without_focal_loss_is_refused(folders: Path, tmp_path: Path) -> None:
    """transformers drops one of its classes (their issue 32578)."""
    shutil.copytree(folders / "rt_detr_v2", tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings | {"use_focal_loss": False}))
    with pytest.raises(SettingError, match=r"--propose\.model .*: was trained without focal loss"):
        Detr.weights(DetrConfig(model=str(tmp_path / "model")))


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (2000, 33), (33, 2000)])
def test_tiny_images_and_strips_do_no_harm(detr: Detr, make_image: MakeImage, size: tuple[int, int]) -> None:
    (proposals,) = detr.propose([make_image(np.zeros((*size, 3), np.uint8))])
    assert np.isfinite(proposals.boxes).all()
    assert ((proposals.scores >= 0) & (proposals.scores <= 1)).all()


def test_what_the_model_s_own_post_processing_keeps_is_what_is_proposed(
    detr: Detr, make_image: MakeImage, noise: Noise
) -> None:
    """Word for word as the model's card does it: processor, model, post-processing at the threshold."""
    pixels = noise(120, 80, 4)
    with torch.inference_mode():
        output = detr._model(**detr._processor(images=[pixels], return_tensors="pt", input_data_format="channels_last"))
    (expected,) = detr._processor.post_process_object_detection(output, threshold=0, target_sizes=[(80, 120)])
    (found,) = detr.propose([make_image(pixels)])
    best = expected["scores"].argsort(descending=True)[:8]
    np.testing.assert_allclose(found.scores, expected["scores"][best], atol=1e-5)
    boxes = expected["boxes"][best].numpy()
    clipped = clip(boxes, 120, 80)
    np.testing.assert_allclose(found.boxes, np.where(is_valid(clipped)[:, None], clipped, boxes), atol=1e-2)


class FakeDetector:
    """Finds the painted rectangle in the very input that the model would get; its other queries find nothing."""

    dtype = torch.float32

    def __init__(self, processor: Any) -> None:
        self.mean, self.std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0, 1)

    def __call__(self, *, pixel_values: torch.Tensor, **_: torch.Tensor) -> SimpleNamespace:
        logits = torch.full((len(pixel_values), NUM_QUERIES, len(NAMES)), -20.0)
        boxes = torch.full((len(pixel_values), NUM_QUERIES, 4), 0.5)
        for row, normalised in enumerate(pixel_values.permute(0, 2, 3, 1).numpy()):
            height, width = normalised.shape[:2]
            x0, y0, x1, y1 = box_in((normalised * self.std + self.mean) * 255)
            logits[row, 3, 1] = 20
            centre, size = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height], [(x1 - x0) / width, (y1 - y0) / height]
            boxes[row, 3] = torch.tensor([*centre, *size])
        return SimpleNamespace(logits=logits, pred_boxes=boxes)


# Their processors resize in three ways: stretched without antialiasing, stretched with it, and keeping the aspect.
@pytest.mark.parametrize("detr", ["rf_detr", "rt_detr_v2", "yolos"], indirect=True)
@pytest.mark.parametrize("size", [*SIZES, (400, 40), (40, 400)])
def test_known_boxes_come_back_to_a_pixel(
    detr: Detr, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    ((inputs,),) = detr.prepare([make_image(np.zeros((*size[::-1], 3), np.uint8))])
    *_, inner_height, inner_width = inputs.tensors["pixel_values"].shape
    inner = (inner_width * size[0] / inputs.frame[1], inner_height * size[1] / inputs.frame[0])
    pixels, box = painted(size, inner)
    monkeypatch.setattr(detr, "_model", FakeDetector(detr._processor))
    monkeypatch.setattr(detr, "config", replace(detr.config, min_score=0.5))
    (proposals,) = detr.propose([make_image(pixels)])
    np.testing.assert_allclose(proposals.boxes, [box], atol=1)
    assert proposals.labels == ("bicycle",)


def test_a_strip_lies_on_a_canvas_and_other_images_do_not(noise: Noise) -> None:
    image = noise(80, 10, 1)
    assert on_canvas(image) is image
    canvas = on_canvas(noise(81, 10, 2))
    assert canvas.shape == (11, 81, 3)
    np.testing.assert_array_equal(canvas[:10], noise(81, 10, 2))


class BrokenDetector(FakeDetector):
    """Answers the same as the fake, but for one number."""

    def __init__(self, processor: Any, *, score: float = 0.0, edge: float | None = None) -> None:
        super().__init__(processor)
        self.score, self.edge = score, edge

    def __call__(self, **inputs: torch.Tensor) -> SimpleNamespace:
        output = super().__call__(**inputs)
        output.logits[0, 5, 0] += self.score
        if self.edge is not None:
            output.pred_boxes[0, 3, 2] = self.edge
        return output


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"score": float("nan")}, "holds NaN"),
        ({"edge": float("nan")}, "holds NaN"),
        ({"edge": float("inf")}, "holds NaN or infinity"),
        ({"edge": 1e6}, "reach 10 image sides beyond"),
    ],
)
def test_a_broken_answer_is_an_error_and_no_box(
    folders: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, broken: dict[str, float], message: str
) -> None:
    detr = Detr(DetrConfig(model=str(folders / "rt_detr_v2")))
    monkeypatch.setattr(detr, "_model", BrokenDetector(detr._processor, **broken))
    with pytest.raises(ValueError, match=message):
        detr.propose([make_image(painted((120, 80), (120, 80))[0])])


def test_where_nothing_is_found_there_are_no_proposals(
    folders: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    detr = Detr(DetrConfig(model=str(folders / "yolos"), min_score=1))
    (proposals,) = detr.propose([make_image(np.zeros((50, 50, 3), np.uint8))])
    assert proposals.boxes.shape == (0, 4)
    assert proposals.labels == ()


def _copied(folders: Path, tmp_path: Path, architecture: str = "rt_detr_v2") -> Path:
    return Path(shutil.copytree(folders / architecture, tmp_path / "model"))


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_without_its_processor_says_where_to_get_one(folders: Path, tmp_path: Path) -> None:
    folder = _copied(folders, tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(SettingError, match=r"has no preprocessor_config\.json.*from_pretrained\(HUB_ID\)"):
        Detr.weights(DetrConfig(model=str(folder)))


def test_another_kind_of_model_is_refused_at_start(folders: Path, tmp_path: Path) -> None:
    folder = _copied(folders, tmp_path)
    _edit(folder / "config.json", model_type="grounding-dino")
    with pytest.raises(SettingError, match=r"is a grounding-dino, which .* opens .*rf_detr.*--proposer grounding"):
        Detr.weights(DetrConfig(model=str(folder)))


@pytest.mark.parametrize("config", ["not json", "[]", None])
def test_a_config_that_cannot_be_read_is_told(folders: Path, tmp_path: Path, config: str | None) -> None:
    folder = _copied(folders, tmp_path)
    (folder / "config.json").unlink()
    if config is not None:
        (folder / "config.json").write_text(config)
    with pytest.raises(SettingError, match=r"its config\.json cannot be read"):
        Detr.weights(DetrConfig(model=str(folder)))


def test_a_file_is_told_from_a_folder(folders: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match="is a file; give the folder that holds it"):
        Detr.weights(DetrConfig(model=str(folders / "yolos" / "model.safetensors")))


def test_missing_weights_say_which_flag_takes_a_path() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"--propose\.model \./nothing"):
        Detr.weights(DetrConfig(model="./nothing"))


@pytest.mark.parametrize("architecture", [*DETECTORS])
def test_labels_of_another_number_than_the_weights_have_are_an_error(
    folders: Path, tmp_path: Path, architecture: str
) -> None:
    folder = _copied(folders, tmp_path, architecture)
    _edit(folder / "config.json", id2label={"0": "person"}, label2id={"person": 0})
    with pytest.raises(WeightsError, match=r"--propose.model model: its weights do not fit its config.json"):
        Detr(DetrConfig(model=str(folder)))


@pytest.mark.parametrize(
    "names", [["person", "cat"], {"person": "0"}, {"0": 7}, {"0": ["a cat", "cats"]}, {"-1": "person"}, "person"]
)
def test_names_of_classes_that_cannot_be_read_are_told_at_start(folders: Path, tmp_path: Path, names: object) -> None:
    folder = _copied(folders, tmp_path, "yolos")
    _edit(folder / "config.json", id2label=names)
    with pytest.raises(SettingError, match=rf"--propose.model {folder}: id2label in its config.json does not name"):
        Detr.weights(DetrConfig(model=str(folder)))


def test_a_class_whose_name_is_null_has_no_label(
    folders: Path, tmp_path: Path, make_image: MakeImage, noise: Noise
) -> None:
    folder = _copied(folders, tmp_path, "yolos")
    names = json.loads((folder / "config.json").read_text())["id2label"]
    _edit(folder / "config.json", id2label=dict.fromkeys(names), label2id={})
    try:
        transformers.AutoConfig.from_pretrained(folder)
    except StrictDataclassError:
        pytest.skip("NOT TESTED: this transformers, as 5.9, opens no model with a class without a name")
    proposals = Detr(DetrConfig(model=str(folder), min_score=0)).propose([make_image(noise(64, 48, 1))])[0]
    assert isinstance(proposals, Proposals) and {*proposals.labels} == {None}


def test_weights_that_are_missing_are_not_drawn_at_random(folders: Path, tmp_path: Path) -> None:
    folder = _copied(folders, tmp_path, "yolos")
    state = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    lost = next(name for name in state if name.startswith("class_labels_classifier"))
    save_file({name: tensor for name, tensor in state.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 of YolosForObjectDetection are missing .*class_labels_classifier"):
        Detr(DetrConfig(model=str(folder)))


def test_what_names_the_weights_and_their_terms(folders: Path) -> None:
    config = DetrConfig(model=str(folders / "yolos"))
    provenance = Detr(config).provenance()
    sha256 = provenance["weights"]["sha256"]
    assert Detr.weights(config) == {"model": f"sha256:{sha256}", "revision": None, "license": None}
    assert {*provenance["libraries"]} == {"torch", "torchvision", "transformers"}
    assert [terms.license for terms in Detr.licenses(config)] == ["Apache-2.0", "unknown"]
