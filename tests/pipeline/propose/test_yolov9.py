"""YOLOv9 through both engines. Random weights prove the plumbing: their boxes mean nothing, but must not change."""

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.models.state_dict import WeightsError
from pipeline.models.weights import WeightsNotFoundError
from pipeline.propose.libreyolo import load
from pipeline.propose.ultralytics import predict
from pipeline.propose.yolov9 import Yolov9, Yolov9Config
from pipeline.read.decode import DecodeSettings, decode
from pipeline.sample import DecodedImage, Drop, Pixels, SourceItem
from schemas.reasons import Reason
from tests.random_models import random_libreyolo, random_yolov9

MakeImage = Callable[..., DecodedImage]


@pytest.fixture(params=["ultralytics", "libreyolo"])
def proposer(request: pytest.FixtureRequest) -> Yolov9:
    found: Yolov9 = request.getfixturevalue(request.param)
    return found


def test_there_is_one_result_an_image_within_its_limits(
    ultralytics: Yolov9, make_image: MakeImage, noise: Callable[..., Pixels]
) -> None:
    proposals = ultralytics.propose([make_image(noise(90, 60, seed)) for seed in range(3)])
    assert len(proposals) == 3
    for one in proposals:
        assert 0 < len(one.boxes) <= 5
        assert (np.diff(one.scores) <= 0).all()


@pytest.mark.usefixtures("ultralytics")
def test_the_engine_leaves_pillow_as_it_was() -> None:
    """Ultralytics' own `Image.open` raises ModuleNotFoundError for bytes that are no image."""
    item = SourceItem(key="k", index=0, uri="k.jpg", data=b"no image")
    drop = decode(item, DecodeSettings())
    assert isinstance(drop, Drop)
    assert drop.reason is Reason.DECODE


def test_a_pickled_checkpoint_must_be_named_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "yolov9t.pt"
    path.write_bytes(b"anything")
    with pytest.raises(WeightsNotFoundError, match=r"can run code.*--propose\.sha256"):
        Yolov9(Yolov9Config(model=str(path)))


def test_missing_weights_say_which_flag_takes_a_path() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"--propose\.model.*local path"):
        Yolov9.weights(Yolov9Config())


def test_the_weights_decide_the_fingerprint_and_their_place_does_not(tmp_path: Path) -> None:
    one, other = tmp_path / "a.pt", tmp_path / "b.pt"
    sha256 = random_yolov9(one)
    other.write_bytes(one.read_bytes())
    configs = [Yolov9Config(model=str(path), sha256=sha256) for path in (one, other)]
    expected = {"model": f"sha256:{sha256}", "sha256": None, "license": None}
    assert Yolov9.weights(configs[0]) == Yolov9.weights(configs[1]) == expected


def test_provenance_names_weights_and_engine(proposer: Yolov9) -> None:
    provenance = proposer.provenance()
    assert provenance["weights"]["sha256"]
    assert len(provenance["libraries"]) == 2


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_libreyolo_loads_a_checkpoint_of_its_own(
    tmp_path: Path, make_image: MakeImage, noise: Callable[..., Pixels], suffix: str
) -> None:
    path = tmp_path / f"yolov9t.{suffix}"
    random_libreyolo(path)
    config = Yolov9Config(model=str(path), engine="libreyolo", image_side=64, min_score=0.0, max_proposals=7)
    (proposals,) = Yolov9(config).propose([make_image(noise(90, 60, 1))])
    assert 0 < len(proposals.boxes) <= 7
    expected = {f"thing {index}" if suffix == "pt" else f"class_{index}" for index in range(3)}
    assert set(proposals.labels) <= expected


def test_libreyolo_takes_size_and_classes_from_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "yolov9s.safetensors"
    random_libreyolo(path, size="s", num_classes=2)
    predictor = load(path)
    assert (predictor.size, predictor.nb_classes, predictor.model.training) == ("s", 2, False)


def test_what_is_no_yolov9_of_libreyolo_s_is_told_its_variants(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="variants t, s, m and c"):
        Yolov9(Yolov9Config(model=str(path), engine="libreyolo"))


def test_a_checkpoint_that_does_not_fit_its_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "yolov9t.safetensors"
    random_libreyolo(path)
    state = load_file(path)
    del state["backbone.conv1.conv.weight"]
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"1 keys, such as \['backbone.conv1.conv.weight'\]"):
        Yolov9(Yolov9Config(model=str(path), engine="libreyolo"))


@pytest.mark.parametrize("engine", ["ultralytics", "libreyolo"])
def test_a_missing_file_says_which_variants_the_engine_has(engine: Literal["ultralytics", "libreyolo"]) -> None:
    variants = {"ultralytics": "t, s, m, c, e", "libreyolo": "t, s, m, c"}
    with pytest.raises(WeightsNotFoundError, match=rf"variants {variants[engine]}\b"):
        Yolov9.weights(Yolov9Config(model="none.pt", engine=engine))


def test_a_hash_that_was_given_counts_with_libreyolo_too(tmp_path: Path) -> None:
    path = tmp_path / "yolov9t.safetensors"
    sha256 = random_libreyolo(path)
    Yolov9.weights(Yolov9Config(model=str(path), engine="libreyolo", sha256=sha256))
    with pytest.raises(WeightsNotFoundError, match=sha256):
        Yolov9.weights(Yolov9Config(model=str(path), engine="libreyolo", sha256="0" * 64))


def test_ultralytics_own_predictor_finds_the_same(
    ultralytics: Yolov9, make_image: MakeImage, noise: Callable[..., Pixels]
) -> None:
    image = make_image(noise(side := ultralytics.config.image_side, side, 4))
    (ours,) = ultralytics.propose([image])
    config = ultralytics.config
    model = importlib.import_module("ultralytics").YOLO(config.model, task="detect")
    (theirs,) = predict(
        model, torch.from_numpy(image.pixels.copy())[None], config=config, device="cpu", agnostic_nms=True
    )
    assert ours.boxes.clip(0, side) == pytest.approx(theirs.boxes.xyxy.numpy(), abs=0.5)  # random weights add up
    assert ours.scores == pytest.approx(theirs.boxes.conf.numpy(), abs=1e-5)
    assert list(ours.labels) == [theirs.names[int(index)] for index in theirs.boxes.cls]


@pytest.mark.parametrize("engine", ["ultralytics", "libreyolo"])
def test_halves_find_nearly_the_same(
    engine: Literal["ultralytics", "libreyolo"], tmp_path: Path, make_image: MakeImage, noise: Callable[..., Pixels]
) -> None:
    path = tmp_path / ("yolov9t.pt" if engine == "ultralytics" else "yolov9t.safetensors")
    sha256 = (random_yolov9 if engine == "ultralytics" else random_libreyolo)(path)
    image = make_image(noise(64, 64, 1))
    found = {}
    for dtype in ("float32", "bfloat16"):
        config = Yolov9Config(
            model=str(path),
            engine=engine,
            sha256=sha256,
            image_side=64,
            min_score=0.0,
            dtype=dtype,  # type: ignore[arg-type]
            max_proposals=5,
        )
        (found[dtype],) = Yolov9(config).propose([image])
    assert found["bfloat16"].scores.dtype == np.float32
    assert found["bfloat16"].scores == pytest.approx(found["float32"].scores, abs=0.05)
    assert found["bfloat16"].scores.tolist() != found["float32"].scores.tolist()


def test_ultralytics_nms_never_gives_up(ultralytics: Yolov9, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to itself it stops after some seconds, and the images that it has not come to have no boxes."""
    nms = importlib.import_module("ultralytics.utils.nms")
    clock = itertools.count(step=1000.0)
    monkeypatch.setattr(nms.time, "time", lambda: next(clock))
    predictions = torch.rand(3, 5, 10, generator=torch.Generator().manual_seed(0))
    assert all(len(found) for found in nms.non_max_suppression(predictions, 0.0, 0.99))
